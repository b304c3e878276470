//! The kernel's heap: grows by runs of frames, under the project's spin lock.
//!
//! The lock keeps interrupts off and touches the stack first, so kernel threads may allocate: they cannot
//! be preempted inside, and cannot fault inside. Interrupt handlers may not.
//!
//! | who | may take | when there is none |
//! | --- | --- | --- |
//! | what a user can cause in any number: a fault, a mapping, a thread, a line of a table | what leaves a spare; asks [`has_room`] first | is refused |
//! | what is too small and too rare to be refused: a record, a sentence | the spare | the machine ends |
//! | what others wait for: a stack that grows, a load on its way | half of the reserve, in [`drawing`] | waits |
//! | what writes pages out, and so gives frames back | all of the reserve, and then the frames that are kept for it, in [`with_reserve`] | waits |
//!
//! The reserve is memory of its own, taken at boot: nobody else comes to it, so what was taken before and how it was cut
//! up does not matter. Halves of it are a count of bytes, not two places.
#![allow(unsafe_code, reason = "implements the global allocator")]

use alloc::boxed::Box;
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use drivers::block::Operation;
use executor::lock::SpinLock;
use mm::{FrameRun, OutOfMemory};
use talc::{
    base::{Talc, binning::Binning},
    source::{Manual, Source},
};

use crate::{arch::cpu, memory, thread};

/// The heap grows by at least this many frames at once, and by fewer when memory is short.
const GROWTH_FRAMES: usize = 64;

/// What those leave who ask first, in bytes.
const SPARE: usize = 256 << 10;

/// What a fault leaves, which takes some hundred bytes or pages for index nodes: who has begun already goes on when
/// nobody may begin any more. Where frames are short, too, each fault that it stops waits for some to be given back,
/// so it is not more than it must be.
const SPARE_OF_FAULTS: usize = SPARE / 8;

/// The size of the reserve.
const RESERVE_FRAMES: usize = 16;
const RESERVE: usize = RESERVE_FRAMES * mm::PAGE_SIZE;

/// What `Talc` needs beside the memory itself: room for its own marks.
const OVERHEAD: usize = 64;

struct Heap {
    main: SpinLock<Talc<Frames, talc::DefaultBinning>>,
    /// What is free in it, read without the lock.
    available: AtomicUsize,
    reserve: SpinLock<Talc<Manual, talc::DefaultBinning>>,
    /// Where the reserve is; 0 before [`init`].
    reserve_at: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap {
    main: SpinLock::new("heap", Talc::new(Frames)),
    available: AtomicUsize::new(0),
    reserve: SpinLock::new("heap reserve", Talc::new(Manual)),
    reserve_at: AtomicUsize::new(0),
};

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
    memory::memory().frames().try_alloc_contiguous(frames, 1).ok_or(()).and_then(|run| add(talc, run))
}

/// Adds one of the frames that are kept for those who write pages out.
fn grow_by_kept<B: Binning>(talc: &mut Talc<Frames, B>) -> Result<(), ()> {
    memory::memory().frames().try_alloc_reserved().ok_or(()).and_then(|frame| add(talc, frame.into()))
}

fn add<B: Binning>(talc: &mut Talc<Frames, B>, run: FrameRun) -> Result<(), ()> {
    let bytes = run.frames() * mm::PAGE_SIZE;
    let start = memory::phys_to_virt(run.into_address().as_u64()) as *mut u8;
    // SAFETY: the run is ours for good, and all physical memory is mapped.
    unsafe { talc.claim(start, bytes) }.map(drop).ok_or(())
}

impl Heap {
    /// Does something to the main heap, and notes what is free then.
    fn with<R>(&self, f: impl FnOnce(&mut Talc<Frames, talc::DefaultBinning>) -> R) -> R {
        let mut main = self.main.lock();
        let result = f(&mut main);
        self.available.store(main.counters().available_bytes, Relaxed);
        result
    }

    /// Takes from the reserve.
    fn draw(&self, layout: Layout, draw: Draw) -> Option<NonNull<u8>> {
        let mut reserve = self.reserve.lock();
        let kept = if draw == Draw::All { 0 } else { RESERVE / 2 };
        if reserve.counters().available_bytes < kept + layout.size() {
            return None;
        }
        // SAFETY: callers of `GlobalAlloc` pass layouts of a size that is not zero.
        unsafe { reserve.allocate(layout) }
    }

    /// Takes from a frame that is kept for those who write pages out: it is part of the heap from then on, and others
    /// that are given back are kept instead. What one frame has no room for gets none.
    fn draw_frame(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() + layout.align() + OVERHEAD > mm::PAGE_SIZE {
            return None;
        }
        self.with(|main| {
            grow_by_kept(main).ok()?;
            // SAFETY: as above.
            unsafe { main.try_allocate(layout) }
        })
    }

    fn is_reserve(&self, pointer: *mut u8) -> bool {
        pointer.addr().wrapping_sub(self.reserve_at.load(Relaxed)) < RESERVE
    }
}

// SAFETY: delegates to `Talc` under a lock; what came from the reserve goes back there.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: callers of `GlobalAlloc` pass layouts of a size that is not zero.
        let place = unsafe {
            match draw() {
                Draw::Nothing => self
                    .with(|main| main.allocate(layout))
                    .or_else(|| if gather() { self.with(|main| main.allocate(layout)) } else { None }),
                // The heap does not grow by the frame that the caller needs itself, if it can be helped.
                draw => self
                    .with(|main| main.try_allocate(layout))
                    .or_else(|| if frames_are_short() { self.draw(layout, draw) } else { None })
                    .or_else(|| self.with(|main| main.allocate(layout)))
                    .or_else(|| if draw == Draw::All { self.draw_frame(layout) } else { None }),
            }
        };
        place.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` with this layout, from the one part or the other.
        unsafe {
            if self.is_reserve(pointer) {
                self.reserve.lock().deallocate(pointer, layout);
            } else {
                self.with(|main| main.deallocate(pointer, layout));
            }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises; a move goes through `alloc` and `dealloc`.
        unsafe {
            let may_stay = !self.is_reserve(pointer);
            if may_stay && self.with(|main| main.try_realloc_in_place(pointer, layout, size)) {
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

/// Fills the reserve. Once at boot, when there are frames.
pub(crate) fn init() {
    let run = memory::memory().frames().try_alloc_contiguous(RESERVE_FRAMES, 1).expect("memory at boot");
    let start = memory::phys_to_virt(run.into_address().as_u64()) as *mut u8;
    // SAFETY: the run is ours for good, and all physical memory is mapped.
    unsafe { HEAP.reserve.lock().claim(start, RESERVE) }.expect("it is large enough");
    HEAP.reserve_at.store(start.addr(), Relaxed);
}

/// What code may take from the reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Draw {
    /// What can be refused.
    Nothing,
    /// What does not give frames back.
    Half,
    /// What writes pages out: the frames that are kept for it, too.
    All,
}

impl Draw {
    /// What a request to a disk may take.
    pub fn of(op: Operation) -> Self {
        if op == Operation::Read { Self::Half } else { Self::All }
    }
}

/// What the code that runs on a CPU may take from the reserve. Written by tasks only.
#[derive(Debug)]
pub(crate) struct DrawsOnReserve(AtomicU8);

impl DrawsOnReserve {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(Draw::Nothing as u8))
    }
}

/// Lets `f`, which writes pages out, take from the reserve where the rest of the heap is full, and then from the frames that
/// are kept for it. For tasks, and for little that is soon given back.
///
/// # Panics
/// On a thread: it could be preempted in the middle, and others would take as well.
pub fn with_reserve<R>(f: impl FnOnce() -> R) -> R {
    drawing(Draw::All, f)
}

/// Lets `f` take so much. `f` is what others wait for, and takes little.
///
/// # Panics
/// As [`with_reserve`].
pub fn drawing<R>(draw: Draw, f: impl FnOnce() -> R) -> R {
    assert!(thread::current().is_none(), "the heap's reserve is not for threads");
    let draws = &cpu::current().draws_on_reserve.0;
    let before = draws.swap(draw as u8, Relaxed);
    let result = f();
    draws.store(before, Relaxed);
    result
}

/// Takes back what the executor keeps for tasks to come. Whether that was anything.
fn gather() -> bool {
    executor::release_kept_memory() > 0
}

fn frames_are_short() -> bool {
    let frames = memory::memory().frames().stats();
    frames.free < frames.low
}

/// What the code that asks may take from the reserve.
fn draw() -> Draw {
    const HALF: u8 = Draw::Half as u8;
    const ALL: u8 = Draw::All as u8;
    if thread::current().is_some() {
        return Draw::Nothing;
    }
    match cpu::current().draws_on_reserve.0.load(Relaxed) {
        HALF => Draw::Half,
        ALL => Draw::All,
        _ => Draw::Nothing,
    }
}

/// Asks whether what a user can cause may take a little from the heap, some KiB at most. Such a one asks each time, and
/// says in a sentence that there is no memory when it is refused.
///
/// # Errors
/// When less than the spare would be left, and there are no frames for more.
pub fn has_room() -> Result<(), OutOfMemory> {
    leaves(SPARE)
}

/// The same for a fault.
pub(crate) fn has_room_for_fault() -> bool {
    draw() != Draw::Nothing || leaves(SPARE_OF_FAULTS).is_ok()
}

/// Sees to it that so many bytes are free.
fn leaves(spare: usize) -> Result<(), OutOfMemory> {
    if HEAP.available.load(Relaxed) >= spare {
        return Ok(());
    }
    grow_to(spare).or_else(|why| if gather() { grow_to(spare) } else { Err(why) })
}

fn grow_to(spare: usize) -> Result<(), OutOfMemory> {
    HEAP.with(|main| {
        while main.counters().available_bytes < spare {
            grow(main, GROWTH_FRAMES).or_else(|()| grow(main, 1)).map_err(|()| OutOfMemory)?;
        }
        Ok(())
    })
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
#[derive(Clone, Copy, Debug, Default)]
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
    let add = |stats: HeapStats, counters: &talc::base::Counters| HeapStats {
        used: stats.used + counters.allocated_bytes,
        claimed: stats.claimed + counters.claimed_bytes,
        allocations: stats.allocations + counters.allocation_count,
    };
    let main = add(HeapStats::default(), HEAP.main.lock().counters());
    add(main, HEAP.reserve.lock().counters())
}
