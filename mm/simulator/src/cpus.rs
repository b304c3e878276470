//! CPUs that are in the middle of a poll, and do there what the test says.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use executor::{Builder, JoinHandle, cpus, current_cpu, yield_now};
use mm::PhysAddr;

use crate::Machine;

type Work = Box<dyn FnOnce() + Send>;

enum Order {
    Do(Work),
    /// The poll ends, and another begins.
    Pass,
}

/// Another CPU, which runs one long poll. Within it, it remembers what it has seen of page tables.
pub struct Busy {
    machine: &'static Machine,
    orders: mpsc::Sender<Order>,
    begun: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl Busy {
    /// The first other CPU of this machine begins a poll. For futures in `block_on_cpus`.
    pub async fn begin(machine: &'static Machine) -> Self {
        let other = cpus().map(executor::CpuLocal::id).find(|&cpu| cpu != current_cpu());
        Self::begin_on(machine, other.expect("there is another CPU")).await
    }

    /// All other CPUs of this machine begin a poll each.
    pub async fn begin_on_all(machine: &'static Machine) -> Vec<Self> {
        let others: Vec<_> = cpus().map(executor::CpuLocal::id).filter(|&cpu| cpu != current_cpu()).collect();
        let mut all = Vec::new();
        for cpu in others {
            all.push(Self::begin_on(machine, cpu).await);
        }
        all
    }

    async fn begin_on(machine: &'static Machine, cpu: u32) -> Self {
        let (orders, ordered) = mpsc::channel::<Order>();
        let (begins, begun) = mpsc::channel();
        let task = Builder::new().cpu(cpu).spawn(async move {
            loop {
                machine.begin_poll();
                begins.send(()).unwrap();
                loop {
                    match ordered.recv() {
                        Ok(Order::Do(work)) => work(),
                        Ok(Order::Pass) => break,
                        Err(_) => return,
                    }
                }
                yield_now().await;
            }
        });
        while begun.try_recv().is_err() {
            yield_now().await;
        }
        Self { machine, orders, begun, task }
    }

    /// Lets it do something, and panics as that does.
    pub fn does<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let work = move || drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
        self.orders.send(Order::Do(Box::new(work))).unwrap();
        receiver.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Its poll ends, and another begins: between the two it does what others wait for.
    pub fn passes(&self) {
        self.orders.send(Order::Pass).unwrap();
        self.begun.recv().unwrap();
    }

    /// Lets it read a word, or fault: `None`.
    pub fn reads(&self, root: PhysAddr, at: u64) -> Option<u64> {
        let machine = self.machine;
        self.does(move || machine.try_read(root, at))
    }

    /// Lets it write a word. False where it faults.
    pub fn writes(&self, root: PhysAddr, at: u64, value: u64) -> bool {
        let machine = self.machine;
        self.does(move || machine.try_write(root, at, value)).is_some()
    }

    /// The poll ends.
    pub async fn end(self) {
        drop(self.orders);
        self.task.await.unwrap();
    }
}

/// Begins each poll of a future as a CPU does.
pub async fn polls<F: Future>(machine: &'static Machine, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        machine.begin_poll();
        future.as_mut().poll(context)
    })
    .await
}

/// Polls a future once.
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
