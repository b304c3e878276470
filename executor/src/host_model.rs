//! The host of loom's models: every loom thread is a CPU for one run of a model.
#![allow(unsafe_code, reason = "a model's CPUs are freed at its end")]

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::vec::Vec;

use loom::sync::Notify;

use crate::atomic::{Ordering, fence};
use crate::cpu::CpuLocal;
use crate::platform::{Platform, alarm_fired};

// All loom threads of a model run on the one thread of its test.
std::thread_local! {
    /// Task cells that are allocated.
    static CELLS: Cell<isize> = const { Cell::new(0) };
    /// The CPUs of the run, newest first.
    static CPUS: RefCell<Vec<&'static CpuLocal>> = const { RefCell::new(Vec::new()) };
    /// The clock of all CPUs.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

struct Owned(*mut CpuLocal);

impl Drop for Owned {
    fn drop(&mut self) {
        CPUS.with_borrow_mut(|cpus| cpus.retain(|cpu| !core::ptr::eq(*cpu, self.0)));
        // SAFETY: made by `Box::into_raw`; models join their threads before the CPU that they wake goes.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

loom::thread_local! {
    static LOCAL: Owned = {
        let id = CPUS.with_borrow(|cpus| cpus.first().map_or(0, |cpu| cpu.id() + 1));
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

    pub(crate) fn enter(cpu: &'static CpuLocal, _this: *mut CpuLocal) {
        CPUS.with_borrow_mut(|cpus| cpus.insert(0, cpu));
    }

    pub(crate) fn all() -> impl Iterator<Item = &'static CpuLocal> {
        CPUS.with_borrow(Clone::clone).into_iter()
    }
}

/// Runs `f` with this CPU awake.
fn awake<R>(f: impl FnOnce() -> R) -> R {
    let cpu = local();
    cpu.sleeping.store(false, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let result = f();
    cpu.sleeping.store(true, Ordering::SeqCst);
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

/// A CPU that sleeps on loom's own notification.
pub(crate) struct HostPlatform {
    kicked: Notify,
}

impl HostPlatform {
    pub(crate) fn new() -> Self {
        HostPlatform { kicked: Notify::new() }
    }

    pub(crate) fn kick_this(&self) {
        self.kicked.notify();
    }

    #[allow(clippy::unused_self, reason = "the real host needs it")]
    pub(crate) fn check_alarm(&self) {}
}

impl Platform for HostPlatform {
    fn now(&self) -> u64 {
        CLOCK.get()
    }

    fn set_alarm(&self, _deadline: u64) {}

    fn kick(&self, _cpu: u32) {
        self.kick_this();
    }

    fn idle(&self) {
        self.kicked.wait();
    }
}

/// Sets the clock of all CPUs, and says to this one that its alarm came.
pub fn set_clock(nanos: u64) {
    CLOCK.set(nanos);
    alarm_fired();
}

/// Runs this CPU until `done`, idling where nothing is ready.
pub fn run_until(mut done: impl FnMut() -> bool) {
    awake(|| {
        while !done() {
            if !crate::poll_one() {
                crate::run::idle();
            }
        }
    });
}

/// Takes over half of what is ready on other CPUs, then runs what is ready. Returns the number of polls.
pub fn steal_and_run() -> usize {
    awake(|| {
        let mut polls = 0;
        while crate::poll_one() || crate::run::steal() {
            polls += 1;
        }
        polls
    })
}

/// Runs what is ready, then frees what is dead.
pub fn run_ready() {
    awake(|| while crate::poll_one() {});
    crate::run::reap(local());
}
