//! CPUs that are in the middle of a poll, and do there what the test says.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use executor::{Builder, JoinHandle, cpus, current_cpu, yield_now};
use mm::PhysAddr;

use crate::Machine;

type Work = Box<dyn FnOnce() + Send>;

/// Another CPU, which runs one long poll. Within it, it remembers what it has seen of page tables.
pub struct Busy {
    machine: &'static Machine,
    work: mpsc::Sender<Work>,
    task: JoinHandle<()>,
}

impl Busy {
    /// The first other CPU of this machine begins a poll. For futures in `block_on_cpus`.
    pub async fn begin(machine: &'static Machine) -> Self {
        let other = cpus().map(executor::CpuLocal::id).find(|&cpu| cpu != current_cpu());
        let (sender, receiver) = mpsc::channel::<Work>();
        let (begins, begun) = mpsc::channel();
        let task = Builder::new().cpu(other.expect("there is another CPU")).spawn(async move {
            machine.begin_poll();
            begins.send(()).unwrap();
            receiver.into_iter().for_each(|work| work());
        });
        while begun.try_recv().is_err() {
            yield_now().await;
        }
        Self { machine, work: sender, task }
    }

    /// Lets it do something.
    pub fn does<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.work.send(Box::new(move || drop(sender.send(work())))).unwrap();
        receiver.recv().unwrap()
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
        drop(self.work);
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
