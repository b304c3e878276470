//! The memory of tasks that are gone is kept on the CPU that frees it, for the next task of that size: so that spawning
//! costs no visit to the allocator, which on the bare machine is one for all CPUs.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | take, keep, release on one list (another CPU, or a thread that was preempted or moved in the middle) | who swaps the whole list out has it; the others find it empty, and go to the allocator |
//! | giving a list back, another one that did so meanwhile | compare-and-swap from empty; who comes second frees what it has |
//!
//! Not for interrupt handlers, as the allocator is not.
#![allow(unsafe_code, reason = "hands out memory")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::cpu::cpus;

/// Sizes are told apart in steps of so many bytes, which is also the strictest alignment.
const STEP: usize = 8;
/// Tasks above this size, in bytes, are not kept.
const LARGEST: usize = 512;
/// A CPU keeps at most so many bytes of each size.
const MOST: usize = 2 << 20;

/// What a CPU keeps: a list for each size.
pub(crate) struct Kept([AtomicPtr<Piece>; LARGEST / STEP]);

/// In the memory itself.
struct Piece {
    below: *mut Piece,
    /// How many pieces the list has from here on.
    count: usize,
}

/// The list for memory of this layout.
const fn class(layout: Layout) -> Option<usize> {
    let fits = layout.size() <= LARGEST && layout.size() >= size_of::<Piece>() && layout.align() <= STEP;
    // A model's memory is its own.
    if fits && !cfg!(loom) { Some((layout.size() - 1) / STEP) } else { None }
}

/// How the memory of a class was allocated.
fn layout_of(class: usize) -> Layout {
    match Layout::from_size_align((class + 1) * STEP, STEP) {
        Ok(layout) => layout,
        Err(_) => unreachable!("classes are small"),
    }
}

impl Kept {
    pub(crate) const fn new() -> Self {
        Kept([const { AtomicPtr::new(core::ptr::null_mut()) }; LARGEST / STEP])
    }

    /// Takes a whole list.
    #[inline]
    fn swap_out(&self, class: usize) -> *mut Piece {
        self.0[class].swap(core::ptr::null_mut(), Ordering::Acquire)
    }

    /// Gives a list back.
    ///
    /// # Safety
    /// The caller took it, but for pieces that it added or removed.
    #[inline]
    unsafe fn give_back(&self, class: usize, list: *mut Piece) {
        let none = core::ptr::null_mut();
        let given = self.0[class].compare_exchange(none, list, Ordering::Release, Ordering::Relaxed);
        if given.is_err() {
            // SAFETY: the caller's list.
            unsafe { free_all(class, list) };
        }
    }
}

/// # Safety
/// The caller took the list.
#[cold]
unsafe fn free_all(class: usize, mut list: *mut Piece) -> usize {
    let mut bytes = 0;
    while !list.is_null() {
        // SAFETY: the pieces are the caller's, and were allocated so.
        unsafe {
            let below = (*list).below;
            dealloc(list.cast(), layout_of(class));
            list = below;
        }
        bytes += layout_of(class).size();
    }
    bytes
}

impl Kept {
    /// Memory for a task; null if there is none.
    #[inline]
    pub(super) fn take(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else {
            // SAFETY: a task has a header, so its size is not zero.
            return unsafe { alloc(layout) };
        };
        let first = self.swap_out(class);
        if first.is_null() {
            // SAFETY: as above.
            return unsafe { alloc(layout_of(class)) };
        }
        // SAFETY: the list is ours.
        unsafe {
            let below = (*first).below;
            if !below.is_null() {
                self.give_back(class, below);
            }
        }
        first.cast()
    }

    /// Takes memory back.
    ///
    /// # Safety
    /// It came from [`take`](Kept::take), of any CPU, with this layout, and nothing is in it any more.
    #[inline]
    pub(super) unsafe fn keep(&self, memory: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { dealloc(memory, layout) };
        };
        let below = self.swap_out(class);
        // SAFETY: the list is ours, and so is the memory, which is large enough.
        unsafe {
            let count = if below.is_null() { 0 } else { (*below).count };
            if count >= MOST / layout_of(class).size() {
                dealloc(memory, layout_of(class));
                self.give_back(class, below);
            } else {
                let first = memory.cast::<Piece>();
                first.write(Piece { below, count: count + 1 });
                self.give_back(class, first);
            }
        }
    }

    fn release(&self) -> usize {
        // SAFETY: the lists are ours from the moment they are swapped out.
        (0..self.0.len()).map(|class| unsafe { free_all(class, self.swap_out(class)) }).sum()
    }
}

/// Frees what all CPUs keep of the memory of tasks that are gone, at most 2 MiB a CPU and size. Returns how many bytes.
///
/// For an allocator that has nothing left: it must not hold its lock. Not for interrupt handlers.
pub fn release_kept_memory() -> usize {
    cpus().map(|cpu| cpu.kept.release()).sum()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_up_to_a_limit_and_released() {
        let (kept, layout) = (Kept::new(), Layout::new::<[u64; 40]>());
        let fits = MOST / layout.size();
        let pieces: alloc::vec::Vec<_> = (0..fits + 10).map(|_| kept.take(layout)).collect();
        for &piece in &pieces {
            assert!(!piece.is_null());
            // SAFETY: just taken.
            unsafe { kept.keep(piece, layout) };
        }
        let last = pieces[fits - 1];
        assert_eq!(kept.take(layout), last, "what was kept last is the warmest");
        // SAFETY: just taken.
        unsafe { kept.keep(last, layout) };
        assert_eq!(kept.release(), fits * layout.size());
        assert_eq!(kept.release(), 0);
    }

    #[test]
    fn a_piece_has_one_owner_at_a_time() {
        static KEPT: Kept = Kept::new();
        let layout = Layout::new::<[u64; 4]>();
        let worker = |own: u64| {
            move || {
                for turn in 0..20_000 {
                    let held = [0, 1].map(|_| KEPT.take(layout).cast::<u64>());
                    for (place, piece) in held.into_iter().enumerate() {
                        // SAFETY: just taken, and large enough.
                        unsafe { piece.add(3).write_volatile(own << 32 | turn << 1 | place as u64) };
                    }
                    std::thread::yield_now();
                    for (place, piece) in held.into_iter().enumerate() {
                        // SAFETY: taken above.
                        unsafe {
                            let mark = piece.add(3).read_volatile();
                            assert_eq!(mark, own << 32 | turn << 1 | place as u64);
                            KEPT.keep(piece.cast(), layout);
                        }
                    }
                }
            }
        };
        let workers: alloc::vec::Vec<_> = (1..4).map(|own| std::thread::spawn(worker(own))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert!(KEPT.release() > 0);
    }
}
