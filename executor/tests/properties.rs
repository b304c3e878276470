//! The wait queue against a list, and the timers against an ordered map, in random programs with cancellations.
#![cfg(not(loom))]

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use executor::host::{run_until_idle, simulate_time};
use executor::time::{Duration, Instant, Sleep, now, sleep_until};
use executor::{Wait, WaitQueue, WaitReason};
use proptest::prelude::*;

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Notes which of many was woken, in order.
struct Noted(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[derive(Clone, Copy, Debug)]
enum QueueStep {
    Poll(usize),
    /// Joins the queue without a poll.
    Enable(usize),
    Drop(usize),
    WakeOne,
    WakeAll,
}

const WAITS: usize = 24;

fn queue_step() -> impl Strategy<Value = QueueStep> {
    prop_oneof![
        6 => (0..WAITS).prop_map(QueueStep::Poll),
        1 => (0..WAITS).prop_map(QueueStep::Enable),
        2 => (0..WAITS).prop_map(QueueStep::Drop),
        3 => Just(QueueStep::WakeOne),
        1 => Just(QueueStep::WakeAll),
    ]
}

/// What the model knows of a wait.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Idle,
    Waiting,
    WokenAlone,
    WokenWithAll,
}

struct Model {
    waiting: VecDeque<usize>,
    state: [Is; WAITS],
}

impl Model {
    fn wake_one(&mut self) -> Option<usize> {
        let first = self.waiting.pop_front()?;
        self.state[first] = Is::WokenAlone;
        Some(first)
    }
}

proptest! {
    #[test]
    fn a_wait_queue_is_a_list(steps in prop::collection::vec(queue_step(), 1..200)) {
        let queue = WaitQueue::new(WaitReason::Other);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wakers: Vec<_> = (0..WAITS).map(|i| Waker::from(Arc::new(Noted(i, Arc::clone(&woken))))).collect();
        let mut waits: Vec<Pin<Box<Wait<'_>>>> = (0..WAITS).map(|_| Box::pin(queue.wait())).collect();
        let mut model = Model { waiting: VecDeque::new(), state: [Is::Idle; WAITS] };
        for step in steps {
            let mut expected = Vec::new();
            match step {
                QueueStep::Poll(i) => {
                    let ready = waits[i].as_mut().poll(&mut Context::from_waker(&wakers[i])).is_ready();
                    prop_assert_eq!(ready, matches!(model.state[i], Is::WokenAlone | Is::WokenWithAll));
                    if model.state[i] == Is::Idle {
                        model.waiting.push_back(i);
                    }
                    if model.state[i] != Is::Waiting {
                        model.state[i] = if ready { Is::Idle } else { Is::Waiting };
                    }
                }
                QueueStep::Enable(i) => {
                    let over = waits[i].as_mut().enable(&wakers[i]);
                    prop_assert_eq!(over, matches!(model.state[i], Is::WokenAlone | Is::WokenWithAll));
                    if model.state[i] == Is::Idle {
                        model.waiting.push_back(i);
                        model.state[i] = Is::Waiting;
                    }
                }
                QueueStep::Drop(i) => {
                    waits[i] = Box::pin(queue.wait());
                    model.waiting.retain(|waiting| *waiting != i);
                    if std::mem::replace(&mut model.state[i], Is::Idle) == Is::WokenAlone {
                        expected.extend(model.wake_one());
                    }
                }
                QueueStep::WakeOne => {
                    expected.extend(model.wake_one());
                    prop_assert_eq!(queue.wake_one(), !expected.is_empty());
                }
                QueueStep::WakeAll => {
                    prop_assert_eq!(queue.wake_all(), model.waiting.len());
                    expected.extend(model.waiting.drain(..));
                    for i in &expected {
                        model.state[*i] = Is::WokenWithAll;
                    }
                }
            }
            prop_assert_eq!(std::mem::take(&mut *woken.lock().unwrap()), expected);
            prop_assert_eq!(queue.len(), model.waiting.len());
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum TimerStep {
    /// A new sleep so many nanoseconds from now.
    Sleep(u64),
    /// Drops the sleep that is this far in the list.
    Drop(usize),
    /// Moves the deadline of the one that is this far in the list to so many nanoseconds from now.
    Reset(usize, u64),
    /// Polls it again, with another waker.
    Poll(usize),
    /// Moves the clock.
    Advance(u64),
    /// Moves the clock to the next deadline, or just before it.
    ToNext(bool),
}

/// Delays of every size, so that every level of the wheel is met.
fn delay() -> impl Strategy<Value = u64> {
    (0..63_u32, any::<u64>()).prop_map(|(bits, random)| random >> (63 - bits))
}

fn timer_step() -> impl Strategy<Value = TimerStep> {
    prop_oneof![
        5 => delay().prop_map(TimerStep::Sleep),
        2 => (0..64_usize).prop_map(TimerStep::Drop),
        1 => (0..64_usize, delay()).prop_map(|(at, delay)| TimerStep::Reset(at, delay)),
        1 => (0..64_usize).prop_map(TimerStep::Poll),
        2 => (0..50_u32, any::<u64>()).prop_map(|(bits, random)| TimerStep::Advance(random >> (63 - bits))),
        3 => any::<bool>().prop_map(TimerStep::ToNext),
    ]
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    woken: Arc<Counter>,
}

impl Timer {
    /// Polls it with a waker of its own; none if it is over.
    fn start(mut sleep: Pin<Box<Sleep>>) -> Option<Self> {
        let woken = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&woken));
        let over = sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        assert_eq!(over, sleep.deadline() <= now());
        (!over).then_some(Timer { sleep, woken })
    }
}

/// Where the clock begins: at the boot, somewhere, or just before it ends.
fn beginning() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>(), (0..50_u32).prop_map(|bits| u64::MAX - (1 << bits))]
}

fn run_timers(beginning: u64, steps: &[TimerStep]) {
    let clock = simulate_time();
    // The clock never reaches the end of time.
    let advance = |by: u64| clock.advance(Duration::from_nanos(by.min(u64::MAX - 1 - now().as_nanos())));
    advance(beginning);
    let mut timers: BTreeMap<(Instant, usize), Timer> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        match *step {
            TimerStep::Sleep(delay) => {
                let deadline = now() + Duration::from_nanos(delay);
                if let Some(timer) = Timer::start(Box::pin(sleep_until(deadline))) {
                    timers.insert((deadline, number), timer);
                }
            }
            TimerStep::Drop(at) => {
                if let Some(key) = timers.keys().nth(at).copied() {
                    timers.remove(&key);
                }
            }
            TimerStep::Reset(at, delay) => {
                if let Some(key) = timers.keys().nth(at).copied()
                    && let Some(mut timer) = timers.remove(&key)
                {
                    let deadline = now() + Duration::from_nanos(delay);
                    timer.sleep.as_mut().reset(deadline);
                    if let Some(timer) = Timer::start(timer.sleep) {
                        timers.insert((deadline, number), timer);
                    }
                }
            }
            TimerStep::Poll(at) => {
                if let Some(key) = timers.keys().nth(at).copied()
                    && let Some(timer) = timers.remove(&key)
                {
                    timers.extend(Timer::start(timer.sleep).map(|timer| (key, timer)));
                }
            }
            TimerStep::Advance(by) => advance(by),
            TimerStep::ToNext(exactly) => {
                if let Some((deadline, _)) = timers.keys().next() {
                    let left = (*deadline - now()).as_nanos() as u64;
                    advance(if exactly { left } else { left - 1 });
                }
            }
        }
        run_until_idle();
        let later = timers.split_off(&(Instant::from_nanos(now().as_nanos().saturating_add(1)), 0));
        for ((deadline, _), mut timer) in std::mem::replace(&mut timers, later) {
            assert_eq!(timer.woken.0.load(Ordering::Relaxed), 1, "due at {deadline:?}, now {:?}", now());
            assert!(timer.sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        for (key, timer) in &timers {
            assert_eq!(timer.woken.0.load(Ordering::Relaxed), 0, "{key:?} is early, now {:?}", now());
        }
    }
}

proptest! {
    #[test]
    fn timers_are_an_ordered_map(
        beginning in beginning(),
        steps in prop::collection::vec(timer_step(), 1..150),
    ) {
        // A thread is a CPU with a wheel of its own, whose time begins at zero.
        let run = std::thread::spawn(move || run_timers(beginning, &steps));
        prop_assert!(run.join().is_ok());
    }
}
