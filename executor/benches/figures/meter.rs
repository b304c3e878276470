//! Measures a piece of a run: its instructions under callgrind, else its time; and what it takes from the heap.
#![allow(
    unsafe_code,
    reason = "requests to valgrind are instructions, and the counting allocator passes calls on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a run does with the piece that it measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: the run only warms up.
    Warm,
    /// Notes its time.
    Time,
    /// Has callgrind write down its instructions.
    Count,
}

/// See the module.
pub(crate) struct Meter {
    mode: Mode,
    /// The time that was measured.
    pub(crate) time: Duration,
}

impl Meter {
    pub(crate) fn new(mode: Mode) -> Self {
        Meter { mode, time: Duration::ZERO }
    }

    /// Runs `f` and measures it. Once a run.
    #[inline(never)]
    pub(crate) fn measure<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let start = self.begin();
        let result = f();
        self.end(start);
        result
    }

    /// As `measure`, for a future that is awaited here.
    pub(crate) async fn measure_future<F: Future>(&mut self, future: F) -> F::Output {
        let start = self.begin();
        let output = future.await;
        self.end(start);
        output
    }

    fn begin(&self) -> Instant {
        if self.mode == Mode::Count {
            request(ZERO_STATS);
        }
        Instant::now()
    }

    fn end(&mut self, start: Instant) {
        self.time = start.elapsed();
        if self.mode == Mode::Count {
            request(DUMP_STATS);
        }
    }
}

/// Requests to callgrind, as its `callgrind.h` counts them.
const TOOL: usize = (b'C' as usize) << 24 | (b'T' as usize) << 16;
const DUMP_STATS: usize = TOOL;
const ZERO_STATS: usize = TOOL + 1;

/// Asks valgrind for something. Outside it does nothing.
fn request(request: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        let block = [request, 0, 0, 0, 0, 0];
        // SAFETY: valgrind knows the request by these rotations, which together change nothing, and reads the
        // block; elsewhere the last instruction does nothing either.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") &raw const block,
                inout("rdx") 0_usize => _,
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = request;
}

/// Passes everything on, and counts while it is told to: otherwise an allocation costs one look more.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        BYTES.fetch_add(bytes, Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What was taken from the heap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heap {
    pub(crate) bytes: usize,
    pub(crate) allocations: usize,
}

impl Heap {
    pub(crate) fn taken_by(f: impl FnOnce()) -> Self {
        let before = (BYTES.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
        COUNTS.store(true, Ordering::Relaxed);
        f();
        COUNTS.store(false, Ordering::Relaxed);
        Heap {
            bytes: BYTES.load(Ordering::Relaxed) - before.0,
            allocations: ALLOCATIONS.load(Ordering::Relaxed) - before.1,
        }
    }
}
