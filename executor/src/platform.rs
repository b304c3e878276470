//! What the executor needs from the machine.

use crate::arch;
use crate::task::TaskRef;

use core::sync::atomic::Ordering;
#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicBool, AtomicPtr};

/// Polls of tasks that take longer than this, in nanoseconds, are noted with the name of the task
/// ([`TaskRef::longest_poll_ns`]).
pub const LONG_NS: u64 = 100_000;

/// A task that polls for longer than this, in nanoseconds, is reported by [`Platform::hogged`].
pub const HOG_NS: u64 = 10_000_000;

/// Clock, alarm, idle state and the interrupt between CPUs.
pub trait Platform: Sync {
    /// Nanoseconds since boot; never goes back. Called in any context.
    fn now(&self) -> u64;

    /// This CPU: call [`alarm_fired`] at or after `deadline` (nanoseconds since boot; `u64::MAX`: no alarm is
    /// needed). Replaces the alarm set before. Called often, with interrupts off.
    fn set_alarm(&self, deadline: u64);

    /// Makes that CPU leave [`idle`](Platform::idle). Called in any context, also from interrupt handlers.
    fn kick(&self, cpu: u32);

    /// Called with interrupts off after the last look at the queues: enables them and halts as one step, and
    /// returns with interrupts on after some interrupt.
    fn idle(&self);

    /// This CPU is about to count as idle, and then holds up no grace period: what the CPU might use by itself
    /// (the address space that is loaded) is to be let go of here. Interrupts are off.
    fn before_idle(&self) {}

    /// A grace period is asked for, and this CPU is between two polls: whatever it believes beyond that (its TLB,
    /// the address space that is loaded) is to be forgotten here. Interrupts are on.
    fn quiesce(&self) {}

    /// A task's poll, not a thread's, took longer than [`HOG_NS`]: nothing else could run on this CPU. Called by
    /// the run loop after the poll.
    fn hogged(&self, _task: &TaskRef, _nanos: u64) {}
}

#[cfg(target_os = "none")]
mod installed {
    //! The one platform of the bare machine.
    use super::{AtomicBool, AtomicPtr, Ordering, Platform};

    static TAKEN: AtomicBool = AtomicBool::new(false);
    static PLATFORM: AtomicPtr<&'static dyn Platform> = AtomicPtr::new(core::ptr::null_mut());

    pub(super) fn install(platform: &'static dyn Platform) {
        assert!(!TAKEN.swap(true, Ordering::Relaxed), "the executor's platform is set once");
        let platform = alloc::boxed::Box::leak(alloc::boxed::Box::new(platform));
        PLATFORM.store(platform, Ordering::Release);
    }

    #[inline]
    #[allow(unsafe_code, reason = "a pointer that is written once")]
    pub(crate) fn platform() -> &'static dyn Platform {
        let platform = PLATFORM.load(Ordering::Acquire);
        assert!(!platform.is_null(), "executor::init comes before tasks, clocks and timers");
        // SAFETY: not null, so it is the leaked box that `install` stored.
        unsafe { *platform }
    }
}

#[cfg(target_os = "none")]
pub(crate) use installed::platform;

#[cfg(not(target_os = "none"))]
pub(crate) fn platform() -> &'static dyn Platform {
    &arch::local().host
}

/// Names the platform; once, at boot, after the heap is there and before anything of this crate but locks.
///
/// On the host every thread is a CPU with a platform of its own from the start, and this is not needed: see
/// [`crate::host`].
#[cfg(target_os = "none")]
pub fn init(platform: &'static dyn Platform) {
    installed::install(platform);
}

/// The alarm that [`Platform::set_alarm`] asked for has come. For the timer interrupt's handler: it sets a flag
/// of this CPU only; the run loop does the rest.
pub fn alarm_fired() {
    let cpu = arch::local();
    cpu.alarm.store(true, Ordering::Release);
    cpu.call_attention();
}
