//! The frame lists: a record for each frame, the buddy lists of free blocks, lists of pages that reclaim and
//! write-back look through, oldest first, and the quarantine. All of it is guarded by the pool's lock.
//!
//! A block of order *k* is 2^k frames at a multiple of 2^k. Only its first frame's record says that it is
//! free and how large it is.
//!
//! | record | set by | left by |
//! | --- | --- | --- |
//! | `Hole` (no memory, or never usable) | start | |
//! | `Free(k)` (first frame of a free block) | `free` | `allocate`, merging |
//! | `Inside` (another frame of a free block) | `free` | `allocate` |
//! | `Used` (somebody owns it, or a CPU keeps it at hand) | `allocate`, `unlist` | `free`, `list`, `quarantine` |
//! | `Listed` (used by a page of an object, on one of the lists of pages, with an age) | `list` | `unlist`, `free`, `quarantine` |
//! | `Quarantined` (nobody owns it, but CPUs may still see it) | `quarantine` | `free_quarantined` |

mod batches;

pub(crate) use batches::{Candidate, Outcome};

use crate::policy::{Age, Ages};

/// Largest block: 2^18 frames, 1 GiB.
pub(crate) const MAX_ORDER: usize = 18;
const ORDERS: usize = MAX_ORDER + 1;
/// Values of [`Age`].
const AGES: usize = 3;
/// No record: the end of a list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Hole,
    Free(u8),
    Inside,
    Used,
    Listed(PageList, Age),
    Quarantined,
}

/// What is known about one frame. The links belong to the list that the state names.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    previous: u32,
    next: u32,
    state: State,
    /// The object that a listed page belongs to.
    object: u32,
    /// Its number in that object; of a frame in quarantine, until when it stays there.
    page: u64,
}

const _: () = assert!(size_of::<Record>() <= 24);

impl Record {
    pub(crate) const HOLE: Self = Self { previous: NONE, next: NONE, state: State::Hole, object: 0, page: 0 };
}

/// The lists of pages that reclaim and write-back look through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum PageList {
    /// Pages that can be given back because their pagers can load them again.
    Clean,
    /// Pages of objects that hold what their pagers do not.
    Dirty,
    /// Those of them that were stored since they were last looked at: most need only to be marked.
    Stored,
    /// Pages that no pager has: of private memory, and of zero objects. Listed only where there is swap for them.
    Anonymous,
}

impl PageList {
    pub(crate) const COUNT: usize = 4;

    /// Whether a policy gives its pages ages: those of dirty pages are only in the order of their becoming so.
    fn has_ages(self) -> bool {
        matches!(self, Self::Clean | Self::Anonymous)
    }
}

/// A page on one of these lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ListedPage {
    pub(crate) frame: u64,
    pub(crate) object: u32,
    pub(crate) page: u64,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

pub(crate) struct FrameLists {
    records: &'static mut [Record],
    /// The frame that the first record is about.
    base: u64,
    free: [List; ORDERS],
    /// For each kind those of each age.
    pages: [[List; AGES]; PageList::COUNT],
    /// By the time until which frames stay, which only grows.
    quarantine: List,
    pub(crate) free_frames: usize,
    pub(crate) listed: [usize; PageList::COUNT],
    /// The same by age.
    ages: [[usize; AGES]; PageList::COUNT],
    pub(crate) quarantined: usize,
}

impl FrameLists {
    /// Lists in which every frame is a hole.
    pub(crate) fn new(records: &'static mut [Record], base: u64) -> Self {
        Self {
            records,
            base,
            free: [List::EMPTY; ORDERS],
            pages: [[List::EMPTY; AGES]; PageList::COUNT],
            quarantine: List::EMPTY,
            free_frames: 0,
            listed: [0; PageList::COUNT],
            ages: [[0; AGES]; PageList::COUNT],
            quarantined: 0,
        }
    }

    /// The numbers of the frames that have records.
    pub(crate) fn numbers(&self) -> core::ops::Range<u64> {
        self.base..self.base + self.records.len() as u64
    }

    /// Makes frames usable that were holes.
    pub(crate) fn add(&mut self, first: u64, frames: u64) {
        for frame in first..first + frames {
            let slot = self.slot(frame);
            self.records[slot as usize].state = State::Used;
        }
        self.free(first, frames);
    }

    /// Takes a block of 2^order frames out of the smallest free block that holds one.
    ///
    /// # Panics
    /// When a frame of it is in quarantine or owned: the lists are broken.
    pub(crate) fn allocate(&mut self, order: usize) -> Option<u64> {
        let mut found = (order..ORDERS).find(|&order| self.free[order].first != NONE)?;
        let slot = self.free[found].first;
        self.unlink_free(slot, found);
        while found > order {
            found -= 1;
            self.link_free(slot + (1 << found), found);
        }
        for inside in slot..slot + (1 << order) {
            let state = core::mem::replace(&mut self.records[inside as usize].state, State::Used);
            assert_eq!(state, State::Inside, "a frame is handed out that is not free");
        }
        self.free_frames -= 1 << order;
        Some(self.base + u64::from(slot))
    }

    /// Gives back frames in any number, as the largest blocks that they make up.
    ///
    /// # Panics
    /// In debug builds, when one of them is free already or was never usable.
    pub(crate) fn free(&mut self, first: u64, frames: u64) {
        // A frame of another pool has no record there.
        let slot = first.wrapping_sub(self.base) as usize;
        for (number, frame) in (first..first + frames).enumerate() {
            if matches!(self.records[slot + number].state, State::Listed(..)) {
                self.unlist(frame);
            }
            let state = &mut self.records[slot + number].state;
            debug_assert_eq!(*state, State::Used, "frame {frame:#x} is freed but nobody owned it");
            *state = State::Inside;
        }
        let (mut frame, end) = (first, first + frames);
        while frame < end {
            let fits = (end - frame).ilog2().min(frame.trailing_zeros()).min(MAX_ORDER as u32);
            self.free_block(frame, fits as usize);
            frame += 1 << fits;
        }
        self.free_frames += frames as usize;
    }

    /// Puts one block on its list, merged with its free buddies.
    fn free_block(&mut self, mut frame: u64, mut order: usize) {
        while order < MAX_ORDER {
            let buddy = frame ^ (1 << order);
            let Some(slot) = self.find(buddy) else { break };
            if self.records[slot as usize].state != State::Free(order as u8) {
                break;
            }
            self.unlink_free(slot, order);
            frame = frame.min(buddy);
            order += 1;
        }
        let slot = self.slot(frame);
        self.link_free(slot, order);
    }

    /// Notes that a frame holds a page of a list, the youngest of all, and of no other list.
    pub(crate) fn list(&mut self, on: PageList, page: ListedPage) {
        self.unlist(page.frame);
        let slot = self.slot(page.frame);
        let record = &mut self.records[slot as usize];
        debug_assert_eq!(record.state, State::Used);
        (record.object, record.page) = (page.object, page.page);
        self.listed[on as usize] += 1;
        self.put(on, Age::New, slot);
    }

    /// Notes that a frame no longer holds a listed page; nothing happens when it does not.
    #[inline]
    pub(crate) fn unlist(&mut self, frame: u64) {
        let slot = self.slot(frame);
        if let State::Listed(on, age) = self.records[slot as usize].state {
            self.pick(on, age, slot);
            self.records[slot as usize].state = State::Used;
            self.listed[on as usize] -= 1;
        }
    }

    /// Makes a listed page the first that is looked at of those of an age, or of all where its list knows no ages; nothing
    /// happens when it is not listed.
    pub(crate) fn make_first(&mut self, frame: u64, of: impl FnOnce(Ages) -> Age) {
        let slot = self.slot(frame);
        if let State::Listed(on, before) = self.records[slot as usize].state {
            self.pick(on, before, slot);
            let age = if on.has_ages() { of(self.ages(on)) } else { Age::New };
            self.records[slot as usize].state = State::Listed(on, age);
            let mut list = self.pages[on as usize][age as usize];
            self.push_front(&mut list, slot);
            self.pages[on as usize][age as usize] = list;
            self.ages[on as usize][age as usize] += 1;
        }
    }

    /// How many pages are dirty, those that were stored among them.
    pub(crate) fn dirty(&self) -> usize {
        self.listed[PageList::Dirty as usize] + self.listed[PageList::Stored as usize]
    }

    /// How many pages there are of a list, by age.
    pub(crate) fn ages(&self, on: PageList) -> Ages {
        let [new, old, young] = self.ages[on as usize];
        Ages { new, old, young }
    }

    /// Puts a page behind those of its age.
    #[inline]
    fn put(&mut self, on: PageList, age: Age, slot: u32) {
        self.records[slot as usize].state = State::Listed(on, age);
        push(self.records, &mut self.pages[on as usize][age as usize], slot);
        self.ages[on as usize][age as usize] += 1;
    }

    /// Takes a page from among those of its age.
    #[inline]
    fn pick(&mut self, on: PageList, age: Age, slot: u32) {
        remove(self.records, &mut self.pages[on as usize][age as usize], slot);
        self.ages[on as usize][age as usize] -= 1;
    }

    /// Puts frames that somebody owned where nobody gets them until `free_quarantined` is told of a time not
    /// before `until`. Times never go back.
    ///
    /// # Panics
    /// When nobody owned one of them.
    pub(crate) fn quarantine(&mut self, frames: &[u64], until: u64) {
        let mut list = self.quarantine;
        for &frame in frames {
            let slot = self.slot(frame);
            if self.records[slot as usize].state != State::Used {
                self.unlist(frame);
            }
            let record = &mut self.records[slot as usize];
            assert_eq!(record.state, State::Used, "frame {frame:#x} goes but nobody owned it");
            (record.state, record.page) = (State::Quarantined, until);
            push(self.records, &mut list, slot);
        }
        self.quarantine = list;
        self.quarantined += frames.len();
    }

    fn link_free(&mut self, slot: u32, order: usize) {
        self.records[slot as usize].state = State::Free(order as u8);
        let mut list = self.free[order];
        self.push_front(&mut list, slot);
        self.free[order] = list;
    }

    fn unlink_free(&mut self, slot: u32, order: usize) {
        self.records[slot as usize].state = State::Inside;
        let mut list = self.free[order];
        remove(self.records, &mut list, slot);
        self.free[order] = list;
    }

    /// The frame freed last is used first: it may still be in the cache.
    fn push_front(&mut self, list: &mut List, slot: u32) {
        let first = core::mem::replace(&mut list.first, slot);
        let record = &mut self.records[slot as usize];
        (record.previous, record.next) = (NONE, first);
        match first {
            NONE => list.last = slot,
            first => self.records[first as usize].previous = slot,
        }
    }

    fn slot(&self, frame: u64) -> u32 {
        self.find(frame).expect("the frame belongs to this pool")
    }

    fn find(&self, frame: u64) -> Option<u32> {
        let slot = frame.checked_sub(self.base)?;
        (slot < self.records.len() as u64).then_some(slot as u32)
    }
}

/// Puts a record last.
#[inline]
fn push(records: &mut [Record], list: &mut List, slot: u32) {
    let last = core::mem::replace(&mut list.last, slot);
    let record = &mut records[slot as usize];
    (record.previous, record.next) = (last, NONE);
    match last {
        NONE => list.first = slot,
        last => records[last as usize].next = slot,
    }
}

/// Takes a record out, wherever it is.
#[inline]
fn remove(records: &mut [Record], list: &mut List, slot: u32) {
    let Record { previous, next, .. } = records[slot as usize];
    close(records, list, previous, next);
}

/// Makes two records neighbours that others stood between.
#[inline]
fn close(records: &mut [Record], list: &mut List, previous: u32, next: u32) {
    match previous {
        NONE => list.first = next,
        previous => records[previous as usize].next = next,
    }
    match next {
        NONE => list.last = previous,
        next => records[next as usize].previous = previous,
    }
}

#[cfg(test)]
mod tests;
