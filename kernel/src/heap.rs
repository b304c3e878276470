//! The kernel's heap: grows by runs of frames, under the project's spin lock.
//!
//! The lock keeps interrupts off and touches the stack first, so kernel threads may allocate: they cannot
//! be preempted inside, and cannot fault inside. Interrupt handlers may not.
#![allow(unsafe_code, reason = "implements the global allocator")]

use alloc::boxed::Box;
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

use executor::lock::SpinLock;
use mm::OutOfMemory;
use talc::{
    base::{Talc, binning::Binning},
    source::Source,
};

use crate::memory;

/// The heap grows by at least this many frames at once, and by fewer when memory is short.
const GROWTH_FRAMES: usize = 64;

/// What is kept for allocations that cannot be refused, in bytes.
const RESERVE: usize = 256 << 10;

/// What `Talc` needs beside the memory itself: room for its own marks.
const OVERHEAD: usize = 64;

struct Heap(SpinLock<Talc<Frames, talc::DefaultBinning>>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new("heap", Talc::new(Frames)));

#[derive(Debug)]
struct Frames;

// SAFETY: `acquire` only claims memory that it owns for good, and never allocates from the heap.
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let needed = (layout.size() + layout.align() + OVERHEAD).div_ceil(mm::PAGE_SIZE);
        grow(talc, needed.max(GROWTH_FRAMES)).or_else(|()| grow(talc, needed))
    }
}

/// Adds a run of `frames` frames.
fn grow<B: Binning>(talc: &mut Talc<Frames, B>, frames: usize) -> Result<(), ()> {
    let run = memory::memory().frames().try_alloc_contiguous(frames, 1).ok_or(())?;
    let bytes = run.frames() * mm::PAGE_SIZE;
    let start = memory::phys_to_virt(run.into_address().as_u64()) as *mut u8;
    // SAFETY: the run is ours for good, and all physical memory is mapped.
    unsafe { talc.claim(start, bytes) }.map(drop).ok_or(())
}

// SAFETY: delegates to `Talc` under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: callers of `GlobalAlloc` pass layouts of a size that is not zero.
        unsafe { self.0.lock().allocate(layout) }.map_or(ptr::null_mut(), ptr::NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises; a move goes through `alloc` and `dealloc`.
        unsafe {
            if self.0.lock().try_realloc_in_place(pointer, layout, size) {
                return pointer;
            }
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Fills the heap's reserve for the small allocations that cannot be refused. Whoever starts a thread asks first: so
/// memory that is full ends in an error there. Nothing keeps others from what is left afterwards.
///
/// # Errors
/// When there are no frames for it.
pub fn keep_reserve() -> Result<(), OutOfMemory> {
    let mut heap = HEAP.0.lock();
    while heap.counters().available_bytes < RESERVE {
        grow(&mut heap, GROWTH_FRAMES).or_else(|()| grow(&mut heap, 1)).map_err(|()| OutOfMemory)?;
    }
    Ok(())
}

/// Puts `value` on the heap; `None` when there is no memory, where `Box::new` would end the machine. For what
/// a program of ring 3 can cause.
pub fn try_box<T>(value: T) -> Option<Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout is not empty; a box owns what the allocator gave out for its layout.
    unsafe {
        let place = alloc::alloc::alloc(Layout::new::<T>()).cast::<T>();
        if place.is_null() {
            return None;
        }
        place.write(value);
        Some(Box::from_raw(place))
    }
}

/// What the heap holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeapStats {
    /// Allocated now.
    pub used: usize,
    /// Taken from the frames so far.
    pub claimed: usize,
    /// Allocations alive now.
    pub allocations: usize,
}

/// What the heap holds now.
pub fn stats() -> HeapStats {
    let heap = HEAP.0.lock();
    let counters = heap.counters();
    HeapStats {
        used: counters.allocated_bytes,
        claimed: counters.claimed_bytes,
        allocations: counters.allocation_count,
    }
}
