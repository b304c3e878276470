//! `tokio`'s runtime for one thread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::runtime::{Builder, Runtime as Tokio};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Duration, Instant, Sleep, advance, sleep_until};

use crate::meter::Meter;
use crate::plain::Plain;
use crate::workload::{self, RIVALS, Runtime, STEP};
use crate::{Case, Who, Workload};

impl Runtime for Tokio {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Slot = futures::task::AtomicWaker;

    fn new() -> Self {
        Builder::new_current_thread().build().expect("it needs nothing")
    }

    fn block_on<F: Future>(&self, main: F) -> F::Output {
        Tokio::block_on(self, main)
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Tokio::spawn(self, future)
    }

    async fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.await.expect("nobody aborts it")
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }
}

fn mutex(meter: &mut Meter, n: usize) {
    let runtime = <Tokio as Runtime>::new();
    let mutex = Mutex::new(0);
    meter.measure(|| {
        runtime.block_on(async {
            for i in 0..n {
                *mutex.lock().await += i;
            }
        });
    });
}

fn mutex_contended(meter: &mut Meter, n: usize) {
    let mutex = Arc::new(Mutex::new(0));
    // On the leanest executor: the mutex is what counts.
    workload::crowd::<Plain, _>(meter, RIVALS, || {
        let mutex = Arc::clone(&mutex);
        async move {
            for i in 0..n / RIVALS {
                let mut guard = mutex.lock().await;
                *guard += i;
                Plain::yield_now().await;
            }
        }
    });
}

fn channel(meter: &mut Meter, n: usize) {
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
    workload::pair::<Tokio, _, _>(meter, send, receive);
}

type Sleeps = Vec<Pin<Box<Option<Sleep>>>>;

/// A runtime whose clock stands; a tick is a millisecond.
fn with_clock() -> Tokio {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("it needs nothing")
}

/// Sleeps that were not polled yet.
fn sleeps(n: usize) -> Sleeps {
    let start = Instant::now();
    let at = |tick| Box::pin(Some(sleep_until(start + Duration::from_millis(tick))));
    workload::deadlines(n).map(at).collect()
}

fn insert(sleeps: &mut Sleeps) {
    let context = &mut Context::from_waker(Waker::noop());
    for sleep in sleeps {
        assert!(sleep.as_mut().as_pin_mut().expect("it is there").poll(context).is_pending());
    }
}

fn timer_insert(meter: &mut Meter, n: usize) {
    let runtime = with_clock();
    let _inside = runtime.enter();
    let mut sleeps = sleeps(n);
    meter.measure(|| insert(&mut sleeps));
}

fn timer_cancel(meter: &mut Meter, n: usize) {
    let runtime = with_clock();
    let _inside = runtime.enter();
    let mut sleeps = sleeps(n);
    insert(&mut sleeps);
    meter.measure(|| {
        for sleep in &mut sleeps {
            sleep.as_mut().set(None);
        }
    });
}

fn timer_fire(meter: &mut Meter, n: usize) {
    with_clock().block_on(async {
        let mut sleeps = sleeps(n);
        insert(&mut sleeps);
        let fire = async {
            for _ in 0..workload::steps(n) {
                advance(Duration::from_millis(STEP as u64)).await;
            }
        };
        meter.measure_future(fire).await;
        let elapsed =
            |sleep: &Pin<Box<Option<Sleep>>>| sleep.as_ref().as_pin_ref().is_some_and(|s| s.is_elapsed());
        assert!(sleeps.iter().all(elapsed));
    });
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    [
        (Workload::SpawnSeq, workload::spawn_seq::<Tokio> as fn(&mut Meter, usize)),
        (Workload::SpawnBatch, workload::spawn_batch::<Tokio>),
        (Workload::PingPong, workload::pingpong::<Tokio>),
        (Workload::Yield, workload::yields::<Tokio>),
        (Workload::Mutex, mutex),
        (Workload::MutexContended, mutex_contended),
        (Workload::Channel, channel),
        (Workload::TimerInsert, timer_insert),
        (Workload::TimerCancel, timer_cancel),
        (Workload::TimerFire, timer_fire),
    ]
    .into_iter()
    .map(|(workload, run)| Case::run(Who::Tokio, workload, run))
    .chain([Case::memory(Who::Tokio, workload::memory::<Tokio>)])
}
