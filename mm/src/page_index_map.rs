//! From page number to page: a tree whose leaves are chunks of 64 entries, found by one descent. A page that is
//! absent costs nothing where all 64 are. The transfers under way stand in the chunk of their page.
//!
//! Every change of an entry is told to whoever records events.
//!
//! Room for a page is made before its entry is set: only that can fail, with nothing changed.

#[cfg(test)]
mod tests;
mod tree;

use core::ops::Range;

use crate::fallible::Shared;
use crate::page_state::PageEntry;
use crate::trace::{Event, Owner};
use crate::transfer::Transfer;
use crate::{OutOfMemory, PageEvent};
use tree::{
    BITS, Chunk, Node, SLOTS, Transfers, chunk_mut, for_each, give_up_room, make_room, next_used, slot,
    take_transfer,
};

pub(crate) use tree::Nodes;

/// A page that is absent, and has room for its entry.
pub(crate) struct Vacancy<'a> {
    owner: &'a Owner,
    len: &'a mut usize,
    chunk: &'a mut Chunk,
    index: u64,
}

impl Vacancy<'_> {
    /// Sets the entry.
    #[inline]
    pub(crate) fn fill(self, event: PageEvent, entry: PageEntry) {
        self.chunk.entries[slot(self.index, 0)] = entry;
        self.chunk.used += 1;
        *self.len += 1;
        if self.owner.memory.is_recorded() {
            self.owner.changed(self.index, PageEntry::ABSENT, event, entry);
        }
    }
}

/// What becomes of one of several pages.
pub(crate) enum Enter {
    /// It is left as it is.
    Leave,
    /// It is absent, and gets this entry.
    Set(PageEvent, PageEntry),
    /// It is not looked at, nor are those that follow.
    Enough,
}

/// The pages of one object, guarded by the object's lock.
pub(crate) struct PageIndexMap {
    owner: Owner,
    root: Option<Node>,
    /// How far a page number is shifted for the root's slots: 0 when the root is a chunk.
    shift: u32,
    /// Pages that there are slots for.
    end: u64,
    transfers: usize,
    len: usize,
}

impl PageIndexMap {
    /// For an object of so many pages, all of them absent.
    pub(crate) fn new(owner: Owner, pages: u64) -> Self {
        let bits = u64::BITS - pages.saturating_sub(1).leading_zeros();
        let shift = (bits.div_ceil(BITS).max(1) - 1) * BITS;
        let end = 1u64.checked_shl(shift + BITS).unwrap_or(u64::MAX);
        Self { owner, root: None, shift, end, transfers: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> PageEntry {
        self.chunk(index).map_or(PageEntry::ABSENT, |chunk| chunk.entries[slot(index, 0)])
    }

    /// Changes an entry. There is room for it, or it becomes absent.
    pub(crate) fn set(&mut self, index: u64, event: PageEvent, entry: PageEntry) {
        let Some(chunk) = self.chunk_mut(index) else {
            return assert!(entry == PageEntry::ABSENT, "page {index} has no room");
        };
        let (old, used) = chunk.replace(index, entry);
        self.changed(index, old, event, entry, used);
    }

    /// An entry was changed, and its chunk has so many now that are not absent.
    #[inline]
    fn changed(&mut self, index: u64, old: PageEntry, event: PageEvent, entry: PageEntry, used: u32) {
        self.len += usize::from(entry != PageEntry::ABSENT);
        self.len -= usize::from(old != PageEntry::ABSENT);
        if used == 0 {
            self.give_up_room(index);
        }
        if self.owner.memory.is_recorded() {
            self.owner.changed(index, old, event, entry);
        }
    }

    /// Looks at an entry, and changes it as `change` says, if it does: by one descent.
    #[inline]
    pub(crate) fn update(
        &mut self,
        index: u64,
        mut change: impl FnMut(PageEntry) -> Option<(PageEvent, PageEntry)>,
    ) {
        self.update_each(&mut [index], |&index| index, |_, entry| change(entry));
    }

    /// The same for several pages, whose numbers `index` knows: by one descent for those that follow each other in one
    /// chunk.
    #[inline]
    pub(crate) fn update_each<T>(
        &mut self,
        pages: &mut [T],
        index: impl Fn(&T) -> u64,
        mut change: impl FnMut(&mut T, PageEntry) -> Option<(PageEvent, PageEntry)>,
    ) {
        self.change_each(pages, index, |page, entry, _| change(page, entry));
    }

    /// The same, with the transfers of the chunk that a page is in.
    #[inline]
    fn change_each<T>(
        &mut self,
        pages: &mut [T],
        index: impl Fn(&T) -> u64,
        mut change: impl FnMut(&mut T, PageEntry, &mut Transfers) -> Option<(PageEvent, PageEntry)>,
    ) {
        for pages in pages.chunk_by_mut(|one, next| index(one) >> BITS == index(next) >> BITS) {
            let first = index(&pages[0]);
            let Some(chunk) = chunk_mut(&mut self.root, self.end, self.shift, first) else { continue };
            let mut gone = 0;
            for page in pages {
                let index = index(page);
                let place = &mut chunk.entries[slot(index, 0)];
                let old = *place;
                let Some((event, entry)) = change(page, old, &mut chunk.transfers) else { continue };
                debug_assert!(old != PageEntry::ABSENT, "an entry comes with its room");
                *place = entry;
                gone += u32::from(entry == PageEntry::ABSENT);
                if self.owner.memory.is_recorded() {
                    self.owner.changed(index, old, event, entry);
                }
            }
            if gone > 0 {
                chunk.used -= gone;
                self.len -= gone as usize;
                if chunk.used == 0 {
                    self.give_up_room(first);
                }
            }
        }
    }

    /// How many pages are not absent.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many of those in a range are of a kind. Looks at each.
    pub(crate) fn count(&self, range: Range<u64>, is_one: impl Fn(PageEntry) -> bool) -> usize {
        let mut found = 0;
        self.for_each_in(range, |_, entry| found += usize::from(is_one(entry)));
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The room for the entry of a page, if that is absent and there is any already.
    #[inline]
    pub(crate) fn vacancy(&mut self, index: u64) -> Option<Vacancy<'_>> {
        let Self { owner, root, end, shift, len, .. } = self;
        let chunk = chunk_mut(root, *end, *shift, index)?;
        let is_absent = chunk.entries[slot(index, 0)] == PageEntry::ABSENT;
        is_absent.then_some(Vacancy { owner, len, chunk, index })
    }

    /// Tells pages that are not absent, in order: the first from `from` on, and those after it in its chunk and so many that
    /// may follow. Answers where to go on, if there are more.
    pub(crate) fn for_some(&self, from: u64, chunks: u64, told: impl FnMut(u64, PageEntry)) -> Option<u64> {
        let (first, _) = self.next_used(from..u64::MAX)?;
        let end = (first / SLOTS as u64 + 1 + chunks) * SLOTS as u64;
        self.for_each_in(first..end, told);
        self.next_used(end..u64::MAX).map(|(next, _)| next)
    }

    /// Tells each page of `range` that is not absent, in order. Cheaper than one call of `next_used` for each.
    pub(crate) fn for_each_in(&self, range: Range<u64>, mut told: impl FnMut(u64, PageEntry)) {
        let range = range.start..range.end.min(self.end);
        if let Some(root) = self.root.as_ref().filter(|_| !range.is_empty()) {
            for_each(root, 0, self.shift, &range, &mut told);
        }
    }

    /// Makes room for a page's entry, which is then set, or the room given up.
    pub(crate) fn make_room(&mut self, index: u64) -> Result<(), OutOfMemory> {
        let made = make_room(&self.owner.memory.nodes, &mut self.root, index, self.shift);
        if made.is_err() {
            self.give_up_room(index);
        }
        made
    }

    /// Gives up room that was made for a page where no entry is set.
    pub(crate) fn give_up_room(&mut self, index: u64) {
        give_up_room(&mut self.root, index, self.shift);
    }

    /// A page is being loaded or stored from now on; `entry` says which.
    pub(crate) fn begin_transfer(
        &mut self,
        transfer: Shared<Transfer>,
        event: PageEvent,
        entry: PageEntry,
    ) -> Result<(), OutOfMemory> {
        let index = transfer.page().as_u64();
        let chunk = match chunk_mut(&mut self.root, self.end, self.shift, index) {
            Some(chunk) => chunk,
            None => {
                self.make_room(index)?;
                self.chunk_mut(index).expect("room was made")
            }
        };
        if chunk.transfers.try_reserve(1).is_err() {
            self.give_up_room(index);
            return Err(OutOfMemory);
        }
        chunk.transfers.push(transfer);
        let (old, used) = chunk.replace(index, entry);
        self.transfers += 1;
        self.changed(index, old, event, entry, used);
        Ok(())
    }

    /// The transfer of a page.
    pub(crate) fn transfer(&self, index: u64) -> Option<&Shared<Transfer>> {
        self.chunk(index)?.transfers.iter().find(|transfer| transfer.page().as_u64() == index)
    }

    /// Takes out the transfer of a page, whose entry becomes what it is without.
    #[must_use = "dropped after the lock"]
    pub(crate) fn end_transfer(
        &mut self,
        index: u64,
        event: PageEvent,
        entry: PageEntry,
    ) -> Option<Shared<Transfer>> {
        let chunk = self.chunk_mut(index)?;
        let transfer = take_transfer(&mut chunk.transfers, index)?;
        let (old, used) = chunk.replace(index, entry);
        self.transfers -= 1;
        self.changed(index, old, event, entry, used);
        Some(transfer)
    }

    /// Changes the entries of pages whose transfers end, as [`update_each`](Self::update_each) does. `change` is given the
    /// transfer of each that has one.
    #[inline]
    pub(crate) fn end_transfers<T>(
        &mut self,
        pages: &mut [T],
        index: impl Fn(&T) -> u64,
        mut change: impl FnMut(&mut T, PageEntry, Option<Shared<Transfer>>) -> (PageEvent, PageEntry),
    ) {
        let (mut changed, mut ended) = (0, 0);
        self.change_each(pages, &index, |page, entry, transfers| {
            changed += 1;
            let transfer = take_transfer(transfers, index(page));
            ended += usize::from(transfer.is_some());
            Some(change(page, entry, transfer))
        });
        debug_assert_eq!(changed, pages.len(), "a page whose transfer ends has an entry");
        self.transfers -= ended;
    }

    /// Goes through the pages of a range that are in one chunk, by one descent, until `enter` says that it is enough, and
    /// sets the entries of those that are absent as it says. What was gone through is taken off the front of `pages`.
    ///
    /// # Errors
    /// When there is no memory for the chunk; nothing is changed then.
    pub(crate) fn enter_some(
        &mut self,
        pages: &mut Range<u64>,
        mut enter: impl FnMut(u64, PageEntry) -> Enter,
    ) -> Result<(), OutOfMemory> {
        let first = pages.start;
        self.make_room(first)?;
        let Self { owner, root, end, shift, len, .. } = self;
        let chunk = chunk_mut(root, *end, *shift, first).expect("room was made");
        while !pages.is_empty() && pages.start >> BITS == first >> BITS {
            let index = pages.start;
            let place = &mut chunk.entries[slot(index, 0)];
            match enter(index, *place) {
                Enter::Enough => break,
                Enter::Leave => {}
                Enter::Set(event, entry) => {
                    debug_assert!(*place == PageEntry::ABSENT && entry != PageEntry::ABSENT);
                    *place = entry;
                    chunk.used += 1;
                    *len += 1;
                    if owner.memory.is_recorded() {
                        owner.changed(index, PageEntry::ABSENT, event, entry);
                    }
                }
            }
            pages.start += 1;
        }
        if chunk.used == 0 {
            self.give_up_room(first);
        }
        Ok(())
    }

    /// Transfers under way.
    pub(crate) fn transfers(&self) -> usize {
        self.transfers
    }

    /// The first page in `range` that is not absent.
    pub(crate) fn next_used(&self, range: Range<u64>) -> Option<(u64, PageEntry)> {
        let range = range.start..range.end.min(self.end);
        if range.is_empty() {
            return None;
        }
        next_used(self.root.as_ref()?, 0, self.shift, &range)
    }

    #[inline]
    fn chunk(&self, index: u64) -> Option<&Chunk> {
        let mut node = self.root.as_ref().filter(|_| index < self.end)?;
        let mut shift = self.shift;
        loop {
            match node {
                Node::Chunk(chunk) => return Some(chunk),
                Node::Inner(nodes) => node = nodes[slot(index, shift)].as_ref()?,
            }
            shift -= BITS;
        }
    }

    #[inline]
    fn chunk_mut(&mut self, index: u64) -> Option<&mut Chunk> {
        chunk_mut(&mut self.root, self.end, self.shift, index)
    }
}

impl Drop for PageIndexMap {
    fn drop(&mut self) {
        self.owner.memory.tell(Event::Ended(self.owner.name));
    }
}
