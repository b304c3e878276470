//! What the models share.
#![allow(unsafe_code, reason = "loom's cells are reached by pointers, and waits outlive the borrow checker")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use executor::host::{bury, cells, run_ready};
use executor::{Builder, JoinHandle};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

pub(crate) fn model(f: impl Fn() + Sync + Send + 'static) {
    bounded_model(3, f);
}

/// Models with three threads, or with two whole run loops, have fewer preemptions, or they take hours.
pub(crate) fn bounded_model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        assert_eq!(cells(), 0);
        // This loom thread is the first CPU.
        run_ready();
        f();
        run_ready();
        bury();
        assert_eq!(cells(), 0, "a task's memory is not freed");
    });
}

/// A number in a cell that loom watches: two accesses at a time fail the model.
pub(crate) struct Watched(loom::cell::UnsafeCell<i32>);

// SAFETY: the cell fails the model where two threads are in it at a time.
unsafe impl Sync for Watched {}

impl Watched {
    pub(crate) fn new() -> Self {
        Watched(loom::cell::UnsafeCell::new(0))
    }

    pub(crate) fn add(&self) {
        // SAFETY: the cell gives a good pointer, and fails the model should anybody else be in it.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    pub(crate) fn get(&self) -> i32 {
        // SAFETY: as above, but for other readers.
        self.0.with(|value| unsafe { *value })
    }
}

/// A waker that wakes a sleeping loom thread.
struct Sleeper(loom::sync::Notify);

impl Wake for Sleeper {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// Polls a future on this loom thread until it is done.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let sleeper = std::sync::Arc::new(Sleeper(loom::sync::Notify::new()));
    let waker = Waker::from(std::sync::Arc::clone(&sleeper));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        sleeper.0.wait();
        // Who wakes itself because another thread is in the middle of something lets that one go on.
        thread::yield_now();
    }
}

pub(crate) fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A task that waits for a flag without noting its waker anywhere, and its waker.
pub(crate) fn flag_task() -> (Arc<AtomicBool>, JoinHandle<()>, Waker) {
    flag_task_of(Builder::new())
}

/// As [`flag_task`].
pub(crate) fn flag_task_of(builder: Builder) -> (Arc<AtomicBool>, JoinHandle<()>, Waker) {
    let flag = Arc::new(AtomicBool::new(false));
    let waker = std::sync::Arc::new(std::sync::Mutex::new(None));
    let (looks, gives) = (Arc::clone(&flag), std::sync::Arc::clone(&waker));
    let handle = builder.spawn(poll_fn(move |context| {
        if looks.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut waker = gives.lock().unwrap();
        if waker.is_none() {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }));
    run_ready();
    let waker = waker.lock().unwrap().take().unwrap();
    (flag, handle, waker)
}

/// What is shared, for as long as a wait needs it that moves to another thread of the model.
///
/// # Safety
/// The reference is not used after the last of the `Arc`s is gone.
pub(crate) unsafe fn extended<T>(shared: &Arc<T>) -> &'static T {
    // SAFETY: the caller's promise.
    unsafe { &*std::ptr::from_ref(&**shared) }
}
