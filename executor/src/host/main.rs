//! The future that a thread blocks on, which is no task.
#![allow(unsafe_code, reason = "a waker is a pointer and a table")]

use core::sync::atomic::Ordering;
use core::task::{RawWaker, RawWakerVTable, Waker};

use crate::cpu::CpuLocal;

/// The future's wake flag is its CPU's, and CPUs are for ever: so its wakers count no references. One that outlives
/// its `block_on` wakes a later one in vain.
pub(super) struct Main(&'static CpuLocal);

impl Main {
    /// The future was not polled yet.
    pub(super) fn begin(cpu: &'static CpuLocal) -> Self {
        cpu.host.main_woken.store(true, Ordering::Relaxed);
        Main(cpu)
    }

    pub(super) fn waker(&self) -> Waker {
        // SAFETY: the functions of the table take a `CpuLocal` that is never freed, and may be called anywhere.
        unsafe { Waker::from_raw(raw(core::ptr::from_ref(self.0).cast())) }
    }

    #[inline]
    pub(super) fn is_woken(&self) -> bool {
        self.0.host.main_woken.load(Ordering::Acquire)
    }

    /// Whether it was woken, once for each time.
    #[inline]
    pub(super) fn was_woken(&self) -> bool {
        self.is_woken() && self.0.host.main_woken.swap(false, Ordering::Acquire)
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        // Should another future be blocked on around this one, it may have missed a wake.
        self.0.host.main_woken.store(true, Ordering::Relaxed);
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| {});

fn raw(cpu: *const ()) -> RawWaker {
    RawWaker::new(cpu, &VTABLE)
}

unsafe fn wake(cpu: *const ()) {
    // SAFETY: `Main::waker` put it there.
    let cpu: &'static CpuLocal = unsafe { &*cpu.cast() };
    cpu.host.main_woken.store(true, Ordering::Release);
    // Whoever runs on that thread comes back to where it looks before it sleeps.
    if !core::ptr::eq(cpu, super::local()) {
        cpu.host.kick_this();
    }
}
