//! From page number to page: a tree whose leaves are chunks of 64 entries, found by one descent. A page that is
//! absent costs nothing where all 64 are. The transfers under way stand in the chunk of their page.
//!
//! Every change of an entry is told to whoever records events.
//!
//! Room for a page is made before its entry is set: only that can fail, with nothing changed.

use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use crate::fallible::Shared;
use crate::page_state::PageEntry;
use crate::slab::{Place, Slab};
use crate::trace::{Event, Owner};
use crate::transfer::Transfer;
use crate::{OutOfMemory, PageEvent};

/// Each node has 2^6 slots.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;

enum Node {
    Inner(Place<[Option<Node>; SLOTS]>),
    Chunk(Place<Chunk>),
}

struct Chunk {
    entries: [PageEntry; SLOTS],
    /// Entries that are not absent.
    used: u32,
    /// The transfers of pages of this chunk, at most one a page.
    transfers: Vec<Shared<Transfer>>,
}

impl Chunk {
    /// Sets an entry. Answers what it was, and how many are not absent now.
    #[inline]
    fn replace(&mut self, index: u64, entry: PageEntry) -> (PageEntry, u32) {
        let old = core::mem::replace(&mut self.entries[slot(index, 0)], entry);
        self.used += u32::from(entry != PageEntry::ABSENT);
        self.used -= u32::from(old != PageEntry::ABSENT);
        (old, self.used)
    }
}

/// Where the nodes of all indexes have their places.
pub(crate) struct Nodes {
    inner: Slab<[Option<Node>; SLOTS]>,
    chunks: Slab<Chunk>,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self { inner: Slab::new(), chunks: Slab::new() }
    }
}

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

fn slot(index: u64, shift: u32) -> usize {
    (index >> shift) as usize % SLOTS
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
        for pages in pages.chunk_by_mut(|one, next| index(one) >> BITS == index(next) >> BITS) {
            let first = index(&pages[0]);
            let Some(chunk) = chunk_mut(&mut self.root, self.end, self.shift, first) else { continue };
            let mut gone = 0;
            for page in pages {
                let index = index(page);
                let place = &mut chunk.entries[slot(index, 0)];
                let old = *place;
                let Some((event, entry)) = change(page, old) else { continue };
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
        let position = chunk.transfers.iter().position(|transfer| transfer.page().as_u64() == index)?;
        let transfer = chunk.transfers.swap_remove(position);
        let (old, used) = chunk.replace(index, entry);
        self.transfers -= 1;
        self.changed(index, old, event, entry, used);
        Some(transfer)
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

/// The chunk with a page's entry, below a root as [`PageIndexMap`] has it.
#[inline]
fn chunk_mut(root: &mut Option<Node>, end: u64, mut shift: u32, index: u64) -> Option<&mut Chunk> {
    let mut node = root.as_mut().filter(|_| index < end)?;
    loop {
        match node {
            Node::Chunk(chunk) => return Some(chunk),
            Node::Inner(nodes) => node = nodes[slot(index, shift)].as_mut()?,
        }
        shift -= BITS;
    }
}

/// Adds the nodes that are missing on the way to a page. Those added before one that cannot be stay.
fn make_room(
    nodes: &'static Nodes,
    mut place: &mut Option<Node>,
    index: u64,
    mut shift: u32,
) -> Result<(), OutOfMemory> {
    loop {
        if place.is_none() {
            *place = Some(if shift == 0 {
                Node::Chunk(nodes.chunks.try_place(|| Chunk {
                    entries: [PageEntry::ABSENT; SLOTS],
                    used: 0,
                    transfers: Vec::new(),
                })?)
            } else {
                Node::Inner(nodes.inner.try_place(|| [const { None }; SLOTS])?)
            });
        }
        match place {
            Some(Node::Inner(below)) => place = &mut below[slot(index, shift)],
            _ => return Ok(()),
        }
        shift -= BITS;
    }
}

/// Removes the nodes on the way to a page that have nothing in them. The depth is that of the tree.
fn give_up_room(place: &mut Option<Node>, index: u64, shift: u32) {
    let empty = match place {
        None => return,
        Some(Node::Chunk(chunk)) => chunk.used == 0,
        Some(Node::Inner(nodes)) => {
            give_up_room(&mut nodes[slot(index, shift)], index, shift - BITS);
            nodes.iter().all(Option::is_none)
        }
    };
    if empty {
        *place = None;
    }
}

/// Which slots of a node have pages of a range. The node begins with page `base`, and has pages of the range.
#[inline]
fn slots(base: u64, shift: u32, range: &Range<u64>) -> RangeInclusive<usize> {
    let from = range.start.saturating_sub(base) >> shift;
    let last = ((range.end - 1 - base) >> shift).min(SLOTS as u64 - 1);
    from as usize..=last as usize
}

/// Tells the pages of a node that are in `range` and not absent, as [`slots`] has them. The depth is that of the tree.
fn for_each(node: &Node, base: u64, shift: u32, range: &Range<u64>, told: &mut impl FnMut(u64, PageEntry)) {
    let slots = slots(base, shift, range);
    match node {
        Node::Chunk(chunk) => {
            for (index, &entry) in (base + *slots.start() as u64..).zip(&chunk.entries[slots]) {
                if entry != PageEntry::ABSENT {
                    told(index, entry);
                }
            }
        }
        Node::Inner(nodes) => {
            for (slot, node) in (*slots.start() as u64..).zip(&nodes[slots]) {
                if let Some(node) = node {
                    for_each(node, base + (slot << shift), shift - BITS, range, told);
                }
            }
        }
    }
}

/// The first page of a node that is in `range` and not absent.
fn next_used(node: &Node, base: u64, shift: u32, range: &Range<u64>) -> Option<(u64, PageEntry)> {
    let mut slots = slots(base, shift, range);
    match node {
        Node::Chunk(chunk) => slots
            .map(|slot| (base + slot as u64, chunk.entries[slot]))
            .find(|&(_, entry)| entry != PageEntry::ABSENT),
        Node::Inner(nodes) => slots.find_map(|slot| {
            next_used(nodes[slot].as_ref()?, base + ((slot as u64) << shift), shift - BITS, range)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageState;
    use crate::trace::ObjectName;

    fn map(pages: u64) -> PageIndexMap {
        let owner = Owner { memory: crate::window::arena::memory(64), name: ObjectName::object(0) };
        PageIndexMap::new(owner, pages)
    }

    fn loaded(frame: u64) -> PageEntry {
        PageEntry::new(PageState::Loaded { frame })
    }

    fn enter(map: &mut PageIndexMap, index: u64) {
        map.make_room(index).expect("there is memory");
        map.set(index, PageEvent::Move, loaded(index & 0xffff));
    }

    #[test]
    fn used_pages_are_found_in_order_and_only_within_the_range() {
        const LAST: u64 = (1 << 51) - 1;
        let mut map = map(LAST + 1);
        for index in [3, 63, 64, 1000, LAST] {
            enter(&mut map, index);
        }
        assert_eq!(map.next_used(0..u64::MAX).map(|found| found.0), Some(3));
        assert_eq!(map.next_used(4..1000).map(|found| found.0), Some(63));
        assert_eq!(map.next_used(64..65).map(|found| found.0), Some(64));
        assert_eq!(map.next_used(65..1000).map(|found| found.0), None);
        assert_eq!(map.next_used(65..65).map(|found| found.0), None);
        assert_eq!(map.next_used(1001..u64::MAX).map(|found| found.0), Some(LAST));
        let told = |range| {
            let mut told = Vec::new();
            map.for_each_in(range, |index, entry| told.push((index, entry)));
            assert!(told.iter().all(|&(index, entry)| entry == map.get(index)));
            told.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
        };
        assert_eq!(told(0..u64::MAX), [3, 63, 64, 1000, LAST]);
        assert_eq!(told(4..1000), [63, 64]);
        assert_eq!(told(64..65), [64]);
        assert!(told(65..1000).is_empty() && told(65..65).is_empty());
        assert_eq!(told(1000..LAST), [1000]);
        assert_eq!(map.next_used(1001..LAST).map(|found| found.0), None);
        assert_eq!(map.get(1000).state(), PageState::Loaded { frame: 1000 });
    }

    #[test]
    fn pages_are_told_a_few_chunks_at_a_time() {
        let mut map = map(1 << 40);
        let pages = [3, 63, 64, 1000, 1001, 5000, 1 << 30, (1 << 40) - 1];
        pages.iter().for_each(|&index| enter(&mut map, index));
        let mut told = std::vec::Vec::new();
        let next = map.for_some(0, 15, |index, _| told.push(index));
        assert_eq!((&told[..], next), (&pages[..5], Some(5000)));
        assert_eq!(map.for_some(5000, 3, |index, _| told.push(index)), Some(1 << 30));
        assert_eq!(map.for_some(5001, 3, |index, _| told.push(index)), Some((1 << 40) - 1));
        assert_eq!(map.for_some(1 << 31, 3, |index, _| told.push(index)), None);
        assert_eq!(told, pages);
        assert_eq!(map.for_some(64, 0, |index, _| assert_eq!(index, 64)), Some(1000));
    }

    #[test]
    fn an_object_of_any_size_has_room_for_its_pages_and_nothing_beyond() {
        for pages in [1, 2, 63, 64, 65, 4096, 4097, 1 << 51] {
            let mut map = map(pages);
            enter(&mut map, 0);
            enter(&mut map, pages - 1);
            assert!(map.get(pages - 1) == loaded((pages - 1) & 0xffff), "{pages}");
            assert_eq!(map.next_used(1..u64::MAX).map(|found| found.0), (pages > 1).then_some(pages - 1));
            for beyond in [map.end, 1 << 60, u64::MAX] {
                assert!(map.get(beyond) == PageEntry::ABSENT);
                map.set(beyond, PageEvent::Move, PageEntry::ABSENT);
            }
        }
    }

    #[test]
    fn pages_that_are_changed_together_are_found_in_any_order_each_in_its_chunk() {
        let mut map = map(1 << 30);
        for index in [1, 2, 63, 64, 4096] {
            enter(&mut map, index);
        }
        let mut seen = [1, 2, 64, 63, 63, 5, 4096, 4097, 1 << 40].map(|index| (index, None));
        map.update_each(
            &mut seen,
            |page| page.0,
            |page, entry| {
                page.1 = Some(entry);
                // A chunk keeps one of its pages, the others lose all they have.
                (entry != PageEntry::ABSENT && page.0 != 2).then_some((PageEvent::Move, PageEntry::ABSENT))
            },
        );
        let seen = seen.map(|(_, entry)| entry.map(|entry: PageEntry| entry.frame()));
        let gone = Some(None);
        assert_eq!(seen[..4], [1, 2, 64, 63].map(|frame| Some(Some(frame))));
        assert_eq!(seen[4..], [gone, gone, Some(Some(4096)), gone, None]);
        assert_eq!((map.len(), map.next_used(0..u64::MAX).map(|found| found.0)), (1, Some(2)));
        map.update(2, |_| Some((PageEvent::Move, PageEntry::ABSENT)));
        assert!(map.is_empty() && map.root.is_none(), "the last page of a chunk goes with it");
    }

    #[test]
    fn a_chunk_without_pages_costs_nothing() {
        for pages in [64, 1 << 30] {
            let mut map = map(pages);
            enter(&mut map, 7);
            enter(&mut map, 8);
            map.set(7, PageEvent::Move, PageEntry::ABSENT);
            assert!(map.root.is_some());
            map.set(8, PageEvent::Move, PageEntry::ABSENT);
            map.set(8, PageEvent::Move, PageEntry::ABSENT);
            assert!(map.root.is_none());
            map.make_room(9).expect("there is memory");
            map.give_up_room(9);
            assert!(map.root.is_none());
        }
    }
}
