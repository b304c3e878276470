//! This project's executor.

use std::cell::LazyCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use executor::host::{self, Clock};
use executor::sync::{AtomicWaker, Mutex, mpsc};
use executor::time::{Duration, Instant, Sleep, now, sleep_until};
use executor::{JoinHandle, spawn, yield_now};

use crate::meter::Meter;
use crate::workload::{self, RIVALS, Runtime, STEP, Slot};
use crate::{Case, Who, Workload};

/// With the real clock, which every poll reads, or with one that stands `STILL`.
pub(crate) struct Ours<const STILL: bool> {
    _clock: Option<Clock>,
}

impl<const STILL: bool> Runtime for Ours<STILL> {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Slot = AtomicWaker;

    fn new() -> Self {
        Ours { _clock: STILL.then(host::simulate_time) }
    }

    fn block_on<F: Future>(&self, main: F) -> F::Output {
        host::block_on(main)
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn(future)
    }

    async fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.await.expect("nobody aborts it")
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }

    fn release_memory() {
        executor::release_kept_memory();
    }
}

impl Slot for AtomicWaker {
    fn register(&self, waker: &Waker) {
        AtomicWaker::register(self, waker);
    }

    fn wake(&self) {
        AtomicWaker::wake(self);
    }
}

fn ext_wake<const STILL: bool>(meter: &mut Meter, n: usize) {
    let _runtime = Ours::<STILL>::new();
    let drain = || {
        host::run_until_idle();
    };
    workload::wake_from_outside(meter, n, |task| drop(spawn(task())), drain);
}

fn mutex<const STILL: bool>(meter: &mut Meter, n: usize) {
    let runtime = Ours::<STILL>::new();
    let mutex = Mutex::new(0);
    meter.measure(|| {
        runtime.block_on(async {
            for i in 0..n {
                *mutex.lock().await += i;
            }
        });
    });
}

fn mutex_contended<const STILL: bool>(meter: &mut Meter, n: usize) {
    let mutex = Arc::new(Mutex::new(0));
    workload::crowd::<Ours<STILL>, _>(meter, RIVALS, || {
        let mutex = Arc::clone(&mutex);
        async move {
            for i in 0..n / RIVALS {
                let mut guard = mutex.lock().await;
                *guard += i;
                yield_now().await;
            }
        }
    });
}

fn channel<const STILL: bool>(meter: &mut Meter, n: usize) {
    let (sender, mut receiver) = mpsc::channel(64);
    let send = async move {
        for i in 0..n {
            sender.send(i).await.expect("the receiver is there");
        }
    };
    let receive = async move {
        let mut sum = 0;
        while let Some(i) = receiver.recv().await {
            sum += i;
        }
        assert_eq!(sum, n * (n - 1) / 2);
    };
    workload::pair::<Ours<STILL>, _, _>(meter, send, receive);
}

const TICK: u64 = 1_024;

type Sleeps = Vec<Pin<Box<Option<Sleep>>>>;

/// A clock that stands, and sleeps that were not polled yet.
fn sleeps(n: usize) -> (Clock, Sleeps) {
    thread_local! {
        // Once only: it would go back to zero, and the wheel never goes back.
        static CLOCK: LazyCell<Clock> = LazyCell::new(host::simulate_time);
    }
    let clock = CLOCK.with(|clock| Clock::clone(clock));
    let start = now().as_nanos();
    let sleeps = workload::deadlines(n)
        .map(|tick| Box::pin(Some(sleep_until(Instant::from_nanos(start + tick * TICK)))))
        .collect();
    (clock, sleeps)
}

fn insert(sleeps: &mut Sleeps) {
    let context = &mut Context::from_waker(Waker::noop());
    for sleep in sleeps {
        assert!(sleep.as_mut().as_pin_mut().expect("it is there").poll(context).is_pending());
    }
}

fn timer_insert(meter: &mut Meter, n: usize) {
    let (_clock, mut sleeps) = sleeps(n);
    meter.measure(|| insert(&mut sleeps));
}

fn timer_cancel(meter: &mut Meter, n: usize) {
    let (_clock, mut sleeps) = sleeps(n);
    insert(&mut sleeps);
    meter.measure(|| {
        for sleep in &mut sleeps {
            sleep.as_mut().set(None);
        }
    });
}

fn timer_fire(meter: &mut Meter, n: usize) {
    let (clock, mut sleeps) = sleeps(n);
    insert(&mut sleeps);
    meter.measure(|| {
        for _ in 0..workload::steps(n) {
            clock.advance(Duration::from_nanos(STEP as u64 * TICK));
            host::run_until_idle();
        }
    });
    let context = &mut Context::from_waker(Waker::noop());
    assert!(
        sleeps
            .iter_mut()
            .all(|sleep| { sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(context).is_ready()) })
    );
}

fn cases_with<const STILL: bool>(who: Who) -> impl Iterator<Item = Case> {
    [
        (Workload::SpawnSeq, workload::spawn_seq::<Ours<STILL>> as fn(&mut Meter, usize)),
        (Workload::SpawnBatch, workload::spawn_batch::<Ours<STILL>>),
        (Workload::PingPong, workload::pingpong::<Ours<STILL>>),
        (Workload::Yield, workload::yields::<Ours<STILL>>),
        (Workload::ExtWake, ext_wake::<STILL>),
        (Workload::Mutex, mutex::<STILL>),
        (Workload::MutexContended, mutex_contended::<STILL>),
        (Workload::Channel, channel::<STILL>),
    ]
    .into_iter()
    .map(move |(workload, run)| Case::run(who, workload, run))
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let timers = [
        (Workload::TimerInsert, timer_insert as fn(&mut Meter, usize)),
        (Workload::TimerCancel, timer_cancel),
        (Workload::TimerFire, timer_fire),
    ];
    cases_with::<false>(Who::Ours)
        .chain(timers.into_iter().map(|(workload, run)| Case::run(Who::Ours, workload, run)))
        .chain([Case::memory(Who::Ours, workload::memory::<Ours<false>>)])
        .chain(cases_with::<true>(Who::OursStill))
}
