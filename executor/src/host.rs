//! Running tasks on the host: every thread of the host process is a CPU of its own, with its own clock.
//!
//! [`block_on`] polls a future and, while it waits, everything that was spawned on this thread. With
//! [`simulate_time`] the thread's clock stands still while there is work, and jumps to the next timer when
//! there is none: tests with timers take no time and always run the same way. Without, it is the real clock.
//!
//! ```
//! use executor::time::{Duration, now, sleep};
//!
//! let clock = executor::host::simulate_time();
//! executor::host::block_on(async {
//!     let task = executor::spawn(async { sleep(Duration::from_secs(3600)).await; now() });
//!     assert_eq!(task.await.unwrap().as_nanos(), 3_600_000_000_000);
//! });
//! assert_eq!(clock.now().as_nanos(), 3_600_000_000_000);
//! ```

use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant as HostInstant};

use crate::cpu::CpuLocal;
use crate::platform::{Platform, alarm_fired, platform};
use crate::run::{idle, poll_one, reap};
use crate::time::Instant;

std::thread_local! {
    /// Never freed: wakers on other threads may still point to it.
    static LOCAL: &'static CpuLocal = {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let local = Box::leak(Box::new(CpuLocal::new(NEXT.fetch_add(1, Ordering::Relaxed) % 256)));
        local.bind();
        local
    };
}

use std::boxed::Box;

pub(crate) fn local() -> &'static CpuLocal {
    LOCAL.with(|local| *local)
}

/// A thread's clock, alarm and idle state.
pub(crate) struct HostPlatform {
    kicked: Mutex<bool>,
    wakes: Condvar,
    alarm: AtomicU64,
    simulated: AtomicBool,
    /// The simulated clock.
    clock: AtomicU64,
}

impl HostPlatform {
    pub(crate) const fn new() -> Self {
        HostPlatform {
            kicked: Mutex::new(false),
            wakes: Condvar::new(),
            alarm: AtomicU64::new(u64::MAX),
            simulated: AtomicBool::new(false),
            clock: AtomicU64::new(0),
        }
    }

    pub(crate) fn kick_this(&self) {
        *self.kicked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakes.notify_one();
    }

    /// Stands for the timer interrupt.
    pub(crate) fn check_alarm(&self) {
        if self.alarm.load(Ordering::Relaxed) <= self.now() {
            self.alarm.store(u64::MAX, Ordering::Relaxed);
            alarm_fired();
        }
    }

    fn idle_simulated(&self) {
        let alarm = self.alarm.load(Ordering::Relaxed);
        let mut kicked = self.kicked.lock().unwrap_or_else(PoisonError::into_inner);
        if !core::mem::take(&mut *kicked) {
            assert!(alarm != u64::MAX, "everything waits, and no timer is set");
            self.clock.fetch_max(alarm, Ordering::Relaxed);
        }
    }

    fn idle_real(&self) {
        let mut kicked = self.kicked.lock().unwrap_or_else(PoisonError::into_inner);
        while !core::mem::take(&mut *kicked) {
            let left = self.alarm.load(Ordering::Relaxed).saturating_sub(self.now());
            if left == 0 {
                break;
            }
            let left = Duration::from_nanos(left);
            kicked = self.wakes.wait_timeout(kicked, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Platform for HostPlatform {
    fn now(&self) -> u64 {
        static START: std::sync::OnceLock<HostInstant> = std::sync::OnceLock::new();
        if self.simulated.load(Ordering::Relaxed) {
            return self.clock.load(Ordering::Relaxed);
        }
        let since = START.get_or_init(HostInstant::now).elapsed();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn set_alarm(&self, deadline: u64) {
        self.alarm.store(deadline, Ordering::Relaxed);
    }

    fn kick(&self, _cpu: u32) {
        self.kick_this();
    }

    fn idle(&self) {
        if self.simulated.load(Ordering::Relaxed) {
            self.idle_simulated();
        } else {
            self.idle_real();
        }
        self.check_alarm();
    }
}

/// Moves this thread's simulated clock by hand.
#[derive(Clone, Debug)]
pub struct Clock {
    // A clock belongs to the thread that made it.
    not_send: core::marker::PhantomData<*mut ()>,
}

/// Gives this thread a simulated clock that starts at zero; from then on [`block_on`] jumps from timer to timer.
///
/// Call it before the thread's first timer. While the clock is simulated, `block_on` panics where everything
/// waits and no timer is set, instead of hanging.
pub fn simulate_time() -> Clock {
    let host = &local().host;
    host.simulated.store(true, Ordering::Relaxed);
    host.clock.store(0, Ordering::Relaxed);
    Clock { not_send: core::marker::PhantomData }
}

impl Clock {
    /// What the clock shows.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(platform().now())
    }

    /// Moves the clock. Timers that are due fire at the next step of the run loop.
    pub fn advance(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let clock = &local().host.clock;
        clock.store(clock.load(Ordering::Relaxed).saturating_add(nanos), Ordering::Relaxed);
    }
}

/// Runs everything that is ready on this thread until nothing is, without waiting. Returns the number of polls.
///
/// # Panics
/// After ten million polls: then a task wakes itself for ever.
pub fn run_until_idle() -> usize {
    let mut polls = 0;
    while poll_one() {
        polls += 1;
        assert!(polls < 10_000_000, "a task wakes itself for ever");
    }
    reap(local());
    polls
}

struct Flag {
    woken: AtomicBool,
    cpu: &'static CpuLocal,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.cpu.host.kick_this();
    }
}

/// Polls a future on this thread until it is done, running the thread's tasks while it waits.
///
/// The future may borrow and need not be `Send`. Tasks that are still there afterwards stay, and go on in the
/// next `block_on` or [`run_until_idle`].
///
/// # Panics
/// Inside a task; and with simulated time, when everything waits for ever.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let cpu = local();
    let flag = Arc::new(Flag { woken: AtomicBool::new(true), cpu });
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        if flag.woken.swap(false, Ordering::Acquire)
            && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            reap(cpu);
            return output;
        }
        if !poll_one() && !flag.woken.load(Ordering::Acquire) {
            idle();
        }
    }
}
