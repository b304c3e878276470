//! What each CPU has for itself.
//!
//! On the bare machine the GS base points at this CPU's [`CpuLocal`]; on the host each thread is a CPU of its
//! own. Fields stand grouped by who may touch them.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::arch;
use crate::atomic::{
    AtomicBool as ModelledBool, AtomicU32 as ModelledU32, AtomicU64 as ModelledU64, const_unless_loom, fence,
};
use crate::lock::SpinLock;
use crate::run_queue::{RunQueue, Stack};
use crate::task::memory::Kept;
use crate::task::registry::Registry;
use crate::task::{Header, names};
use crate::time::wheel::Wheel;

/// One CPU's data. The kernel makes it the first field of its own block for the CPU.
#[repr(C)]
pub struct CpuLocal {
    /// Its own address, so that one load through GS finds the rest. Must stay first.
    this: AtomicPtr<CpuLocal>,
    /// The task that is polled here; null between polls.
    pub(crate) current: AtomicPtr<Header>,
    id: u32,
    /// The next in the list of CPUs.
    next: AtomicPtr<CpuLocal>,
    /// CPUs of one machine steal from each other, and wait for each other's grace periods. On the bare machine
    /// there is only one; on the host each thread is one, unless it was started as part of another.
    pub(crate) machine: AtomicU32,

    // This CPU only, with interrupts off.
    /// How many guards ([`GUARD`]) and other sections without interrupts ([`SECTION`]) are open, and whether
    /// interrupts come back after the last ([`WERE_ON`]).
    sections: AtomicU32,
    /// The name of the innermost guard.
    pub(crate) held: AtomicPtr<&'static str>,

    // Any CPU and any interrupt handler.
    /// Set behind each of these: the alarm came, a task is to be freed, a grace period waits. The run loop clears
    /// it before it looks at them.
    pub(crate) attention: ModelledBool,
    /// The timer interrupt came; the run loop has not looked yet.
    pub(crate) alarm: ModelledBool,
    /// The CPU is idle or about to be: who pushes work must rouse it.
    pub(crate) sleeping: ModelledBool,
    /// The latest grace period that this CPU has passed. Written by its run loop.
    pub(crate) passed: ModelledU64,
    /// It looks for something to steal.
    pub(crate) searching: AtomicBool,
    /// It was idle, and has not yet looked since whether another CPU needs one that is. Its run loop only.
    pub(crate) owes_look: AtomicBool,
    /// The number, plus one, of the sleeping CPU that watches over this one; 0 if there is none.
    pub(crate) watched_by: ModelledU32,
    // Written by the watcher: what was polled here when it looked last, after how many polls, and since when that poll
    // is known to go on.
    pub(crate) seen_current: AtomicPtr<Header>,
    pub(crate) seen_polls: AtomicU64,
    pub(crate) seen_at: AtomicU64,
    pub(crate) woken_tasks: Stack,
    pub(crate) woken_threads: Stack,
    /// Tasks whose last reference was dropped where freeing is not allowed.
    pub(crate) dead: Stack,

    // Any CPU, under their own locks.
    pub(crate) ready: RunQueue,
    pub(crate) wheel: SpinLock<Wheel>,
    pub(crate) registry: Registry,
    /// Of tasks that are gone.
    pub(crate) kept: Kept,

    // Counters, written by this CPU only.
    pub(crate) polls: AtomicU64,
    pub(crate) idle_ns: AtomicU64,
    pub(crate) steals: AtomicU64,
    pub(crate) longest_poll_ns: AtomicU64,
    /// Polls of so many nanoseconds are noted: those longer than the longest one, or than
    /// [`LONG_NS`](crate::platform::LONG_NS) if that is less.
    pub(crate) notable_poll_ns: AtomicU64,
    /// The number of the name of the task that it was.
    pub(crate) longest_poll: AtomicU8,
    // Written by anybody.
    kicks: AtomicU64,

    #[cfg(not(target_os = "none"))]
    pub(crate) host: crate::host::HostPlatform,
}

impl CpuLocal {
    #[cfg(target_os = "none")]
    /// Where the current task stands, for the load through GS.
    pub(crate) const CURRENT_OFFSET: usize = core::mem::offset_of!(CpuLocal, current);

    const_unless_loom! {
        /// The data of CPU `id` (0 is the one that booted; below [`MAX_CPUS`]).
        pub fn new(id: u32) -> Self {
            assert!(id < MAX_CPUS, "a CPU's number fits into ten bits of a task's number");
            CpuLocal {
                this: AtomicPtr::new(core::ptr::null_mut()),
                current: AtomicPtr::new(core::ptr::null_mut()),
                id,
                next: AtomicPtr::new(core::ptr::null_mut()),
                machine: AtomicU32::new(0),
                sections: AtomicU32::new(0),
                held: AtomicPtr::new(core::ptr::null_mut()),
                // A grace period may have been asked for before it was in the list of CPUs.
                attention: ModelledBool::new(true),
                alarm: ModelledBool::new(false),
                sleeping: ModelledBool::new(false),
                passed: ModelledU64::new(0),
                searching: AtomicBool::new(false),
                owes_look: AtomicBool::new(false),
                watched_by: ModelledU32::new(0),
                seen_current: AtomicPtr::new(core::ptr::null_mut()),
                seen_polls: AtomicU64::new(0),
                seen_at: AtomicU64::new(0),
                woken_tasks: Stack::new(),
                woken_threads: Stack::new(),
                dead: Stack::new(),
                ready: RunQueue::new(),
                wheel: SpinLock::new("timer wheel", Wheel::new()),
                registry: Registry::new(),
                kept: Kept::new(),
                polls: AtomicU64::new(0),
                idle_ns: AtomicU64::new(0),
                steals: AtomicU64::new(0),
                longest_poll_ns: AtomicU64::new(0),
                notable_poll_ns: AtomicU64::new(1),
                longest_poll: AtomicU8::new(0),
                kicks: AtomicU64::new(0),
                #[cfg(not(target_os = "none"))]
                host: crate::host::HostPlatform::new(),
            }
        }
    }

    /// Notes its own address, and enters it in the list of CPUs. On the bare machine: call it, then point this
    /// CPU's GS base (and the kernel's half of `swapgs`) at it, before the first lock is taken on this CPU; its
    /// run loop must follow, since grace periods wait for it. Once.
    pub fn bind(&'static self) {
        let this = core::ptr::from_ref(self).cast_mut();
        self.this.store(this, Ordering::Relaxed);
        list::enter(self, this);
        // Pairs with the one in `grace_period`: it finds this CPU in the list, or we find what it asks for.
        fence(Ordering::SeqCst);
    }

    /// Makes its run loop look at what was noted before. Any context.
    #[inline]
    pub(crate) fn call_attention(&self) {
        self.attention.store(true, Ordering::Release);
    }

    /// Makes the CPU leave idle, if it is there or about to be. Any context.
    #[inline]
    pub(crate) fn rouse(&'static self) {
        // Not a swap, to send one kick only: then who comes second relies on a kick that the CPU may have had.
        if self.sleeping.load(Ordering::Relaxed) {
            self.kick();
        }
    }

    /// Sends an interrupt to this CPU. Any context.
    #[cold]
    pub(crate) fn kick(&'static self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
        #[cfg(target_os = "none")]
        crate::platform::platform().kick(self.id);
        #[cfg(not(target_os = "none"))]
        self.host.kick_this();
    }

    /// Whether `other` is of the same machine.
    fn is_beside(&self, other: &CpuLocal) -> bool {
        self.machine.load(Ordering::Relaxed) == other.machine.load(Ordering::Relaxed)
    }

    /// The CPU's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What this CPU's run loop has counted so far.
    pub fn counters(&self) -> CpuCounters {
        let longest = self.longest_poll_ns.load(Ordering::Relaxed);
        CpuCounters {
            polls: self.polls.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
            longest_poll_ns: longest,
            longest_poll: (longest > 0).then(|| names::name(self.longest_poll.load(Ordering::Relaxed))),
            steals: self.steals.load(Ordering::Relaxed),
            kicks: self.kicks.load(Ordering::Relaxed),
        }
    }

    /// Opens a section without interrupts: `kind` is GUARD or SECTION.
    #[inline]
    pub(crate) fn open_section(&self, were_on: bool, kind: u32) {
        let open = self.sections.load(Ordering::Relaxed);
        // Only the first one may have found them on.
        self.sections.store((open | if were_on { WERE_ON } else { 0 }) + kind, Ordering::Relaxed);
    }

    /// Closes one section without interrupts; true if it was the last and interrupts were on before it.
    #[inline]
    pub(crate) fn close_section(&self, kind: u32) -> bool {
        let open = self.sections.load(Ordering::Relaxed) - kind;
        // The host has no interrupts to come back.
        let come_back = cfg!(target_os = "none") && open == WERE_ON;
        self.sections.store(if come_back { 0 } else { open }, Ordering::Relaxed);
        come_back
    }

    /// How many guards are open.
    pub(crate) fn guards(&self) -> u32 {
        (self.sections.load(Ordering::Relaxed) & !WERE_ON) / GUARD
    }
}

/// One open section without interrupts.
pub(crate) const SECTION: u32 = 1;
/// One open guard.
pub(crate) const GUARD: u32 = 1 << 12;
/// Interrupts were on before the first section.
const WERE_ON: u32 = 1 << 31;

/// What a CPU's run loop has counted since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// Polls of tasks and threads.
    pub polls: u64,
    /// Nanoseconds in which there was nothing to do.
    pub idle_ns: u64,
    /// The longest poll of a task (not of a thread), in nanoseconds.
    pub longest_poll_ns: u64,
    /// The name of that task.
    pub longest_poll: Option<&'static str>,
    /// Tasks and threads that it took from other CPUs.
    pub steals: u64,
    /// How often it was roused from idle, or interrupted for a grace period.
    pub kicks: u64,
}

/// CPUs have numbers below this.
pub const MAX_CPUS: u32 = 1 << 10;

/// The number of the CPU that executes this: exact with interrupts off, else a hint. Any context.
pub fn current_cpu() -> u32 {
    arch::local().id
}

/// The CPUs of this machine that were bound, newest first. Any context.
pub fn cpus() -> impl Iterator<Item = &'static CpuLocal> {
    let own = arch::local();
    list::all().filter(move |cpu| cpu.is_beside(own))
}

/// Whether the CPU that executes this is the only one of its machine that was bound. Any context.
#[inline]
pub fn is_only_cpu() -> bool {
    let own = arch::local();
    !list::all().any(|cpu| !core::ptr::eq(cpu, own) && cpu.is_beside(own))
}

/// The CPU with this number, if it was bound.
pub(crate) fn by_id(id: u32) -> Option<&'static CpuLocal> {
    cpus().find(|cpu| cpu.id == id)
}

/// The list of CPUs: push-only, so that it is walked without a lock.
#[cfg(not(loom))]
mod list {
    #![allow(unsafe_code, reason = "CPUs are never freed, so the list's pointers are good for ever")]
    use super::{AtomicPtr, CpuLocal, Ordering};

    static FIRST: AtomicPtr<CpuLocal> = AtomicPtr::new(core::ptr::null_mut());

    pub(super) fn enter(cpu: &'static CpuLocal, this: *mut CpuLocal) {
        let mut first = FIRST.load(Ordering::Relaxed);
        loop {
            cpu.next.store(first, Ordering::Relaxed);
            match FIRST.compare_exchange_weak(first, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    pub(super) fn all() -> impl Iterator<Item = &'static CpuLocal> {
        // SAFETY: only `bind` writes to the list, and it has a reference for ever.
        let mut at = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
        core::iter::from_fn(move || {
            let cpu = at?;
            // SAFETY: as above; what is behind an entry does not change once it is in the list.
            at = unsafe { cpu.next.load(Ordering::Acquire).as_ref() };
            Some(cpu)
        })
    }
}
/// In models CPUs come and go with the threads of a run.
#[cfg(loom)]
use crate::host::list;

/// The counters of the CPU that executes this.
pub fn counters() -> CpuCounters {
    arch::local().counters()
}
