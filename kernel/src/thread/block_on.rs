//! Waiting for a future on a kernel thread.

use core::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
};

use super::{
    Thread,
    call::{self, Call},
    current,
};

/// The thread is to end; its caller gives back what it owns and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl core::fmt::Display for Killed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the thread was killed")
    }
}

impl core::error::Error for Killed {}

/// Waits for `future` on this kernel thread: polls it here, and parks the thread between polls.
///
/// A kill does not end the wait (the future may hold a place in a queue, or a lock): use [`try_block_on`]
/// where it should.
///
/// # Panics
/// On the executor, which must never block.
pub fn block_on<F: Future>(future: F) -> F::Output {
    match wait(future, |_| false) {
        Ok(output) => output,
        Err(Killed) => unreachable!("a wait that cannot be ended by a kill"),
    }
}

/// Like [`block_on`], but drops the future and returns when the thread is killed.
///
/// # Errors
/// [`Killed`] when the thread is to end.
///
/// # Panics
/// On the executor, which must never block.
pub fn try_block_on<F: Future>(future: F) -> Result<F::Output, Killed> {
    wait(future, Thread::kill_requested)
}

/// Whether somebody wants this kernel thread to end; for loops that own something and never fault.
pub fn killed() -> bool {
    current().is_some_and(Thread::kill_requested)
}

fn wait<F: Future>(future: F, give_up: impl Fn(&Thread) -> bool) -> Result<F::Output, Killed> {
    let thread = current().expect("block_on: only a thread can be parked; await the future instead");
    // The waker of the task that runs this thread: waking it enters the thread again.
    let waker = thread.task().expect("a running thread has a task").waker();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if give_up(thread) {
            return Err(Killed);
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        // A wake since the poll is not lost: it marks the task, which is running this thread. If the thread was
        // preempted in between, or faulted, this returns at once, and it polls again.
        call::call(Call::Park);
    }
}
