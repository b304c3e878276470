//! The host of loom's models: every loom thread is a CPU for one run of a model.
#![allow(unsafe_code, reason = "a model's CPUs are freed at its end")]

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::vec::Vec;

use crate::atomic::{Ordering, fence};
use crate::cpu::CpuLocal;
use crate::platform::{Platform, alarm_fired};
use crate::run::RunLoop;
#[cfg(not(shuttle))]
use loom::sync::Notify;

// All loom threads of a model run on the one thread of its test.
std::thread_local! {
    /// Task cells that are allocated.
    static CELLS: Cell<isize> = const { Cell::new(0) };
    /// The CPUs of the run, newest first.
    static CPUS: RefCell<Vec<&'static CpuLocal>> = const { RefCell::new(Vec::new()) };
    /// The number of the next CPU of the run.
    static NEXT: Cell<u32> = const { Cell::new(0) };
    /// The clock of all CPUs.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// The CPU of a loom thread. Only the first thread's ends with it: the others' are [`bury`]'s, as who walks the
/// list of CPUs or wakes a task there believes that CPUs are for ever.
struct Owned(*mut CpuLocal);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: alive.
        if unsafe { (*self.0).id() } == 0 {
            free(self.0);
        }
    }
}

fn free(cpu: *mut CpuLocal) {
    CPUS.with_borrow_mut(|cpus| cpus.retain(|other| !core::ptr::eq(*other, cpu)));
    // SAFETY: made by `Box::into_raw`, and nobody finds it any more.
    drop(unsafe { Box::from_raw(cpu) });
}

/// At the end of a run, when all other threads are joined: frees their CPUs, and the tasks that died on them.
pub fn bury() {
    for cpu in list::all().filter(|cpu| cpu.id() != 0) {
        crate::task::end::reap(cpu);
        free(core::ptr::from_ref(cpu).cast_mut());
    }
}

loom::thread_local! {
    static LOCAL: Owned = {
        if CPUS.with_borrow(Vec::is_empty) {
            NEXT.set(0);
        }
        // Counted at once: another CPU may be made before this one is in the list.
        let id = NEXT.replace(NEXT.get() + 1);
        let local = Box::into_raw(Box::new(CpuLocal::new(id)));
        // SAFETY: freed by `Owned`, after its last use.
        unsafe {
            (*local).sleeping.store(true, Ordering::Relaxed);
            (*local).bind();
        }
        Owned(local)
    };
}

/// The list of CPUs, in place of the one that never forgets any.
pub(crate) mod list {
    use super::{CPUS, CpuLocal};
    use loom::sync::atomic::{AtomicUsize, Ordering};

    loom::lazy_static! {
        /// Loom does not see the list: this stands for its release and acquire.
        static ref ENTERED: AtomicUsize = AtomicUsize::new(0);
    }

    pub(crate) fn enter(cpu: &'static CpuLocal, _this: *mut CpuLocal) {
        ENTERED.fetch_add(1, Ordering::Release);
        CPUS.with_borrow_mut(|cpus| cpus.insert(0, cpu));
    }

    pub(crate) fn all() -> impl Iterator<Item = &'static CpuLocal> {
        let cpus = CPUS.with_borrow(Clone::clone);
        ENTERED.fetch_add(0, Ordering::Acquire);
        cpus.into_iter()
    }
}

/// Runs `f` with this CPU awake.
fn awake<R>(f: impl FnOnce() -> R) -> R {
    let cpu = local();
    cpu.sleeping.store(false, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    // As at the end of `idle`.
    cpu.owes_look.store(true, Ordering::Relaxed);
    let result = f();
    cpu.sleeping.store(true, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    crate::grace::pass(cpu);
    result
}

pub(crate) fn local() -> &'static CpuLocal {
    // SAFETY: alive until the end of this loom thread.
    LOCAL.with(|local| unsafe { &*local.0 })
}

pub(crate) fn count_cell(by: isize) {
    CELLS.set(CELLS.get() + by);
}

/// How many tasks' memory is not freed.
pub fn cells() -> isize {
    CELLS.get()
}

/// In place of loom's, which shuttle has not.
#[cfg(shuttle)]
struct Notify {
    notified: loom::sync::Mutex<bool>,
    wakes: loom::sync::Condvar,
}

#[cfg(shuttle)]
impl Notify {
    fn new() -> Self {
        Notify { notified: loom::sync::Mutex::new(false), wakes: loom::sync::Condvar::new() }
    }

    fn notify(&self) {
        if let Ok(mut notified) = self.notified.lock() {
            *notified = true;
        }
        self.wakes.notify_one();
    }

    fn wait(&self) {
        if let Ok(notified) = self.notified.lock()
            && let Ok(mut notified) = self.wakes.wait_while(notified, |notified| !*notified)
        {
            *notified = false;
        }
    }
}

/// A CPU that sleeps on loom's own notification.
pub(crate) struct HostPlatform {
    kicked: Notify,
    /// An alarm is set. It comes at once.
    alarm: core::sync::atomic::AtomicBool,
}

impl HostPlatform {
    pub(crate) fn new() -> Self {
        HostPlatform { kicked: Notify::new(), alarm: core::sync::atomic::AtomicBool::new(false) }
    }

    pub(crate) fn kick_this(&self) {
        self.kicked.notify();
    }
}

impl Platform for HostPlatform {
    fn now(&self) -> u64 {
        CLOCK.get()
    }

    fn set_alarm(&self, deadline: u64) {
        self.alarm.store(deadline != u64::MAX, Ordering::Relaxed);
    }

    fn kick(&self, _cpu: u32) {
        self.kick_this();
    }

    fn idle(&self) {
        if self.alarm.swap(false, Ordering::Relaxed) {
            alarm_fired();
            // For whoever it is that the CPU does not wait for, but looks at.
            loom::thread::yield_now();
        } else {
            self.kicked.wait();
        }
    }
}

/// Sets the clock of all CPUs, and says to this one that its alarm came.
pub fn set_clock(nanos: u64) {
    CLOCK.set(nanos);
    alarm_fired();
}

/// Runs this CPU until `done`, stealing and idling where nothing is ready; then tells the others to look, too.
pub fn run_until(mut done: impl FnMut() -> bool) {
    awake(|| {
        while !done() {
            if !crate::poll_one() {
                RunLoop::new().steal_or_idle();
                // Perhaps it did not idle, because another CPU has something to steal: that one must go on.
                loom::thread::yield_now();
            }
        }
    });
    for cpu in list::all() {
        cpu.host.kick_this();
    }
}

/// Runs what is ready, then frees what is dead.
pub fn run_ready() {
    awake(|| while crate::poll_one() {});
    crate::task::end::reap(local());
}
