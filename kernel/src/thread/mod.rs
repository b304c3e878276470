//! Threads: registers and a stack, run by a future.
//!
//! A thread is *entered* by its own future ([`mod@run`]) and comes back at its next trap; a parked
//! thread is that future, pending, and keeps no kernel stack. Threads of ring 3 and kernel threads (ring
//! 0, with a lazily allocated stack of their own) go the same way.
//!
//! # What kernel threads may do
//! They exist so that ordinary synchronous code can live here: they may touch any memory that is mapped
//! in the kernel's window, and be preempted anywhere but inside a spin lock. There is no unwinding: a
//! thread that is ended in the middle runs no destructors. So it ends in the middle only where it said that
//! it owns nothing, by touching a plain slice of the window; [`Window::read_at`](crate::window::Window)
//! and [`try_block_on`] return a kill as a value instead. Faults on a thread's own stack never end it but
//! when the stack is used up.
#![allow(unsafe_code, reason = "hands the registers to the trap code")]

mod block_on;
pub mod call;
mod exit;
mod run;
mod spawn;
pub(crate) mod stack;
pub(crate) mod victims;

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    cell::UnsafeCell,
    fmt,
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use conquer_once::spin::OnceCell;
use executor::{TaskRef, lock::SpinLock};
use mm::{AddressSpace, Denial};

pub use block_on::{Killed, block_on, killed, try_block_on};
pub use exit::{EndReason, Raised};
pub(crate) use run::serve_fault_at_once;
pub use spawn::{SpawnError, ThreadHandle, spawn, spawn_here, spawn_user};

use crate::arch::{context::Context, fpu::FpuState};

/// Names a thread for as long as the machine runs; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId(u32);

impl ThreadId {
    /// The number.
    pub fn as_u64(self) -> u64 {
        self.0.into()
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

type Entry = Box<dyn FnMut() + Send>;

/// A thread of ring 0 or ring 3.
pub struct Thread {
    id: ThreadId,
    name: &'static str,
    /// Touched by `enter` while the thread runs, by the thread's future between.
    context: UnsafeCell<Context>,
    /// Touched by `enter` only.
    fpu: UnsafeCell<Option<Box<FpuState>>>,
    /// The lower half, for threads of ring 3 and for those of the kernel that were given one.
    space: Option<Arc<AddressSpace>>,
    /// What a kernel thread runs. It stays here, so that what it captured is given back also when the
    /// thread is ended in the middle. Reached without a lock, which would make three pages of every stack
    /// present.
    entry: UnsafeCell<Option<Entry>>,
    /// Whether the thread was entered already.
    begun: AtomicBool,
    /// Why the last guarded copy was refused. Written by the thread's future, read by the thread.
    refused: UnsafeCell<Option<Refusal>>,
    task: OnceCell<TaskRef>,
    kill: AtomicBool,
    /// Whether that is for want of memory. Set before `kill`.
    gives_way: AtomicBool,
    counters: Counters,
}

// SAFETY: the cells are touched by the thread's own future alone (see the fields), which runs on one CPU at
// a time; everything else is shared by its own rules.
unsafe impl Sync for Thread {}
// SAFETY: as above; nothing in a thread is bound to a CPU.
unsafe impl Send for Thread {}

/// Why a guarded copy of a thread fails: it is to end, or the access was denied.
pub(crate) type Refusal = Result<Killed, Denial>;

#[derive(Default)]
struct Counters {
    faults: AtomicU32,
    parks: AtomicU32,
    parked_ns: AtomicU64,
}

/// What a thread has been through.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadStats {
    /// Page faults.
    pub faults: u32,
    /// How often it was parked in one.
    pub parks: u32,
    /// How long it was parked in them in all, in ns.
    pub parked_ns: u64,
}

static THREADS: SpinLock<BTreeMap<ThreadId, Weak<Thread>>> = SpinLock::new("threads", BTreeMap::new());

impl Thread {
    /// The thread's number.
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// The name that it was spawned with.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The task that runs it; `None` in the moment before it exists.
    pub fn task(&self) -> Option<&TaskRef> {
        self.task.get()
    }

    /// What it has been through so far.
    pub fn stats(&self) -> ThreadStats {
        ThreadStats {
            faults: self.counters.faults.load(Relaxed),
            parks: self.counters.parks.load(Relaxed),
            parked_ns: self.counters.parked_ns.load(Relaxed),
        }
    }

    /// Ends the thread: at once if it is parked in a fault on a plain slice of the window or runs in ring 3,
    /// else where it next says that it owns nothing (see the module's documentation). Not from interrupt
    /// handlers.
    pub fn kill(&self) {
        // Ordered against `run`, which makes the task known and then looks at the flag.
        self.kill.store(true, SeqCst);
        if let Some(task) = self.task() {
            task.wake();
        }
    }

    /// Ends the thread as [`kill`](Self::kill) does, because its space is to give its memory back.
    fn end_for_memory(&self) {
        self.gives_way.store(true, SeqCst);
        self.kill();
    }

    /// Why a thread ends that somebody ends.
    fn kill_reason(&self) -> EndReason {
        if self.gives_way.load(SeqCst) { EndReason::OutOfMemory } else { EndReason::Killed }
    }

    /// The address space of its lower half; few kernel threads have one.
    pub fn space(&self) -> Option<&Arc<AddressSpace>> {
        self.space.as_ref()
    }

    pub(crate) fn kill_requested(&self) -> bool {
        self.kill.load(SeqCst)
    }

    /// Why the guarded copy that this thread just made was refused. For the thread itself.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        // SAFETY: called by the thread while it runs; its future writes only while it does not.
        unsafe { (*self.refused.get()).take() }
    }

    /// Lets a guarded copy of this thread fail with `why`. For its future, while it does not run.
    fn refuse(&self, why: Refusal) {
        // SAFETY: the thread, the only other one to touch this, is not running.
        unsafe { *self.refused.get() = Some(why) }
    }

    /// Runs what the thread was spawned for. For the thread itself, once.
    fn run_entry(&self) {
        // SAFETY: the thread is the only one to touch this until it has ended.
        if let Some(entry) = unsafe { &mut *self.entry.get() } {
            entry();
        }
    }

    /// Gives back what the thread was spawned for, and with it what that captured. For its future, when the
    /// thread has ended.
    fn drop_entry(&self) {
        // SAFETY: the thread, the only other one to touch this, is not entered again.
        drop(unsafe { (*self.entry.get()).take() });
    }

    pub(crate) fn context_ptr(&self) -> *mut Context {
        self.context.get()
    }

    pub(crate) fn fpu_ptr(&self) -> *mut Option<Box<FpuState>> {
        self.fpu.get()
    }

    /// Number and arguments of the system call that the thread trapped with. For its future.
    pub(crate) fn syscall_arguments(&self) -> (u64, [u64; 6]) {
        self.with_context(|c| (c.rax, [c.rdi, c.rsi, c.rdx, c.r10, c.r8, c.r9]))
    }

    /// What the system call returns. For its future.
    pub(crate) fn set_syscall_result(&self, result: u64) {
        self.with_context(|context| context.rax = result);
    }

    /// The registers of a thread that is not running. For its own future only.
    fn with_context<R>(&self, f: impl FnOnce(&mut Context) -> R) -> R {
        // SAFETY: the thread's future is the only one to call this, and does so while the thread is not
        // running, so nobody else touches the registers.
        f(unsafe { &mut *self.context.get() })
    }
}

/// The thread that makes the call; `None` on the executor.
pub fn current() -> Option<&'static Thread> {
    // SAFETY: the pointer is that of the thread that `enter` runs on this CPU, which cannot end before this
    // code, which it runs, has returned.
    unsafe { crate::arch::cpu::current_thread().as_ref() }
}

/// The first threads that have not ended, by number, as many as fit into what `threads` has room for.
pub fn list(threads: &mut Vec<Arc<Thread>>) {
    let room = threads.capacity() - threads.len();
    threads.extend(THREADS.lock().values().filter_map(Weak::upgrade).take(room));
}

/// How many threads have not ended.
pub fn count() -> usize {
    THREADS.lock().len()
}

/// Visits all threads without waiting for a lock, for a panic's report; false when the list is locked.
pub(crate) fn try_visit(mut visit: impl FnMut(&Thread)) -> bool {
    let Some(threads) = THREADS.try_lock() else { return false };
    for thread in threads.values() {
        if let Some(thread) = thread.upgrade() {
            visit(&thread);
            // Being the last owner would mean to free, which a panic does not do.
            core::mem::forget(thread);
        }
    }
    true
}

/// Prepares the stacks. Once at boot.
pub(crate) fn init() {
    stack::init();
}
