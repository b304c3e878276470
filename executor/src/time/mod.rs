//! Time: instants, sleeps, timeouts. Timers are never early.
#![allow(unsafe_code, reason = "a sleep is linked into its CPU's wheel")]

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll, Waker};
pub use core::time::Duration;

mod interval;
pub(crate) mod wheel;

use crate::cpu::CpuLocal;
use crate::lock::{SpinGuard, lock_own};
use crate::platform::platform;
use crate::reason::{WaitReason, waits_for, waits_for_on};
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
use wheel::{BATCH, Entry};

/// A point in time: nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The end of time, which no timer reaches.
    pub const FOREVER: Instant = Instant(u64::MAX);

    /// Now. May be called from an interrupt handler.
    pub fn now() -> Self {
        now()
    }

    /// So many nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier`; zero if it is not after it.
    pub const fn duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long ago; zero if it is in the future. May be called from an interrupt handler.
    pub fn elapsed(self) -> Duration {
        now().duration_since(self)
    }

    /// The instant so much later, or [`FOREVER`](Instant::FOREVER) where that cannot be counted.
    pub const fn saturating_add(self, duration: Duration) -> Instant {
        let nanos = duration.as_nanos();
        if nanos > u64::MAX as u128 {
            return Instant::FOREVER;
        }
        Instant(self.0.saturating_add(nanos as u64))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        self.saturating_add(duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

/// Now. May be called from an interrupt handler.
#[inline]
pub fn now() -> Instant {
    Instant(platform().now())
}

/// Waits for a time to pass ([`WaitReason::Timer`]): at least `duration` from now. Zero does not wait at all.
///
/// # Cancellation
/// Dropping it takes the timer out.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Waits until a point in time; does not wait for one in the past.
///
/// # Cancellation
/// Dropping it takes the timer out.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { wheel_of: None, entry: Entry::new(deadline.0) }
}

/// See [`sleep`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    /// The CPU whose wheel the entry was put into.
    wheel_of: Option<NonNull<CpuLocal>>,
    entry: Entry,
}

// SAFETY: the entry is touched under its wheel's lock only; CPUs are shared and never freed.
unsafe impl Send for Sleep {}
// SAFETY: as above.
unsafe impl Sync for Sleep {}

impl Sleep {
    /// When it is over.
    #[inline]
    pub fn deadline(&self) -> Instant {
        Instant(self.entry.deadline())
    }

    /// Whether the time has come.
    #[inline]
    pub fn is_elapsed(&self) -> bool {
        now() >= self.deadline()
    }

    /// Moves the deadline, also of a sleep that is over.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        // SAFETY: nothing is moved out; the entry stays where it is.
        let this = unsafe { self.get_unchecked_mut() };
        this.unlink();
        this.entry.set_deadline(deadline.0);
    }

    fn unlink(&mut self) {
        if let Some(cpu) = self.wheel_of.take() {
            // SAFETY: CPUs are never freed; the entry is in that CPU's wheel or in none.
            let waker = unsafe { cpu.as_ref().wheel.lock().remove(&raw const self.entry) };
            drop(waker);
        }
    }

    /// Puts it into this CPU's wheel, and notes what the task waits for.
    ///
    /// # Safety
    /// It is pinned, in no wheel, and has its waker.
    #[inline(never)]
    unsafe fn link(&mut self) {
        let mut wheel = lock_own(|cpu| &cpu.wheel);
        let cpu = SpinGuard::cpu(&wheel);
        self.wheel_of = Some(NonNull::from(cpu));
        waits_for_on(cpu, WaitReason::Timer);
        // SAFETY: the caller's promise; `drop` takes it out.
        if unsafe { wheel.insert(&raw const self.entry) } {
            set_alarm(self.entry.deadline());
        }
    }

    /// Changes the waker, and notes what the task waits for. Gives the waker back where the timer has fired.
    #[cold]
    #[inline(never)]
    fn renew(&self, cpu: NonNull<CpuLocal>, waker: Waker) -> Option<Waker> {
        // SAFETY: CPUs are never freed.
        let wheel = unsafe { &cpu.as_ref().wheel }.lock();
        if !self.entry.is_linked() {
            return Some(waker);
        }
        let old = self.entry.replace_waker(waker);
        drop(wheel);
        drop(old);
        waits_for(WaitReason::Timer);
        None
    }
}

#[cold]
fn set_alarm(deadline: u64) {
    platform().set_alarm(deadline);
}

impl Future for Sleep {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        if this.is_elapsed() {
            this.unlink();
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let waker = match this.wheel_of {
            None => Some(waker),
            Some(cpu) => this.renew(cpu, waker),
        };
        if let Some(waker) = waker {
            this.entry.set_waker(waker);
            // SAFETY: pinned, and in no wheel yet, or fired.
            unsafe { this.link() };
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.unlink();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleep(until {} ns)", self.entry.deadline())
    }
}

/// The time was over before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is over")
    }
}

impl core::error::Error for Elapsed {}

/// Waits for a future, but no longer than `duration`. A future that is ready at once wins over a time of zero.
///
/// # Errors
/// [`Elapsed`]; the future is dropped with the `Timeout`.
///
/// # Cancellation
/// Dropping it drops the future.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    timeout_at(now() + duration, future)
}

/// Waits for a future, but no longer than until `deadline`. A future that is ready at once wins over a deadline in
/// the past.
///
/// # Errors
/// [`Elapsed`]; the future is dropped with the `Timeout`.
///
/// # Cancellation
/// Dropping it drops the future.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep_until(deadline) }
}

/// See [`timeout`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Timeout<F> {
    future: F,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: both fields are pinned with the whole.
        let (future, sleep) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), Pin::new_unchecked(&mut this.sleep))
        };
        if let Poll::Ready(output) = future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.poll(context).map(|()| Err(Elapsed))
    }
}

/// Fires what is due on this CPU and sets the alarm anew. Only for the run loop.
pub(crate) fn advance(cpu: &'static CpuLocal) {
    let mut wakers = [const { None }; BATCH];
    let mut alarm_is_over = true;
    loop {
        let more = {
            let mut wheel = cpu.wheel.lock();
            if core::mem::take(&mut alarm_is_over) {
                wheel.alarm_is_over();
            }
            let now = platform().now();
            let more = wheel.advance(now, &mut wakers);
            if !more && let Some(deadline) = wheel.next_alarm() {
                platform().set_alarm(deadline);
            }
            more
        };
        for waker in &mut wakers {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
        if !more {
            return;
        }
    }
}
