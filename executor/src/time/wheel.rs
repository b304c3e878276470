//! A hierarchical timer wheel with intrusive entries: O(1) insert and cancel, nothing is allocated.
//!
//! Time is counted in ticks of 1,024 ns. Level `l` has 64 slots of 64^l ticks each; an entry stands on the level
//! of the highest six bits in which its tick differs from the wheel's, so all entries of a level are due before
//! any of the level above. Nine levels cover every 64-bit deadline. Entries remember their deadline to the
//! nanosecond, and a slot that is reached fires only those that are due: never early, and not a tick late either.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | insert, cancel, fire | the lock of the CPU's wheel; an entry remembers which CPU's |
//! | fire, waker | wakers are collected under the lock and woken outside, a batch at a time |
//! | fire, cancel of the same entry | firing takes the entry out first; the cancel then finds it in no list |
//! | timer interrupt, anything | the interrupt sets a flag of the CPU only |
#![allow(unsafe_code, reason = "entries are part of futures, linked by pointers")]

use core::cell::Cell;
use core::marker::PhantomPinned;
use core::task::Waker;

use crate::list::{Linked, Links, List};

const LEVELS: usize = 9;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const TICK_SHIFT: u32 = 10;
/// How many wakers are woken between two looks under the lock.
pub(crate) const BATCH: usize = 16;
/// How many entries of a slot are looked at to find the next deadline; beyond, the slot's start is used.
const LOOK: usize = 16;

/// A timer. All fields belong to the lock of the wheel it is in.
pub(crate) struct Entry {
    links: Links<Entry>,
    deadline: Cell<u64>,
    waker: Cell<Option<Waker>>,
    /// Level and slot while linked.
    place: Cell<Option<(u8, u8)>>,
    _pinned: PhantomPinned,
}

// SAFETY: every access is under a wheel's lock, but for the owner's while the entry is in no wheel.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

// SAFETY: the links are a field.
unsafe impl Linked for Entry {
    fn links(&self) -> &Links<Entry> {
        &self.links
    }
}

impl Entry {
    pub(crate) const fn new() -> Self {
        Entry {
            links: Links::new(),
            deadline: Cell::new(0),
            waker: Cell::new(None),
            place: Cell::new(None),
            _pinned: PhantomPinned,
        }
    }

    /// Whether it is in the wheel. Under the wheel's lock.
    pub(crate) fn is_linked(&self) -> bool {
        self.place.get().is_some()
    }

    /// Changes the waker of an entry, giving the old one back. Under the wheel's lock.
    pub(crate) fn replace_waker(&self, waker: Waker) -> Option<Waker> {
        self.waker.replace(Some(waker))
    }
}

/// One CPU's timers.
pub(crate) struct Wheel {
    slots: [[List<Entry>; SLOTS]; LEVELS],
    /// One bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// The tick up to which everything was fired.
    tick: u64,
    /// What the platform's alarm is set to.
    alarm: u64,
}

fn tick_of(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Wheel {
            slots: [const { [const { List::new() }; SLOTS] }; LEVELS],
            occupied: [0; LEVELS],
            tick: 0,
            alarm: u64::MAX,
        }
    }

    /// Whether there are no timers.
    #[cfg(not(any(target_os = "none", loom)))]
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == [0; LEVELS]
    }

    fn place(&self, deadline: u64) -> (u8, u8) {
        let tick = tick_of(deadline).max(self.tick);
        let level = (63 - ((tick ^ self.tick) | 1).leading_zeros()) / SLOT_BITS;
        (level as u8, (tick >> (level * SLOT_BITS)) as u8 & (SLOTS as u8 - 1))
    }

    /// Puts an entry in. True if the alarm must be set to `deadline`, which counts as done.
    ///
    /// # Safety
    /// The entry is in no wheel, does not move, and is removed before it goes.
    pub(crate) unsafe fn insert(&mut self, entry: *const Entry, deadline: u64, waker: Waker) -> bool {
        // SAFETY: the caller's entry, in no wheel, so the caller's alone.
        unsafe {
            (*entry).deadline.set(deadline);
            (*entry).waker.set(Some(waker));
            self.link(entry, deadline);
        }
        let earlier = deadline < self.alarm;
        if earlier {
            self.alarm = deadline;
        }
        earlier
    }

    /// # Safety
    /// As for `insert`, and the wheel's lock is held.
    unsafe fn link(&mut self, entry: *const Entry, deadline: u64) {
        let (level, slot) = self.place(deadline);
        // SAFETY: the caller's entry.
        unsafe {
            (*entry).place.set(Some((level, slot)));
            self.slots[usize::from(level)][usize::from(slot)].push_back(entry);
        }
        self.occupied[usize::from(level)] |= 1 << slot;
    }

    /// Takes an entry out, wherever it stands. Its waker is given back to be dropped outside the lock.
    ///
    /// # Safety
    /// The entry is in this wheel or in none.
    pub(crate) unsafe fn remove(&mut self, entry: *const Entry) -> Option<Waker> {
        // SAFETY: the caller's entry; the lock is held.
        unsafe {
            if let Some((level, slot)) = (*entry).place.take() {
                let list = &mut self.slots[usize::from(level)][usize::from(slot)];
                list.remove(entry);
                if list.is_empty() {
                    self.occupied[usize::from(level)] &= !(1 << slot);
                }
            }
            (*entry).waker.take()
        }
    }

    /// The first slot that is not empty: its level, number and the tick at which it begins.
    fn first(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            // Slots of this level lie after the wheel's own position on it, in the same turn.
            let shift = level as u32 * SLOT_BITS;
            let slot = self.occupied[level].trailing_zeros();
            let above = u64::MAX.checked_shl(shift + SLOT_BITS).unwrap_or(0);
            return Some((level, slot as usize, self.tick & above | u64::from(slot) << shift));
        }
        None
    }

    /// Moves time on to `now` as far as `wakers` has room; true if there is more to fire.
    pub(crate) fn advance(&mut self, now: u64, wakers: &mut [Option<Waker>; BATCH]) -> bool {
        let mut fired = 0;
        let target = tick_of(now);
        while let Some((level, slot, start)) = self.first() {
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            let mut list = core::mem::replace(&mut self.slots[level][slot], List::new());
            self.occupied[level] &= !(1 << slot);
            let mut kept = false;
            while let Some(entry) = list.pop_front() {
                // SAFETY: entries are alive while they are in the wheel, whose lock is held.
                unsafe {
                    let deadline = (*entry).deadline.get();
                    if deadline > now || fired == BATCH {
                        kept |= level == 0;
                        self.link(entry, deadline);
                        continue;
                    }
                    (*entry).place.set(None);
                    if let Some(waker) = (*entry).waker.take() {
                        wakers[fired] = Some(waker);
                        fired += 1;
                    }
                }
            }
            if fired == BATCH {
                return true;
            }
            if kept {
                // What is left of this tick's slot is due later in the same tick.
                break;
            }
        }
        self.tick = self.tick.max(target);
        false
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
        let Some((level, slot, start)) = self.first() else { return u64::MAX };
        let list = &self.slots[level][slot];
        if list.len() > LOOK {
            return start << TICK_SHIFT;
        }
        let mut earliest = u64::MAX;
        let mut entry = list.front();
        while let Some(current) = entry {
            earliest = earliest.min(current.deadline.get());
            entry = list.after(current);
        }
        earliest
    }
}
