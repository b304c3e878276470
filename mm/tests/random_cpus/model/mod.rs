//! What programs may see: words of pages, and what each CPU may still remember of where they are.
//!
//! An operation has two moments, its first poll and its end. What it gives and takes is so for faults from the first on;
//! what a CPU remembers from before is good until the end, and not after it. All that is done is done by one CPU at a
//! time, so there is always one right answer, but for changes that a mark has declared unimportant.

mod file;
mod spaces;

use std::collections::BTreeMap;
use std::ops::Range;

use mm::{Access, Denial};

use crate::common::content;

/// Pages of each file.
pub(crate) const PAGES: usize = 4;
pub(crate) const SHARED: usize = 2;
/// Pages of given frames.
pub(crate) const GIVEN: usize = 2;
/// Pages that each space has room for.
pub(crate) const ROOM: usize = 20;
/// Words of a page that are used.
pub(crate) const WORDS: usize = 2;

pub(crate) type Words = [u64; WORDS];
type Time = u64;

/// One page, as long as it does not lose its content.
struct Cell {
    words: Words,
    /// Of the file.
    page: Option<usize>,
    is_own: bool,
    /// Not before it is loaded.
    is_known: bool,
    /// Changes may be lost: they were marked.
    is_marked: bool,
    /// When which word was written.
    log: Vec<(Time, usize, u64)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Shows {
    /// Private memory, and which page of the other file it is over, or zeros.
    Own(usize, Option<usize>),
    File(usize),
    Shared(usize),
    Given(usize),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Slot {
    pub(crate) shows: Shows,
    /// 0: nothing is allowed; 1: reading; 2: writing as well.
    pub(crate) rights: u8,
}

type Slots = [Option<Slot>; ROOM];

/// A page of a space, as a CPU knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) cpu: u32,
    pub(crate) space: usize,
    pub(crate) at: usize,
}

struct Remembered {
    cell: usize,
    write: bool,
    since: Time,
}

/// Pages that may not be free yet, though nothing is mapped there.
struct Going {
    number: Time,
    space: usize,
    pages: Range<usize>,
}

/// A fork under way.
struct Twin {
    number: Time,
    space: usize,
    slots: Slots,
}

#[derive(Default)]
pub(crate) struct Model {
    now: Time,
    cells: Vec<Cell>,
    file: Vec<usize>,
    shared: Vec<usize>,
    /// What each page of given frames was and is, the latest last.
    given: [Vec<usize>; GIVEN],
    /// The file is an overlay: below it may be what was marked, when a page of its own is dropped.
    is_overlay: bool,
    may_be_below: [bool; PAGES],
    spaces: Vec<Slots>,
    twins: Vec<Twin>,
    going: Vec<Going>,
    /// Forks that have not ended, or never will: until all CPUs have forgotten, they may write what was forked.
    protecting: Vec<(usize, Time)>,
    remembered: BTreeMap<Place, Remembered>,
    /// Since when a CPU remembers the table of a space.
    tables: BTreeMap<(u32, usize), Time>,
    /// How many times all CPUs had been waited for when a CPU forgot last.
    shootdowns: BTreeMap<u32, u64>,
    /// Marks under way.
    marks: usize,
    /// All calls under way that make pages clean.
    cleaning: usize,
}

impl Model {
    pub(crate) fn new(is_overlay: bool) -> Self {
        let mut model = Self { is_overlay, ..Self::default() };
        for page in 0..PAGES {
            let cell = model.cell(None, [0; WORDS]);
            model.file.push(cell);
            model.renew(page);
        }
        for _ in 0..SHARED {
            let cell = model.cell(None, [0; WORDS]);
            model.shared.push(cell);
        }
        for page in 0..GIVEN {
            let cell = model.cell(None, [0; WORDS]);
            model.given[page].push(cell);
        }
        model.spaces.push([None; ROOM]);
        model
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    fn cell(&mut self, page: Option<usize>, words: Words) -> usize {
        let cell =
            Cell { words, page, is_own: false, is_known: page.is_none(), is_marked: false, log: Vec::new() };
        self.cells.push(cell);
        self.cells.len() - 1
    }

    /// A cell of private memory.
    pub(crate) fn own(&mut self, of: Option<usize>) -> Shows {
        let cell = self.cell(None, [of.map_or(0, |page| content(page as u64)); WORDS]);
        self.cells[cell].is_own = true;
        Shows::Own(cell, of)
    }

    fn cell_of(&self, shows: Shows) -> usize {
        match shows {
            Shows::Own(cell, _) => cell,
            Shows::File(page) => self.file[page],
            Shows::Shared(page) => self.shared[page],
            Shows::Given(page) => *self.given[page].last().expect("each has a frame"),
        }
    }

    /// What is mapped there, or why an access is denied.
    pub(crate) fn slot(&self, space: usize, at: usize, access: Access) -> Result<Slot, Denial> {
        let slot = self.spaces[space][at].ok_or(Denial::NoMapping)?;
        let needed = if access == Access::Write { 2 } else { 1 };
        if slot.rights >= needed { Ok(slot) } else { Err(Denial::Protection(access)) }
    }

    fn set(&mut self, cell: usize, word: usize, value: u64) {
        let (now, is_marked) = (self.tick(), self.marks > 0);
        let cell = &mut self.cells[cell];
        assert!(cell.is_known);
        cell.words[word] = value;
        cell.log.push((now, word, value));
        cell.is_marked = is_marked;
    }

    fn check(&self, cell: usize, word: usize, value: u64, how: &str) {
        let words = self.cells[cell].words;
        assert_eq!(words[word], value, "word {word} of {words:?}, {how}");
    }

    /// What a CPU reads or writes without a look at the tables.
    pub(crate) fn by_memory(&mut self, place: Place, word: usize, access: Access, value: u64) {
        let known = self.remembered.get(&place).unwrap_or_else(|| panic!("remembered too long: {place:?}"));
        let cell = known.cell;
        if access == Access::Write {
            assert!(known.write, "the right to write remembered too long: {place:?}");
            self.set(cell, word, value);
        } else {
            self.check(cell, word, value, "remembered");
        }
    }

    /// What a CPU reads or writes that has looked at the tables, or a thread by a call. `by_table`: it remembers a table.
    pub(crate) fn by_tables(
        &mut self,
        place: Place,
        word: usize,
        access: Access,
        value: u64,
        by_table: Option<bool>,
    ) {
        let Place { cpu, space, at } = place;
        let slot = self.slot(space, at, access).unwrap_or_else(|why| panic!("reached {place:?}: {why}"));
        let now = self.tick();
        let known = self.tables.get(&(cpu, space)).copied().filter(|_| by_table == Some(true));
        let is_write = access == Access::Write;
        let mut cell = self.cell_of(slot.shows);
        let may_be_in_place =
            known.is_some_and(|known| self.protecting.iter().any(|&(of, at)| of == space && at > known));
        if let Shows::Own(old, of) = slot.shows
            && is_write
            && !may_be_in_place
            && self.is_forked(old)
        {
            let shows = self.own(of);
            cell = self.cell_of(shows);
            self.cells[cell].words = self.cells[old].words;
            self.spaces[space][at] = Some(Slot { shows, ..slot });
            // Others may have read the copy already. Who remembers the old page is found out by the words.
            for (_, known) in self.remembered.iter_mut().filter(|(of, _)| (of.space, of.at) == (space, at)) {
                *known = Remembered { cell, write: false, ..*known };
            }
        }
        if let Shows::File(page) = slot.shows {
            self.forget_older(page, cell);
        }
        if let Shows::Given(page) = slot.shows {
            let given = &self.given[page];
            self.remembered.retain(|_, known| known.cell == cell || !given.contains(&known.cell));
        }
        if by_table.is_some() {
            let since = known.unwrap_or(now);
            self.tables.insert((cpu, space), since);
            self.remembered.insert(place, Remembered { cell, write: is_write, since });
        }
        if is_write {
            self.set(cell, word, value);
        } else {
            self.check(cell, word, value, "in the tables");
        }
    }

    /// What a CPU does remember, and the words there. It remembers nothing that it should not.
    pub(crate) fn remembers(&self, place: Place, may_write: bool, words: Words) {
        let known = self.remembered.get(&place).unwrap_or_else(|| panic!("remembered too long: {place:?}"));
        assert!(known.write || !may_write, "the right to write remembered too long: {place:?}");
        assert_eq!(words, self.cells[known.cell].words, "remembered: {place:?}");
    }

    /// The CPU had to fault, which makes it forget.
    pub(crate) fn faulted(&mut self, place: Place) {
        self.remembered.remove(&place);
        self.tables.remove(&(place.cpu, place.space));
    }

    /// The CPU is between two polls, and all CPUs have been waited for so many times.
    pub(crate) fn passed(&mut self, cpu: u32, shootdowns: u64) {
        if self.shootdowns.insert(cpu, shootdowns) != Some(shootdowns) {
            self.forgets(cpu);
        }
    }

    pub(crate) fn forgets(&mut self, cpu: u32) {
        self.remembered.retain(|place, _| place.cpu != cpu);
        self.tables.retain(|&(of, _), _| of != cpu);
    }

    /// From now on nobody remembers pages of a space from before that time.
    fn forgotten(&mut self, space: usize, pages: &Range<usize>, since: Time) {
        self.remembered
            .retain(|place, known| place.space != space || !pages.contains(&place.at) || known.since > since);
    }
}
