//! Tasks that run when the test says so, in an order that the test decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    woken: Arc<Woken>,
}

/// The tasks of one test.
#[derive(Default)]
pub struct Tasks {
    tasks: Vec<Task>,
}

/// Where a task leaves its result.
pub struct Handle<T> {
    number: usize,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Handle<T> {
    /// The task's number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The result, once.
    pub fn take(&self) -> Option<T> {
        self.result.lock().unwrap().take()
    }

    /// Whether there is a result that was not taken.
    pub fn is_done(&self) -> bool {
        self.result.lock().unwrap().is_some()
    }
}

impl Tasks {
    /// A task that has not run yet.
    pub fn spawn<T: Send + 'static>(
        &mut self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Handle<T> {
        let result = Arc::new(Mutex::new(None));
        let to = result.clone();
        let future = Box::pin(async move {
            let value = future.await;
            *to.lock().unwrap() = Some(value);
        });
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.tasks.push(Task { future: Some(future), woken });
        Handle { number: self.tasks.len() - 1, result }
    }

    /// Polls woken tasks, lowest number first, until none is.
    pub fn run(&mut self) {
        self.run_by(|woken| woken[0]);
    }

    /// The same in an order that `choose` decides among the numbers of the woken tasks.
    pub fn run_by(&mut self, mut choose: impl FnMut(&[usize]) -> usize) {
        loop {
            let woken = self.woken();
            if woken.is_empty() {
                return;
            }
            self.poll(choose(&woken));
        }
    }

    /// The numbers of the tasks that were woken since they were polled, lowest first.
    pub fn woken(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|&number| self.is_woken(number)).collect()
    }

    /// How many tasks are left.
    pub fn left(&self) -> usize {
        self.tasks.iter().filter(|task| task.future.is_some()).count()
    }

    fn is_woken(&self, number: usize) -> bool {
        let task = &self.tasks[number];
        task.future.is_some() && task.woken.0.load(Ordering::SeqCst)
    }

    /// Polls one task, if it is there still.
    pub fn poll(&mut self, number: usize) {
        let task = &mut self.tasks[number];
        task.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(task.woken.clone());
        let mut context = Context::from_waker(&waker);
        if let Some(future) = &mut task.future
            && let Poll::Ready(()) = future.as_mut().poll(&mut context)
        {
            task.future = None;
        }
    }

    /// Whether no task is left.
    pub fn all_done(&self) -> bool {
        self.left() == 0
    }

    /// Ends a task wherever it is.
    pub fn kill<T>(&mut self, handle: &Handle<T>) {
        self.kill_number(handle.number);
    }

    /// Ends the task with that number.
    pub fn kill_number(&mut self, number: usize) {
        self.tasks[number].future = None;
    }

    /// Whether a task was neither polled to its end nor killed.
    pub fn is_left(&self, number: usize) -> bool {
        self.tasks[number].future.is_some()
    }
}

/// Runs a future that needs nobody else.
pub fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let mut tasks = Tasks::default();
    let handle = tasks.spawn(future);
    tasks.run();
    handle.take().expect("the future waits for nobody")
}
