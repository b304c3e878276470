//! A hierarchical timer wheel with intrusive entries: O(1) insert and cancel, nothing is allocated.
//!
//! Time is counted in ticks of 1,024 ns. Level `l` has 256 slots of 256^l ticks each; an entry stands on the level
//! of the highest eight bits in which its tick differs from the wheel's, so all entries of a level are due before
//! any of the level above. Eight levels cover every 64-bit deadline. Entries remember their deadline to the
//! nanosecond, and a slot that is reached fires only those that are due: never early, and not a tick late either.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | insert, cancel, fire | the lock of the CPU's wheel; an entry remembers which CPU's |
//! | fire, waker | wakers are collected under the lock and woken outside, a batch at a time |
//! | fire, cancel of the same entry | firing takes the entry out first; the cancel then finds it in no list |
//! | more than a batch is due, anything | the rest of a slot lies in a list of its own, which is fired first and cancelled from as any other |
//! | timer interrupt, anything | the interrupt sets a flag of the CPU only |
#![allow(unsafe_code, reason = "entries are part of futures, linked by pointers")]

use core::cell::Cell;
use core::marker::PhantomPinned;
use core::task::Waker;

const LEVELS: usize = 8;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
const TICK_SHIFT: u32 = 10;
/// How many wakers are woken between two looks under the lock.
pub(crate) const BATCH: usize = 16;
/// How many entries of a slot are looked at to find the next deadline; beyond, the slot's start is used.
const LOOK: usize = 16;

/// A timer. All fields belong to the lock of the wheel it is in.
pub(crate) struct Entry {
    /// Neighbours in the ring of its list.
    previous: Cell<*const Entry>,
    next: Cell<*const Entry>,
    deadline: Cell<u64>,
    waker: Cell<Option<Waker>>,
    /// The list that it is in.
    place: Cell<u16>,
    _pinned: PhantomPinned,
}

// SAFETY: every access is under a wheel's lock, but for the owner's while the entry is in no wheel.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    pub(crate) const fn new(deadline: u64) -> Self {
        Entry {
            previous: Cell::new(core::ptr::null()),
            next: Cell::new(core::ptr::null()),
            deadline: Cell::new(deadline),
            waker: Cell::new(None),
            place: Cell::new(NOWHERE),
            _pinned: PhantomPinned,
        }
    }

    /// When it is due. For its owner, who alone sets it, while it is in no wheel.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.get()
    }

    /// See [`deadline`](Entry::deadline).
    pub(crate) fn set_deadline(&self, deadline: u64) {
        self.deadline.set(deadline);
    }

    /// Who is woken when it is due. For its owner, while it is in no wheel and has no waker.
    #[inline]
    pub(crate) fn set_waker(&self, waker: Waker) {
        let old = self.waker.replace(Some(waker));
        debug_assert!(old.is_none());
        core::mem::forget(old);
    }

    /// Whether it is in the wheel. Under the wheel's lock.
    pub(crate) fn is_linked(&self) -> bool {
        self.place.get() != NOWHERE
    }

    /// Changes the waker of an entry, giving the old one back. Under the wheel's lock.
    pub(crate) fn replace_waker(&self, waker: Waker) -> Option<Waker> {
        self.waker.replace(Some(waker))
    }
}

/// The first entry of a ring of entries, or null.
type Ring = *const Entry;

/// One CPU's timers.
pub(crate) struct Wheel {
    /// Slot by slot and level by level; the last one is of those that are due, but did not fit into a batch.
    lists: [Ring; DUE + 1],
    /// One bit for each slot that is not empty.
    occupied: [u64; DUE / WORD],
    /// The tick up to which everything was fired.
    tick: u64,
    /// What the platform's alarm is set to.
    alarm: u64,
}

// SAFETY: the rings are pointers; whoever inserts an entry promises that it may be reached from where the wheel is.
unsafe impl Send for Wheel {}

/// The list of those that are due.
const DUE: usize = LEVELS * SLOTS;
/// Slots in a word of `occupied`.
const WORD: usize = u64::BITS as usize;
/// The place of an entry that is in no wheel.
const NOWHERE: u16 = u16::MAX;

#[inline]
fn tick_of(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Wheel { lists: [core::ptr::null(); DUE + 1], occupied: [0; DUE / WORD], tick: 0, alarm: u64::MAX }
    }

    /// Whether there are no timers.
    #[cfg(not(any(target_os = "none", loom)))]
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == [0; DUE / WORD] && self.lists[DUE].is_null()
    }

    /// Puts an entry in. True if the alarm must be set to its deadline, which counts as done.
    ///
    /// # Safety
    /// The entry is in no wheel, has its waker, does not move, and is removed before it goes.
    #[inline]
    pub(crate) unsafe fn insert(&mut self, entry: *const Entry) -> bool {
        // SAFETY: the caller's entry, in no wheel, so the caller's alone.
        let deadline = unsafe { (*entry).deadline() };
        // SAFETY: as above.
        unsafe { self.link(entry, deadline) };
        let earlier = deadline < self.alarm;
        if earlier {
            self.alarm = deadline;
        }
        earlier
    }

    /// # Safety
    /// As for `insert`, and the wheel's lock is held.
    #[inline]
    unsafe fn link(&mut self, entry: *const Entry, deadline: u64) {
        let tick = tick_of(deadline).max(self.tick);
        // The level's bits begin here.
        let shift = ((tick ^ self.tick) | 1).ilog2() / SLOT_BITS * SLOT_BITS;
        let place = shift as usize * (SLOTS / SLOT_BITS as usize) + (tick >> shift) as usize % SLOTS;
        self.occupied[place / WORD] |= 1 << (place % WORD);
        // SAFETY: the caller's entry.
        unsafe { self.push_back(place, entry) };
    }

    /// # Safety
    /// The entry is alive and in no list.
    #[inline]
    unsafe fn push_back(&mut self, place: usize, entry: *const Entry) {
        let first = &mut self.lists[place];
        // SAFETY: the caller's entry; those in the list are alive, too.
        unsafe {
            (*entry).place.set(place as u16);
            if first.is_null() {
                (*entry).previous.set(entry);
                (*entry).next.set(entry);
                *first = entry;
            } else {
                let last = (**first).previous.replace(entry);
                (*last).next.set(entry);
                (*entry).previous.set(last);
                (*entry).next.set(*first);
            }
        }
    }

    /// Takes an entry out, wherever it stands. Its waker is given back to be dropped outside the lock.
    ///
    /// # Safety
    /// The entry is in this wheel or in none.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, entry: *const Entry) -> Option<Waker> {
        // SAFETY: the caller's entry; the lock is held.
        unsafe {
            if (*entry).is_linked() {
                self.unlink(entry);
            }
            (*entry).waker.take()
        }
    }

    /// # Safety
    /// The entry is in this wheel.
    #[inline]
    unsafe fn unlink(&mut self, entry: *const Entry) {
        // SAFETY: the caller's entry and its neighbours are in the list, so alive.
        unsafe {
            let place = usize::from((*entry).place.replace(NOWHERE));
            let (previous, next) = ((*entry).previous.get(), (*entry).next.get());
            if core::ptr::eq(next, entry) {
                self.lists[place] = core::ptr::null();
                if place != DUE {
                    self.occupied[place / WORD] &= !(1 << (place % WORD));
                }
                return;
            }
            (*previous).next.set(next);
            (*next).previous.set(previous);
            if core::ptr::eq(self.lists[place], entry) {
                self.lists[place] = next;
            }
        }
    }

    /// The first slot that is not empty: its place, and the tick at which it begins.
    #[inline]
    fn first(&self) -> Option<(usize, u64)> {
        let word = self.occupied.iter().position(|word| *word != 0)?;
        let place = word * WORD + self.occupied[word].trailing_zeros() as usize;
        // Slots of this level lie after the wheel's own position on it, in the same turn.
        let shift = (place / SLOTS) as u32 * SLOT_BITS;
        let above = u64::MAX << (shift + SLOT_BITS);
        Some((place, self.tick & above | ((place % SLOTS) as u64) << shift))
    }

    /// Moves time on to `now` as far as `wakers` has room; true if there is more to fire.
    pub(crate) fn advance(&mut self, now: u64, wakers: &mut [Option<Waker>; BATCH]) -> bool {
        let mut fired = 0;
        while !self.lists[DUE].is_null() {
            if fired == BATCH {
                return true;
            }
            let entry = self.lists[DUE];
            // SAFETY: entries are alive while they are in the wheel, whose lock is held.
            unsafe {
                self.unlink(entry);
                wakers[fired] = (*entry).waker.take();
            }
            fired += 1;
        }
        let target = tick_of(now);
        while let Some((place, start)) = self.first() {
            if start > target {
                break;
            }
            if fired == BATCH {
                return true;
            }
            self.tick = self.tick.max(start);
            self.occupied[place / WORD] &= !(1 << (place % WORD));
            let first = core::mem::replace(&mut self.lists[place], core::ptr::null());
            // SAFETY: the slot was not empty; entries are alive while they are in the wheel, whose lock is held.
            let last = unsafe { (*first).previous.get() };
            let mut kept = false;
            let mut entry = first;
            loop {
                // SAFETY: as above; the whole ring was taken out of its list, and each entry is read before it is
                // put into another.
                let next = unsafe { (*entry).next.get() };
                // SAFETY: as above.
                unsafe {
                    let deadline = (*entry).deadline.get();
                    if deadline > now {
                        kept |= place < SLOTS;
                        self.link(entry, deadline);
                    } else if fired < BATCH {
                        (*entry).place.set(NOWHERE);
                        wakers[fired] = (*entry).waker.take();
                        fired += 1;
                    } else {
                        self.push_back(DUE, entry);
                    }
                }
                if core::ptr::eq(entry, last) {
                    break;
                }
                entry = next;
            }
            if kept {
                // What is left of this tick's slot is due later in the same tick.
                break;
            }
        }
        self.tick = self.tick.max(target);
        !self.lists[DUE].is_null()
    }

    /// Says to what the alarm must be set now, if it must be changed.
    pub(crate) fn next_alarm(&mut self) -> Option<u64> {
        let next = self.next_deadline();
        (next != self.alarm).then(|| {
            self.alarm = next;
            next
        })
    }

    /// The alarm fired: whatever it was set to, it is not set any more.
    pub(crate) fn alarm_is_over(&mut self) {
        self.alarm = u64::MAX;
    }

    fn next_deadline(&self) -> u64 {
        let Some((place, start)) = self.first() else { return u64::MAX };
        let first = self.lists[place];
        let mut earliest = u64::MAX;
        let mut entry = first;
        for _ in 0..LOOK {
            // SAFETY: entries are alive while they are in the wheel, whose lock is held.
            unsafe {
                earliest = earliest.min((*entry).deadline.get());
                entry = (*entry).next.get();
            }
            if core::ptr::eq(entry, first) {
                return earliest;
            }
        }
        start << TICK_SHIFT
    }
}
