//! What the file has: loads, stores, marks, and pages that are dropped.

use std::ops::Range;

use super::{Model, Time, WORDS, Words};

impl Model {
    /// A page of the file has lost its content.
    pub(super) fn renew(&mut self, page: usize) {
        self.file[page] = self.cell(Some(page), [0; WORDS]);
        let is_marked = self.marks > 0;
        self.cells[self.file[page]].is_marked = is_marked;
    }

    /// All words of a page of the file are seen, and what the disk has.
    pub(crate) fn learn(&mut self, page: usize, seen: Words, disk: Words) {
        let now = self.tick();
        let cell = &self.cells[self.file[page]];
        if cell.is_known && seen != cell.words {
            assert!(
                cell.is_marked,
                "page {page} was {:?} and is {seen:?}; the disk has {disk:?}",
                cell.words
            );
            self.renew(page);
        }
        let number = self.file[page];
        let cell = &mut self.cells[number];
        if !cell.is_known {
            let is_below = seen != disk && self.may_be_below[page];
            assert!(seen == disk || is_below, "page {page} was loaded as {seen:?}; the disk has {disk:?}");
            cell.is_marked |= is_below;
            cell.words = seen;
            cell.is_known = true;
            cell.log.extend((0..WORDS).map(|word| (now, word, seen[word])));
        }
        self.forget_older(page, number);
    }

    /// Whether a page of the file can only have the words that it had last.
    pub(crate) fn is_sure(&self, page: usize) -> bool {
        let cell = &self.cells[self.file[page]];
        cell.is_known && !cell.is_marked
    }

    /// All words of a page of the file are written.
    pub(crate) fn overwrite(&mut self, page: usize) {
        let cell = self.file[page];
        self.cells[cell].is_known = true;
        self.forget_older(page, cell);
    }

    /// Nobody may remember a page of the file as it was before.
    pub(super) fn forget_older(&mut self, page: usize, cell: usize) {
        let cells = &self.cells;
        self.remembered.retain(|_, known| cells[known.cell].page != Some(page) || known.cell >= cell);
    }

    /// Pages of the file are dropped.
    pub(crate) fn drop_pages(&mut self, pages: &[usize]) -> Vec<usize> {
        pages.iter().for_each(|&page| self.renew(page));
        pages.iter().map(|&page| self.file[page]).collect()
    }

    /// Nobody remembers what these have replaced.
    pub(crate) fn dropped(&mut self, cells: &[usize]) {
        for &cell in cells {
            let page = self.cells[cell].page.expect("of the file");
            self.forget_older(page, cell);
        }
    }

    /// A mark begins: changes that were never stored may be lost.
    pub(crate) fn mark(&mut self, pages: Range<usize>) {
        self.marks += 1;
        self.may_be_below[pages.clone()].fill(self.is_overlay);
        pages.for_each(|page| self.cells[self.file[page]].is_marked = true);
    }

    /// It is over.
    pub(crate) fn not_marked(&mut self) {
        self.marks -= 1;
    }

    /// Somebody begins to make pages clean.
    pub(crate) fn clean(&mut self) {
        self.cleaning += 1;
    }

    /// It is over: if nobody else does, no CPU may write to a page that is clean.
    pub(crate) fn cleaned(&mut self, is_clean: impl Fn(usize) -> bool) {
        self.cleaning -= 1;
        if self.cleaning > 0 {
            return;
        }
        for known in self.remembered.values_mut() {
            let page = self.cells[known.cell].page.filter(|&page| self.file[page] == known.cell);
            known.write &= !page.is_some_and(&is_clean);
        }
    }

    /// A store begins. What has to be on the disk at its end, and when it began.
    pub(crate) fn store(&mut self, pages: Range<usize>) -> (Time, Vec<usize>) {
        let cells = pages.map(|page| self.file[page]);
        let cells = cells.filter(|&cell| self.cells[cell].is_known && !self.cells[cell].is_marked).collect();
        (self.tick(), cells)
    }

    /// The store has ended: the disk has what was written before it began, or since.
    pub(crate) fn stored(&self, (began, cells): (Time, Vec<usize>), disk: impl Fn(usize) -> Words) {
        for number in cells {
            let cell = &self.cells[number];
            let page = cell.page.expect("of the file");
            if cell.is_marked || self.file[page] != number {
                continue;
            }
            for (word, value) in disk(page).into_iter().enumerate() {
                let log: Vec<_> = cell.log.iter().filter(|(_, of, _)| *of == word).collect();
                let last = log.iter().rposition(|(_, _, written)| *written == value);
                let last =
                    last.unwrap_or_else(|| panic!("page {page}: {value} was stored, but never written"));
                let until = log.get(last + 1).map_or(Time::MAX, |(until, ..)| *until);
                assert!(until > began, "page {page}: {value} was stored, and overwritten before: {log:?}");
            }
        }
    }

    /// The words of a page of the file, if they are known and none is lost.
    pub(crate) fn in_file(&self, page: usize) -> Option<Words> {
        let cell = &self.cells[self.file[page]];
        (cell.is_known && !cell.is_marked).then_some(cell.words)
    }
}
