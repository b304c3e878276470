//! The tasks that a CPU has spawned and that are not done, for `ps`: a number leads to a task, and back.
//!
//! A slot is a word: a task's address, or the number of the next free slot. Slots stand in chunks that double
//! in size and never move, so growing copies nothing while the lock is held.
#![allow(unsafe_code, reason = "the registry turns numbers into tasks that are still alive")]

use alloc::vec::Vec;
use core::cell::UnsafeCell;

use super::TaskRef;
use super::header::Header;
use crate::atomic::{AtomicBool, Ordering, const_unless_loom};
use crate::cpu::{self, CpuLocal};
use crate::lock::{spin, take, without_interrupts};

const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = 16;
/// How far the CPU's number is shifted in a task's number.
const CPU_SHIFT: u32 = 22;
const SLOT_MASK: u32 = (1 << CPU_SHIFT) - 1;
/// No free slot was given back.
const NONE: u32 = u32::MAX;

/// One CPU's tasks.
///
/// Its lock is taken by run loops with interrupts on, by everybody else with interrupts off: no handler takes it, and
/// no holder is preempted.
pub(crate) struct Registry {
    locked: AtomicBool,
    slots: UnsafeCell<Slots>,
}

// SAFETY: the slots are reached under the lock only.
unsafe impl Sync for Registry {}
// SAFETY: they hold tasks that may be referred to on any CPU.
unsafe impl Send for Registry {}

impl Registry {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Registry { locked: AtomicBool::new(false), slots: UnsafeCell::new(Slots::new()) }
        }
    }

    /// Calls `f` with the slots. Not for interrupt handlers.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Slots) -> R) -> R {
        // SAFETY: interrupts are off, so this is not preempted.
        without_interrupts(|| unsafe { self.with_on_run_loop(f) })
    }

    /// # Safety
    /// The caller is not preempted, nor inside another call.
    #[inline]
    unsafe fn with_on_run_loop<R>(&self, f: impl FnOnce(&mut Slots) -> R) -> R {
        if !take(&self.locked) {
            spin(&self.locked);
        }
        // SAFETY: the lock is ours.
        let result = f(unsafe { &mut *self.slots.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// The first live task at or after `slot`, and its slot.
    pub(crate) fn next(&self, slot: u32) -> Option<(u32, TaskRef)> {
        self.with(|slots| slots.next(slot))
    }

    /// As [`next`](Registry::next), without waiting; `None` if somebody holds the lock.
    pub(crate) fn try_next(&self, slot: u32) -> Option<Option<(u32, TaskRef)>> {
        without_interrupts(|| {
            if !take(&self.locked) {
                return None;
            }
            // SAFETY: the lock is ours.
            let next = unsafe { (*self.slots.get()).next(slot) };
            self.locked.store(false, Ordering::Release);
            Some(next)
        })
    }

    /// Tasks that are not done.
    pub(crate) fn live(&self) -> usize {
        self.with(|slots| slots.live as usize)
    }
}

struct Slots {
    chunks: [Vec<usize>; CHUNKS],
    /// Where each chunk would begin if it had all slots up to its own: so that a slot is found by one addition.
    bases: [*mut usize; CHUNKS],
    /// Slots handed out at least once.
    used: u32,
    free: u32,
    live: u32,
}

/// The chunk and the place in it of a slot.
#[inline]
fn place(slot: u32) -> (usize, usize) {
    let position = slot as usize + FIRST_CHUNK;
    let top = position.ilog2();
    ((top - FIRST_CHUNK.ilog2()) as usize, position - (1 << top))
}

impl Slots {
    const fn new() -> Self {
        let bases = [core::ptr::null_mut(); CHUNKS];
        Slots { chunks: [const { Vec::new() }; CHUNKS], bases, used: 0, free: NONE, live: 0 }
    }

    /// A slot for `task`, or how much the chunk needs that is missing.
    #[inline]
    fn insert(&mut self, task: *mut Header) -> Result<u32, usize> {
        let slot = if self.free == NONE {
            let (chunk, offset) = place(self.used);
            let Some(entry) = self.chunks.get_mut(chunk).and_then(|entries| entries.get_mut(offset)) else {
                return Err(if chunk < CHUNKS { FIRST_CHUNK << chunk } else { 0 });
            };
            *entry = task.expose_provenance();
            self.used += 1;
            self.used - 1
        } else {
            let slot = self.free;
            // SAFETY: it was handed out before it was given back.
            let entry = unsafe { self.entry(slot) };
            let next = (*entry >> 1) as u32;
            *entry = task.expose_provenance();
            self.free = next;
            slot
        };
        self.live += 1;
        Ok(slot)
    }

    /// # Safety
    /// The slot was handed out.
    #[inline]
    unsafe fn entry(&mut self, slot: u32) -> &mut usize {
        let position = slot as usize + FIRST_CHUNK;
        let chunk = (position.ilog2() - FIRST_CHUNK.ilog2()) as usize;
        // SAFETY: so its chunk is there, and long enough.
        unsafe { &mut *self.bases[chunk % CHUNKS].wrapping_add(position) }
    }

    /// Adds the chunk that is missing, unless it is another one by now: then `chunk` stays as it is.
    fn add(&mut self, chunk: &mut Vec<usize>) {
        let (at, _) = place(self.used);
        let size = FIRST_CHUNK << at;
        if self.chunks[at].is_empty() && chunk.len() == size {
            core::mem::swap(&mut self.chunks[at], chunk);
            self.bases[at] = self.chunks[at].as_mut_ptr().wrapping_sub(size);
        }
    }

    /// # Safety
    /// As for [`entry`](Slots::entry).
    #[inline]
    unsafe fn remove(&mut self, slot: u32) {
        let free = self.free;
        // SAFETY: the caller's promise.
        unsafe { *self.entry(slot) = (free as usize) << 1 | 1 };
        self.free = slot;
        self.live -= 1;
    }

    /// The first live task at or after `slot`, and its slot.
    fn next(&mut self, mut slot: u32) -> Option<(u32, TaskRef)> {
        while slot < self.used {
            // SAFETY: it was handed out.
            let entry = unsafe { *self.entry(slot) };
            if entry & 1 == 0 {
                let task = core::ptr::with_exposed_provenance_mut(entry);
                // SAFETY: a task leaves the registry, under its lock, before the executor's reference goes.
                return Some((slot, unsafe { TaskRef::borrow(task) }));
            }
            slot += 1;
        }
        None
    }
}

/// Gives a task its number; false if there is no memory, or no number left.
///
/// # Safety
/// The task is complete but for its number, and its executor's reference is not given back before it is
/// unregistered.
#[inline]
pub(crate) unsafe fn register(cpu: &'static CpuLocal, task: *mut Header) -> bool {
    loop {
        let inserted = cpu.registry.with(|slots| {
            let slot = slots.insert(task)?;
            // SAFETY: the caller's task is alive. Its number is there before anybody finds it.
            unsafe { (*task).id.store(cpu.id() << CPU_SHIFT | (slot + 1), Ordering::Relaxed) };
            Ok(())
        });
        let Err(missing) = inserted else { return true };
        if !grow(cpu, missing) {
            return false;
        }
    }
}

/// Adds a chunk of `missing` entries, unless somebody else did; false if there is no memory, or none is missing.
#[cold]
fn grow(cpu: &'static CpuLocal, missing: usize) -> bool {
    // The allocation comes outside the lock; if somebody else was quicker, ours is dropped outside, too.
    let mut chunk = Vec::new();
    if missing == 0 || chunk.try_reserve_exact(missing).is_err() {
        return false;
    }
    chunk.resize(missing, 0);
    cpu.registry.with(|slots| slots.add(&mut chunk));
    drop(chunk);
    true
}

/// Takes a task out that is done. `cpu` is where it ended, which need not be where it was spawned.
///
/// # Safety
/// Only for the run loop of that CPU; once, with the number of a task that is registered.
#[inline]
pub(crate) unsafe fn unregister(cpu: &'static CpuLocal, id: u32) {
    let spawned_by = id >> CPU_SHIFT;
    let cpu = if cpu.id() == spawned_by { cpu } else { spawner(spawned_by) };
    // SAFETY: run loops are not preempted; the number is of a slot that was handed out.
    unsafe { cpu.registry.with_on_run_loop(|slots| slots.remove((id & SLOT_MASK) - 1)) };
}

#[cold]
fn spawner(id: u32) -> &'static CpuLocal {
    match cpu::by_id(id) {
        Some(cpu) => cpu,
        None => unreachable!("a task was spawned by a CPU that was never bound"),
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn chunks_follow_one_another_without_a_gap() {
        let mut expected = (0, 0);
        for slot in 0..10_000 {
            assert_eq!(place(slot), expected, "slot {slot}");
            expected.1 += 1;
            if expected.1 == 64 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
