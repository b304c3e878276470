//! `async-task` on a `crossbeam-queue`: about the least that an executor for one thread can be made of.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use async_task::{Runnable, Task};
use crossbeam_queue::ArrayQueue;
use futures_lite::future::yield_now;

use crate::meter::Meter;
use crate::workload::{self, Runtime};
use crate::{Case, Who, Workload};

/// Never freed, as an executor's queue in a static would be.
pub(crate) struct Plain(&'static ArrayQueue<Runnable>);

thread_local! {
    static QUEUE: Cell<Option<&'static ArrayQueue<Runnable>>> = const { Cell::new(None) };
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Plain {
    fn run_one(&self) -> bool {
        self.0.pop().map(Runnable::run).is_some()
    }
}

impl Runtime for Plain {
    type Handle<T: Send + 'static> = Task<T>;
    type Slot = futures::task::AtomicWaker;

    fn new() -> Self {
        Plain(QUEUE.get().unwrap_or_else(|| {
            let queue = Box::leak(Box::new(ArrayQueue::new(1 << 16)));
            QUEUE.set(Some(queue));
            queue
        }))
    }

    fn block_on<F: Future>(&self, main: F) -> F::Output {
        let mut main = pin!(main);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            if flag.0.swap(false, Ordering::Acquire)
                && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
            assert!(self.run_one() || flag.0.load(Ordering::Relaxed), "everything waits");
        }
    }

    fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let queue = self.0;
        let schedule = |runnable| assert!(queue.push(runnable).is_ok(), "the queue is full");
        let (runnable, task) = async_task::spawn(future, schedule);
        runnable.schedule();
        task
    }

    async fn join<T: Send + 'static>(handle: Task<T>) -> T {
        handle.await
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }
}

fn ext_wake(meter: &mut Meter, n: usize) {
    let runtime = Plain::new();
    let drain = || while runtime.run_one() {};
    workload::wake_from_outside(meter, n, |task| runtime.spawn(task()).detach(), drain);
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    [
        (Workload::SpawnSeq, workload::spawn_seq::<Plain> as fn(&mut Meter, usize)),
        (Workload::SpawnBatch, workload::spawn_batch::<Plain>),
        (Workload::PingPong, workload::pingpong::<Plain>),
        (Workload::Yield, workload::yields::<Plain>),
        (Workload::ExtWake, ext_wake),
    ]
    .into_iter()
    .map(|(workload, run)| Case::run(Who::Plain, workload, run))
    .chain([Case::memory(Who::Plain, workload::memory::<Plain>)])
}
