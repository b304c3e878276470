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
use core::task::{Context, Poll};
use std::boxed::Box;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::vec::Vec;

use crate::atomic::fence_after_update;
use crate::cpu::{CpuLocal, MAX_CPUS};
use crate::grace;
use crate::platform::{Platform, alarm_fired, platform};
use crate::run::{RunLoop, Until};
use crate::run_queue::HAND;
use crate::task::end::reap;
use crate::time::Instant;
use crate::time::wheel::Wheel;

mod clock;
mod main;

use clock::Rate;
use main::Main;

/// How many tasks are polled between two looks at what else is due.
const MOST_AT_ONCE: usize = HAND + 1;

std::thread_local! {
    static LOCAL: &'static CpuLocal = new_local();
    static RETURN: Return = const { Return };
}

/// CPUs of threads that are over. They are never freed, as wakers on other threads may still point to them.
static UNUSED: Mutex<Vec<&'static CpuLocal>> = Mutex::new(Vec::new());

/// Gives the thread's CPU to a later thread, when all numbers are used up, unless tasks or timers were left on it.
struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let cpu = local();
        let mut wheel = cpu.wheel.lock();
        if wheel.is_empty() && cpu.registry.live() == 0 {
            // The next thread's clock may begin at zero.
            *wheel = Wheel::new();
            drop(wheel);
            cpu.host.reset();
            leave_machine(cpu);
            UNUSED.lock().unwrap_or_else(PoisonError::into_inner).push(cpu);
        }
    }
}

fn new_local() -> &'static CpuLocal {
    // From here on the end of the thread gives it back. It may be at its end already.
    let _ = RETURN.try_with(|_| ());
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    // Used CPUs are as good as new ones, but not quite the same: the order in which they number tasks differs.
    if id >= MAX_CPUS
        && let Some(unused) = UNUSED.lock().unwrap_or_else(PoisonError::into_inner).pop()
    {
        return unused;
    }
    let local: &CpuLocal = Box::leak(Box::new(CpuLocal::new(id)));
    local.sleeping.store(true, Ordering::Relaxed);
    leave_machine(local);
    local.bind();
    local
}

/// Each thread is a machine of its own, unless it is started as part of another.
fn leave_machine(cpu: &CpuLocal) {
    cpu.machine.store(cpu.id() + 1, Ordering::Relaxed);
}

pub(crate) fn local() -> &'static CpuLocal {
    LOCAL.with(|local| *local)
}

/// The thread runs its CPU's loop: until this is dropped it does not count as idle.
struct Awake {
    cpu: &'static CpuLocal,
    before: bool,
}

impl Awake {
    fn new() -> Self {
        let cpu = local();
        let before = cpu.sleeping.swap(false, Ordering::Relaxed);
        fence_after_update();
        // As at the end of `idle`.
        cpu.owes_look.store(true, Ordering::Relaxed);
        Awake { cpu, before }
    }
}

/// The thread's CPU is one of that machine until this is dropped: before the thread's own destructors run, as who waits
/// for the end of a scope does not wait for those.
struct Member(&'static CpuLocal);

impl Member {
    fn new(machine: u32) -> Self {
        let cpu = local();
        cpu.machine.store(machine, Ordering::Relaxed);
        // As in `CpuLocal::bind`.
        cpu.call_attention();
        fence(Ordering::SeqCst);
        Member(cpu)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        leave_machine(self.0);
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.cpu.sleeping.swap(self.before, Ordering::AcqRel);
        fence_after_update();
        // It is set behind both of these. The alarm is for the next run loop, which finds it set still.
        if self.cpu.attention.load(Ordering::Relaxed) {
            // There may be no next one.
            reap(self.cpu);
            // Who saw the CPU awake before waits for this.
            grace::pass(self.cpu);
        }
    }
}

/// A thread's clock, alarm and idle state.
pub(crate) struct HostPlatform {
    kicked: Mutex<bool>,
    wakes: Condvar,
    alarm: AtomicU64,
    rate: Rate,
    simulated: AtomicBool,
    /// The simulated clock.
    clock: AtomicU64,
    /// The future that is blocked on was woken.
    main_woken: AtomicBool,
}

impl HostPlatform {
    pub(crate) const fn new() -> Self {
        HostPlatform {
            kicked: Mutex::new(false),
            wakes: Condvar::new(),
            alarm: AtomicU64::new(u64::MAX),
            rate: Rate::unknown(),
            simulated: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            main_woken: AtomicBool::new(false),
        }
    }

    /// As it was made.
    fn reset(&self) {
        self.simulated.store(false, Ordering::Relaxed);
        self.alarm.store(u64::MAX, Ordering::Relaxed);
        *self.kicked.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    pub(crate) fn kick_this(&self) {
        *self.kicked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakes.notify_one();
    }

    /// When the alarm is due.
    #[inline]
    pub(crate) fn alarm(&self) -> u64 {
        self.alarm.load(Ordering::Relaxed)
    }

    /// Stands for the timer interrupt.
    pub(crate) fn check_alarm(&self, now: u64) {
        if self.alarm.load(Ordering::Relaxed) <= now {
            self.alarm.store(u64::MAX, Ordering::Relaxed);
            alarm_fired();
        }
    }

    #[cold]
    fn now_slowly(&self) -> u64 {
        if self.simulated.load(Ordering::Relaxed) {
            self.clock.load(Ordering::Relaxed)
        } else {
            self.rate.learn()
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
    #[inline]
    fn now(&self) -> u64 {
        self.rate.now().unwrap_or_else(|| self.now_slowly())
    }

    fn set_alarm(&self, deadline: u64) {
        self.alarm.store(deadline, Ordering::Relaxed);
        // The run loop knows when the one before is due.
        local().call_attention();
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
        self.check_alarm(self.now());
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
    host.rate.forget();
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
    let awake = Awake::new();
    let mut polls = 0;
    let mut run_loop = RunLoop::on(awake.cpu);
    let until = run_loop.poll_until(MOST_AT_ONCE, |more| {
        polls += more;
        polls >= 10_000_000
    });
    assert!(until == Until::NothingReady, "a task wakes itself for ever");
    polls
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
    let awake = Awake::new();
    let cpu = awake.cpu;
    let mut run_loop = RunLoop::on(cpu);
    let main = Main::begin(cpu);
    let waker = main.waker();
    loop {
        if main.was_woken() {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            run_loop.look_at_clock();
        }
        // Before the future is polled again the CPU may have to pass a grace period, as between two tasks.
        let until = run_loop.poll_until(MOST_AT_ONCE, |_| main.is_woken());
        if until == Until::NothingReady && !main.is_woken() {
            run_loop.steal_or_idle();
        }
    }
}

/// As [`block_on`], while `cpus - 1` further threads run as CPUs of the same machine, which steal each other's
/// tasks. For tests of what happens on several CPUs at once; the clock is the real one.
///
/// Tasks that are not done when the future is are not run any more, and the further CPUs are not listed any more.
///
/// # Panics
/// With simulated time, and as [`block_on`].
pub fn block_on_cpus<F: Future>(cpus: u32, future: F) -> F::Output {
    /// Also when the future panics.
    struct Stop<'a>(&'a AtomicBool, Vec<&'static CpuLocal>);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            self.1.iter().for_each(|cpu| cpu.host.kick_this());
        }
    }
    let own = local();
    assert!(!own.host.simulated.load(Ordering::Relaxed), "several CPUs cannot share a simulated clock");
    let machine = own.machine.load(Ordering::Relaxed);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut others = Stop(&stop, Vec::new());
        for _ in 1..cpus {
            let (tell, told) = std::sync::mpsc::channel();
            let stop = &stop;
            scope.spawn(move || {
                let member = Member::new(machine);
                let _awake = Awake::new();
                let _ = tell.send(member.0);
                let mut run_loop = RunLoop::new();
                while !stop.load(Ordering::SeqCst) {
                    let until = run_loop.poll_until(MOST_AT_ONCE, |_| stop.load(Ordering::Relaxed));
                    if until == Until::NothingReady {
                        run_loop.steal_or_idle();
                    }
                }
            });
            others.1.extend(told.recv());
        }
        let output = block_on(future);
        drop(others);
        output
    })
}
