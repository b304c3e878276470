//! What each CPU has for itself.
//!
//! On the bare machine the GS base points at this CPU's [`CpuLocal`]; on the host each thread is a CPU of its
//! own. Fields stand grouped by who may touch them.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::arch;
use crate::atomic::{AtomicBool as ModelledBool, const_unless_loom};
use crate::lock::SpinLock;
use crate::run_queue::{RunQueue, Stack};
use crate::task::Header;
use crate::task::registry::Registry;
use crate::time::wheel::Wheel;

/// One CPU's data. The kernel makes it the first field of its own block for the CPU.
#[repr(C)]
pub struct CpuLocal {
    /// Its own address, so that one load through GS finds the rest. Must stay first.
    this: AtomicPtr<CpuLocal>,
    /// The task that is polled here; null between polls.
    pub(crate) current: AtomicPtr<Header>,
    id: u32,

    // This CPU only, with interrupts off.
    /// How many guards and `without_interrupts` are open, and whether interrupts come back after the last.
    off_depth: AtomicU32,
    were_on: AtomicBool,
    /// The name of the innermost guard, and the number of guards.
    pub(crate) held: AtomicPtr<&'static str>,
    pub(crate) guards: AtomicU32,

    // Any CPU and any interrupt handler.
    /// The timer interrupt came; the run loop has not looked yet.
    pub(crate) alarm: ModelledBool,
    /// The CPU is idle or about to be: who pushes work must kick it.
    pub(crate) sleeping: ModelledBool,
    pub(crate) woken_tasks: Stack,
    pub(crate) woken_threads: Stack,
    /// Tasks whose last reference was dropped where freeing is not allowed.
    pub(crate) dead: Stack,

    // Only the run loop, between polls.
    pub(crate) ready: RunQueue,

    // Any CPU, under their own locks.
    pub(crate) wheel: SpinLock<Wheel>,
    pub(crate) registry: SpinLock<Registry>,

    // Counters, written by this CPU only.
    pub(crate) polls: AtomicU64,
    pub(crate) idle_ns: AtomicU64,
    pub(crate) longest_poll_ns: AtomicU64,

    #[cfg(not(target_os = "none"))]
    pub(crate) host: crate::host::HostPlatform,
}

impl CpuLocal {
    #[cfg(target_os = "none")]
    /// Where the current task stands, for the load through GS.
    pub(crate) const CURRENT_OFFSET: usize = core::mem::offset_of!(CpuLocal, current);

    const_unless_loom! {
        /// The data of CPU `id` (0 is the one that booted; at most 255).
        pub fn new(id: u32) -> Self {
            assert!(id < 256, "a CPU's number fits into eight bits of a task's number");
            CpuLocal {
                this: AtomicPtr::new(core::ptr::null_mut()),
                current: AtomicPtr::new(core::ptr::null_mut()),
                id,
                off_depth: AtomicU32::new(0),
                were_on: AtomicBool::new(false),
                held: AtomicPtr::new(core::ptr::null_mut()),
                guards: AtomicU32::new(0),
                alarm: ModelledBool::new(false),
                sleeping: ModelledBool::new(false),
                woken_tasks: Stack::new(),
                woken_threads: Stack::new(),
                dead: Stack::new(),
                ready: RunQueue::new(),
                wheel: SpinLock::new("timer wheel", Wheel::new()),
                registry: SpinLock::new("task registry", Registry::new()),
                polls: AtomicU64::new(0),
                idle_ns: AtomicU64::new(0),
                longest_poll_ns: AtomicU64::new(0),
                #[cfg(not(target_os = "none"))]
                host: crate::host::HostPlatform::new(),
            }
        }
    }

    /// Notes its own address. On the bare machine: call it, then point this CPU's GS base (and the kernel's
    /// half of `swapgs`) at it, before the first lock is taken on this CPU.
    pub fn bind(&'static self) {
        self.this.store(core::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
    }

    /// The CPU's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Counters of this CPU: polls, nanoseconds spent idle, longest poll in nanoseconds.
    pub fn counters(&self) -> CpuCounters {
        CpuCounters {
            polls: self.polls.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
            longest_poll_ns: self.longest_poll_ns.load(Ordering::Relaxed),
        }
    }

    #[inline]
    pub(crate) fn push_interrupts_off(&self, were_on: bool) {
        let depth = self.off_depth.load(Ordering::Relaxed);
        if depth == 0 {
            self.were_on.store(were_on, Ordering::Relaxed);
        }
        self.off_depth.store(depth + 1, Ordering::Relaxed);
    }

    /// Closes one section without interrupts; true if it was the last and interrupts were on before it.
    #[inline]
    pub(crate) fn pop_interrupts_off(&self) -> bool {
        let depth = self.off_depth.load(Ordering::Relaxed) - 1;
        self.off_depth.store(depth, Ordering::Relaxed);
        depth == 0 && self.were_on.load(Ordering::Relaxed)
    }
}

/// What a CPU's run loop has counted since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// Polls of tasks and threads.
    pub polls: u64,
    /// Nanoseconds in which there was nothing to do.
    pub idle_ns: u64,
    /// The longest poll of a task (not of a thread), in nanoseconds.
    pub longest_poll_ns: u64,
}

/// The number of the CPU that executes this: exact with interrupts off, else a hint. Any context.
pub fn current_cpu() -> u32 {
    arch::local().id
}

/// The counters of the CPU that executes this.
pub fn counters() -> CpuCounters {
    arch::local().counters()
}
