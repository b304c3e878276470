//! `embassy-executor`, whose tasks stand in statics, and `embassy-sync`.
#![allow(unsafe_code, reason = "the raw executor is polled by hand, and calls a function of a fixed name")]

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use embassy_executor::raw::{Executor, TaskStorage};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::mutex::Mutex;
use futures::task::AtomicWaker;
use futures_lite::future::{block_on, yield_now};

use crate::meter::Meter;
use crate::workload::{self, Player, TaskMemory, YIELDERS};
use crate::{Case, Who, Workload};

/// The executor has work: whoever polls here looks anyway.
// SAFETY: the one function of this name, with the arguments that the executor calls it with.
#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {}

/// An executor, and how many of its tasks are not done.
#[derive(Clone)]
struct Embassy {
    executor: &'static Executor,
    live: Rc<Cell<usize>>,
}

impl Embassy {
    fn new() -> Self {
        let executor = Box::leak(Box::new(Executor::new(core::ptr::null_mut())));
        Embassy { executor, live: Rc::default() }
    }

    /// Spawns a task in memory that is never freed.
    fn spawn<F: Future<Output = ()> + 'static>(&self, task: F) {
        let live = Rc::clone(&self.live);
        live.set(live.get() + 1);
        let storage = Box::leak(Box::new(TaskStorage::new()));
        let token = storage.spawn(|| async move {
            task.await;
            live.set(live.get() - 1);
        });
        self.executor.spawner().spawn(token.expect("the storage is new"));
    }

    fn poll(&self) {
        // SAFETY: polled on the thread that made it, and not from inside a task.
        unsafe { self.executor.poll() };
    }

    /// Polls until all tasks are done.
    fn run(&self) {
        while self.live.get() > 0 {
            self.poll();
        }
    }
}

fn pingpong(meter: &mut Meter, n: usize) {
    let runtime = Embassy::new();
    for player in Player::<AtomicWaker>::pair(n) {
        runtime.spawn(player);
    }
    meter.measure(|| runtime.run());
}

fn yields(meter: &mut Meter, n: usize) {
    let runtime = Embassy::new();
    for _ in 0..YIELDERS {
        runtime.spawn(async move {
            for _ in 0..n / YIELDERS {
                yield_now().await;
            }
        });
    }
    meter.measure(|| runtime.run());
}

fn ext_wake(meter: &mut Meter, n: usize) {
    let runtime = Embassy::new();
    workload::wake_from_outside(meter, n, |task| runtime.spawn(task()), || runtime.poll());
}

fn mutex(meter: &mut Meter, n: usize) {
    let mutex = Mutex::<NoopRawMutex, usize>::new(0);
    meter.measure(|| {
        block_on(async {
            for i in 0..n {
                *mutex.lock().await += i;
            }
        });
    });
}

fn channel(meter: &mut Meter, n: usize) {
    let runtime = Embassy::new();
    let channel: &'static Channel<NoopRawMutex, usize, 64> = Box::leak(Box::new(Channel::new()));
    runtime.spawn(async move {
        for i in 0..n {
            channel.send(i).await;
        }
    });
    runtime.spawn(async move {
        let mut sum = 0;
        for _ in 0..n {
            sum += channel.receive().await;
        }
        assert_eq!(sum, n * (n - 1) / 2);
    });
    meter.measure(|| runtime.run());
}

/// Tasks are not allocated, but take their place beside the future.
fn memory() -> TaskMemory {
    fn storage<F: Future + 'static>(future: &F) -> usize {
        size_of::<TaskStorage<F>>() - size_of_val(future)
    }
    let future = async {
        black_box(workload::heavy_task([1; 16]).await);
    };
    TaskMemory { bytes: storage(&future), allocations: 0 }
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    [
        (Workload::PingPong, pingpong as fn(&mut Meter, usize)),
        (Workload::Yield, yields),
        (Workload::ExtWake, ext_wake),
        (Workload::Mutex, mutex),
        (Workload::Channel, channel),
    ]
    .into_iter()
    .map(|(workload, run)| Case::run(Who::Embassy, workload, run))
    .chain([Case::memory(Who::Embassy, memory)])
}
