//! The mappings of an address space, by address.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::ops::Range;

use crate::address::PAGE_BYTES;
use crate::backing::{Backing, Rooms};
use crate::frame::{FramePool, Moment};
use crate::mapping::{Going, Mapping};
use crate::ordered_map::{OrderedMap, Room};
use crate::table::Table;
use crate::{MapError, OutOfMemory, Protection, VirtAddr};

/// What the address space's lock guards.
pub(super) struct Mappings {
    range: Range<VirtAddr>,
    by_start: OrderedMap<VirtAddr, Mapping>,
    /// Mappings whose pages are cleared, and that go when all CPUs were waited for, in order of time. There is room
    /// for all mappings.
    cleared: VecDeque<Cleared>,
    /// How many are taking rights out of the tables at this moment. A thread that is ended in the middle stays
    /// among them, and then every protection waits.
    taking: usize,
    /// When rights were last taken. Until that is over, a CPU may do more than the mappings say.
    taken: Option<Moment>,
    /// Where the search for a gap starts: after the one found last, or at the lowest made since.
    hint: VirtAddr,
    /// Pages that all mappings span.
    pub(super) pages: PageCounts,
}

/// Pages that mappings span, by what they show.
#[derive(Clone, Copy, Default)]
pub(super) struct PageCounts {
    pub(super) shared: u64,
    pub(super) private: u64,
    pub(super) manual: u64,
}

impl PageCounts {
    fn of(&mut self, shows: &Backing) -> &mut u64 {
        match shows {
            Backing::Shared(_) => &mut self.shared,
            Backing::Private(object, _) if object.is_shared() => &mut self.shared,
            Backing::Private(..) => &mut self.private,
            Backing::Manual(_) => &mut self.manual,
        }
    }
}

/// A mapping that is not entered yet, with all the memory that this takes.
pub(super) struct Prepared {
    room: Room<VirtAddr, Mapping>,
    rooms: Rooms,
    mapping: Mapping,
}

impl Prepared {
    /// Enters the mapping where nothing is mapped.
    ///
    /// # Errors
    /// `BeyondObject`; nothing is entered then.
    pub(super) fn enter(self, mappings: &mut Mappings, table: &Arc<Table>) -> Result<(), MapError> {
        self.mapping.shows.note(self.rooms, &self.mapping, table)?;
        mappings.insert(self.room, self.mapping);
        Ok(())
    }
}

/// A mapping whose pages are cleared.
struct Cleared {
    at: Moment,
    start: VirtAddr,
    id: u64,
}

impl Mappings {
    pub(super) fn new(range: Range<VirtAddr>) -> Self {
        let hint = range.start;
        Self {
            range,
            by_start: OrderedMap::default(),
            cleared: VecDeque::new(),
            taking: 0,
            taken: None,
            hint,
            pages: PageCounts::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// The mapping that shows something at `address`, one that is being unmapped included.
    #[inline]
    pub(super) fn at(&self, address: VirtAddr) -> Option<&Mapping> {
        let (_, mapping) = self.by_start.at_or_before(&address)?;
        (address < mapping.end()).then_some(mapping)
    }

    /// The mappings that reach into `range`, which is not empty, by start. Callers split at the ends first: what still
    /// reaches out of it then is being unmapped.
    pub(super) fn within(&self, range: &Range<VirtAddr>) -> impl Iterator<Item = &Mapping> {
        let end = range.end;
        let first = self.at(range.start).or_else(|| self.next(range.start));
        core::iter::successors(first, |mapping| self.next(mapping.end()))
            .take_while(move |next| next.start < end)
    }

    /// Changes each of them.
    pub(super) fn change_within(&mut self, range: &Range<VirtAddr>, mut change: impl FnMut(&mut Mapping)) {
        let mut next = self.within(range).next().map(|mapping| mapping.start);
        while let Some(mapping) = next.and_then(|start| self.by_start.get_mut(&start)) {
            change(mapping);
            let end = mapping.end();
            next = self.next(end).map(|next| next.start).filter(|start| *start < range.end);
        }
    }

    /// All mappings, by start.
    pub(super) fn all(&self) -> impl Iterator<Item = &Mapping> {
        core::iter::successors(self.next(self.range.start), |mapping| self.next(mapping.end()))
    }

    /// The first mapping at or after `address`.
    fn next(&self, address: VirtAddr) -> Option<&Mapping> {
        self.by_start.at_or_after(&address).map(|(_, mapping)| mapping)
    }

    /// Memory for one mapping more.
    pub(super) fn room(&mut self) -> Result<Room<VirtAddr, Mapping>, OutOfMemory> {
        self.room_for(1)
    }

    /// Memory for one mapping, which will be one of so many more.
    fn room_for(&mut self, more: usize) -> Result<Room<VirtAddr, Mapping>, OutOfMemory> {
        let missing = self.by_start.len() + more - self.cleared.len();
        self.cleared.try_reserve(missing).map_err(|_| OutOfMemory)?;
        Room::try_new()
    }

    /// Takes the memory for a mapping, which will be one of so many more. Nothing is entered yet.
    pub(super) fn prepare(&mut self, mapping: Mapping, more: usize) -> Result<Prepared, OutOfMemory> {
        Ok(Prepared { room: self.room_for(more)?, rooms: mapping.shows.rooms()?, mapping })
    }

    pub(super) fn insert(&mut self, room: Room<VirtAddr, Mapping>, mapping: Mapping) {
        *self.pages.of(&mapping.shows) += mapping.pages;
        self.by_start.insert(room, mapping.start, mapping);
    }

    /// Notes that the pages of a mapping are cleared, and says since when, which another may have noted. `None`
    /// if the mapping is gone, because all CPUs have forgotten it already.
    pub(super) fn note_cleared(&mut self, frames: &FramePool, start: VirtAddr, id: u64) -> Option<Moment> {
        let mapping = self.by_start.get_mut(&start).filter(|mapping| mapping.id == id)?;
        if let Some(Going::Cleared(at)) = mapping.going {
            return Some(at);
        }
        // Taken under this lock, so that later entries are not over before earlier ones.
        let at = frames.moment();
        mapping.going = Some(Going::Cleared(at));
        self.cleared.push_back(Cleared { at, start, id });
        Some(at)
    }

    /// Changes what the mappings in a range allow, which all lie within it. True if the tables and the CPUs may
    /// allow more than that now: then the caller takes it, and calls `note_taken`.
    pub(super) fn protect(
        &mut self,
        frames: &FramePool,
        range: &Range<VirtAddr>,
        protection: Protection,
    ) -> bool {
        let mut less = self.taking > 0 || self.taken.is_some_and(|taken| !frames.is_over(taken));
        self.change_within(range, |mapping| {
            less |= !protection.includes(mapping.protection);
            mapping.set_protection(protection);
        });
        self.taking += usize::from(less);
        less
    }

    /// Notes that the tables allow no more than the mappings.
    pub(super) fn note_taken(&mut self, frames: &FramePool) {
        self.taking -= 1;
        // Not before others who have noted it: moments only grow.
        self.taken = Some(frames.moment());
    }

    /// Takes out a mapping whose pages all CPUs have forgotten.
    pub(super) fn take_forgotten(&mut self, frames: &FramePool) -> Option<Mapping> {
        let &Cleared { at, start, id } = self.cleared.front()?;
        if !frames.is_over(at) {
            return None;
        }
        self.cleared.pop_front();
        self.remove(start, id)
    }

    /// Takes out the mapping with this start and number, if it is still there.
    fn remove(&mut self, start: VirtAddr, id: u64) -> Option<Mapping> {
        if self.by_start.get(&start)?.id != id {
            return None;
        }
        let mapping = self.by_start.remove(&start)?;
        *self.pages.of(&mapping.shows) -= mapping.pages;
        let gap = self.by_start.at_or_before(&start).map_or(self.range.start, |(_, before)| before.end());
        self.hint = self.hint.min(gap);
        Some(mapping)
    }

    /// Takes out any mapping, for the end of the address space.
    pub(super) fn pop(&mut self) -> Option<Mapping> {
        self.by_start.pop_first().map(|(_, mapping)| mapping)
    }

    /// Makes a mapping that goes across `address` end there, and another one start there. Both show what
    /// they showed. `id` is for the second. A mapping that is being unmapped stays whole. Without memory, each does.
    pub(super) fn split(&mut self, address: VirtAddr, id: u64) -> Result<(), OutOfMemory> {
        let across = |mapping: &&Mapping| mapping.start < address && mapping.going.is_none();
        let Some(mapping) = self.at(address).filter(across) else { return Ok(()) };
        let (start, mut second) = (mapping.start, mapping.clone());
        let (room, rooms) = (self.room()?, [second.shows.rooms()?, second.shows.rooms()?]);
        let before = (address.as_u64() - start.as_u64()) / PAGE_BYTES;
        second.shows.split(rooms, &second, before, id);
        second.id = id;
        // What is below it is the stack's other part, or was.
        second.grows_to = None;
        second.start = address;
        second.first += before;
        second.pages -= before;
        if let Some(mapping) = self.by_start.get_mut(&start) {
            mapping.pages = before;
        }
        self.by_start.insert(room, address, second);
        Ok(())
    }

    /// The first mapping after `address`, where nothing is mapped.
    pub(super) fn above(&self, address: VirtAddr) -> Option<&Mapping> {
        self.next(address)
    }

    /// The end of the last mapping before `address`, where nothing is mapped.
    pub(super) fn end_below(&self, address: VirtAddr) -> Option<VirtAddr> {
        self.by_start.at_or_before(&address).map(|(_, below)| below.end())
    }

    /// Makes a stack begin at `page`, below its start. Nothing is mapped between.
    pub(super) fn grow_down(
        &mut self,
        start: VirtAddr,
        page: VirtAddr,
        table: &Arc<Table>,
    ) -> Result<(), OutOfMemory> {
        let Some(old) = self.by_start.get(&start).cloned() else { return Ok(()) };
        let more = distance(page, start);
        let grown = Mapping { start: page, pages: old.pages + more, first: old.first - more, ..old.clone() };
        let prepared = self.prepare(grown, 1)?;
        // The number stays; what names the mapping in lists is its first page as well.
        if prepared.mapping.shows.note(prepared.rooms, &prepared.mapping, table).is_ok() {
            self.by_start.remove(&start);
            *self.pages.of(&old.shows) += more;
            self.by_start.insert(prepared.room, page, prepared.mapping);
            old.shows.forget_covered(&old);
        }
        Ok(())
    }

    /// Checks a range that a caller named.
    pub(super) fn check(&self, range: &Range<VirtAddr>) -> Result<(), MapError> {
        if !range.start.is_page_aligned() || !range.end.is_page_aligned() {
            return Err(MapError::Unaligned);
        }
        if range.start > range.end {
            return Err(MapError::WrapsAround);
        }
        if range.is_empty() {
            return Err(MapError::Empty);
        }
        if range.start < self.range.start || range.end > self.range.end {
            return Err(MapError::OutOfRange);
        }
        Ok(())
    }

    /// Checks a range that a caller named, all of which is to be mapped.
    pub(super) fn check_mapped(&self, range: &Range<VirtAddr>) -> Result<(), MapError> {
        self.check(range)?;
        let mut at = range.start;
        while at < range.end {
            let mapping = self.at(at).filter(|mapping| mapping.going.is_none());
            at = mapping.ok_or(MapError::NotMapped)?.end();
        }
        Ok(())
    }

    /// The mapping that the last page of a range belongs to.
    pub(super) fn last_in(&self, range: &Range<VirtAddr>) -> Option<&Mapping> {
        let pages = distance(range.start, range.end);
        self.at(range.start.page_add(pages.checked_sub(1)?))
    }

    /// Checks that nothing is mapped in `pages` pages at `start`.
    pub(super) fn check_free(&self, start: VirtAddr, pages: u64) -> Result<(), MapError> {
        if !start.is_page_aligned() {
            return Err(MapError::Unaligned);
        }
        let bytes = pages.checked_mul(PAGE_BYTES);
        if bytes.is_none_or(|bytes| start.as_u64().checked_add(bytes).is_none()) {
            return Err(MapError::WrapsAround);
        }
        if start < self.range.start || start > self.range.end || pages > distance(start, self.range.end) {
            return Err(MapError::OutOfRange);
        }
        let end = start.page_add(pages);
        if self.at(start).is_some() || self.next(start).is_some_and(|next| next.start < end) {
            return Err(MapError::Overlap);
        }
        Ok(())
    }

    /// Finds room for `pages` pages with an unmapped page on either side, and beside what stacks may grow to: the
    /// lowest from the hint on, else the lowest of all.
    pub(super) fn find(&mut self, pages: u64) -> Result<VirtAddr, MapError> {
        let wanted = pages.checked_add(2).ok_or(MapError::NoSpace)?;
        let start = match self.find_from(self.hint, wanted) {
            None if self.hint > self.range.start => self.find_from(self.range.start, wanted),
            found => found,
        };
        let start = start.ok_or(MapError::NoSpace)?.page_add(1);
        self.hint = start.page_add(pages);
        Ok(start)
    }

    /// The first gap of `wanted` pages at or after `from`.
    fn find_from(&self, from: VirtAddr, wanted: u64) -> Option<VirtAddr> {
        let mut gap = self.at(from).map_or(from, Mapping::end);
        loop {
            let next = self.next(gap);
            let gap_end = next.map_or(self.range.end, Mapping::lowest);
            if gap <= gap_end && distance(gap, gap_end) >= wanted {
                return Some(gap);
            }
            gap = next?.end();
        }
    }
}

/// Pages from `start` to `end`.
pub(super) fn distance(start: VirtAddr, end: VirtAddr) -> u64 {
    (end.as_u64() - start.as_u64()) / PAGE_BYTES
}
