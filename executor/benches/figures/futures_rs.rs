//! `futures`: its `LocalPool`, and `FuturesUnordered` in the place of tasks.

use std::cell::RefCell;
use std::hint::black_box;

use futures::channel::mpsc;
use futures::executor::{LocalPool, LocalSpawner, block_on};
use futures::future::RemoteHandle;
use futures::stream::FuturesUnordered;
use futures::task::LocalSpawnExt;
use futures::{SinkExt, StreamExt};
use futures_lite::future::yield_now;

use crate::meter::{Heap, Meter};
use crate::workload::{self, Runtime, SPAWNED, TaskMemory, YIELDERS};
use crate::{Case, Who, Workload};

struct Pool {
    pool: RefCell<LocalPool>,
    spawner: LocalSpawner,
}

impl Runtime for Pool {
    type Handle<T: Send + 'static> = RemoteHandle<T>;
    type Slot = futures::task::AtomicWaker;

    fn new() -> Self {
        let pool = LocalPool::new();
        Pool { spawner: pool.spawner(), pool: RefCell::new(pool) }
    }

    fn block_on<F: Future>(&self, main: F) -> F::Output {
        self.pool.borrow_mut().run_until(main)
    }

    fn spawn<F>(&self, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawner.spawn_local_with_handle(future).expect("the pool is there")
    }

    async fn join<T: Send + 'static>(handle: RemoteHandle<T>) -> T {
        handle.await
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }
}

fn ext_wake(meter: &mut Meter, n: usize) {
    let runtime = Pool::new();
    let drain = || runtime.pool.borrow_mut().run_until_stalled();
    let spawn = |task: &dyn Fn() -> _| runtime.spawner.spawn_local(task()).expect("the pool is there");
    workload::wake_from_outside(meter, n, spawn, drain);
}

fn channel(meter: &mut Meter, n: usize) {
    // Each sender has a place of its own beside these.
    let (mut sender, mut receiver) = mpsc::channel(63);
    let send = async move {
        for i in 0..n {
            sender.send(i).await.expect("the receiver is there");
        }
    };
    let receive = async move {
        let mut sum = 0;
        while let Some(i) = receiver.next().await {
            sum += i;
        }
        assert_eq!(sum, n * (n - 1) / 2);
    };
    workload::pair::<Pool, _, _>(meter, send, receive);
}

fn unordered_batch(meter: &mut Meter, n: usize) {
    meter.measure(|| {
        block_on(async {
            let mut all: FuturesUnordered<_> = (0..n).map(|i| async move { i }).collect();
            while let Some(i) = all.next().await {
                black_box(i);
            }
        });
    });
}

fn unordered_yields(meter: &mut Meter, n: usize) {
    meter.measure(|| {
        block_on(async {
            let task = |_| async move {
                for _ in 0..n / YIELDERS {
                    yield_now().await;
                }
            };
            let mut all: FuturesUnordered<_> = (0..YIELDERS).map(task).collect();
            while all.next().await.is_some() {}
        });
    });
}

fn unordered_memory() -> TaskMemory {
    let size = size_of_val(&workload::heavy_task([0; 16]));
    let all = FuturesUnordered::new();
    let taken = Heap::taken_by(|| (0..SPAWNED).for_each(|_| all.push(workload::heavy_task([1; 16]))));
    TaskMemory {
        bytes: (taken.bytes / SPAWNED).saturating_sub(size),
        allocations: taken.allocations / SPAWNED,
    }
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let pool = [
        (Workload::SpawnSeq, workload::spawn_seq::<Pool> as fn(&mut Meter, usize)),
        (Workload::SpawnBatch, workload::spawn_batch::<Pool>),
        (Workload::PingPong, workload::pingpong::<Pool>),
        (Workload::Yield, workload::yields::<Pool>),
        (Workload::ExtWake, ext_wake),
        (Workload::Channel, channel),
    ];
    let unordered = [
        (Workload::SpawnBatch, unordered_batch as fn(&mut Meter, usize)),
        (Workload::Yield, unordered_yields),
    ];
    pool.into_iter()
        .map(|(workload, run)| Case::run(Who::Pool, workload, run))
        .chain([Case::memory(Who::Pool, workload::memory::<Pool>)])
        .chain(unordered.into_iter().map(|(workload, run)| Case::run(Who::Unordered, workload, run)))
        .chain([Case::memory(Who::Unordered, unordered_memory)])
}
