//! `async-executor`'s local executor with `futures-lite`, and `async-lock`.

use std::sync::Arc;

use async_executor::{LocalExecutor, Task};
use async_lock::Mutex;
use futures_lite::future::{block_on, yield_now};

use crate::meter::Meter;
use crate::plain::Plain;
use crate::workload::{self, RIVALS, Runtime};
use crate::{Case, Who, Workload};

struct Smol(LocalExecutor<'static>);

impl Runtime for Smol {
    type Handle<T: Send + 'static> = Task<T>;
    type Slot = futures::task::AtomicWaker;

    fn new() -> Self {
        Smol(LocalExecutor::new())
    }

    fn block_on<F: Future>(&self, main: F) -> F::Output {
        block_on(self.0.run(main))
    }

    fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(future)
    }

    async fn join<T: Send + 'static>(handle: Task<T>) -> T {
        handle.await
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }
}

fn ext_wake(meter: &mut Meter, n: usize) {
    let executor = LocalExecutor::new();
    let drain = || while executor.try_tick() {};
    workload::wake_from_outside(meter, n, |task| executor.spawn(task()).detach(), drain);
}

fn mutex(meter: &mut Meter, n: usize) {
    let mutex = Mutex::new(0);
    meter.measure(|| {
        block_on(async {
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
                yield_now().await;
            }
        }
    });
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    [
        (Workload::SpawnSeq, workload::spawn_seq::<Smol> as fn(&mut Meter, usize)),
        (Workload::SpawnBatch, workload::spawn_batch::<Smol>),
        (Workload::PingPong, workload::pingpong::<Smol>),
        (Workload::Yield, workload::yields::<Smol>),
        (Workload::ExtWake, ext_wake),
        (Workload::Mutex, mutex),
        (Workload::MutexContended, mutex_contended),
    ]
    .into_iter()
    .map(|(workload, run)| Case::run(Who::Smol, workload, run))
    .chain([Case::memory(Who::Smol, workload::memory::<Smol>)])
}
