//! The one parking primitive: a first-in-first-out queue of waiting futures.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | wait, wake, cancel | the queue's lock; a waiter's fields belong to it while the waiter is linked |
//! | wake, cancel of the waiter that was woken | a waiter that goes without having used a single wake passes it on |
//! | check of a condition, wake | [`wait_for`](WaitQueue::wait_for) looks, joins the queue, and looks again |
//! | wake, code behind the waker | wakers are called after the lock is released |
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use core::fmt;
use core::pin::Pin;
use core::sync::atomic::AtomicU32;
use core::task::{Context, Poll, Waker};

use crate::atomic::{Ordering, const_unless_loom};
use crate::list::List;
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};
use crate::waiter::{Batch, Rest, Stage, Waiter, Waiters, give_first};

/// A queue of waiting tasks: first in, first out; nothing is allocated; a wait may be dropped at any point.
///
/// Takes a [`SpinLock`], so it is not for interrupt handlers: those use a [`Signal`](crate::sync::Signal).
pub struct WaitQueue {
    waiters: SpinLock<Waiters>,
    /// How often all were woken: waiters note it when they join, so that a wake of all, which lets the lock go
    /// in between, knows who joined later. Changed under the lock.
    rounds: AtomicU32,
    reason: WaitReason,
}

impl WaitQueue {
    const_unless_loom! {
        /// An empty queue. Who waits in it shows `reason`.
        pub fn new(reason: WaitReason) -> Self {
            WaitQueue { waiters: SpinLock::new("wait queue", List::new()), rounds: AtomicU32::new(0), reason }
        }
    }

    /// Waits for one wake that comes after this future was first polled.
    ///
    /// A condition that was checked before may have changed meanwhile: use [`wait_for`](WaitQueue::wait_for)
    /// where there is one, or [`Wait::enable`] before checking.
    ///
    /// # Cancellation
    /// Dropping it leaves the queue; a [`wake_one`](WaitQueue::wake_one) that it got and did not use goes to the
    /// next waiter.
    pub fn wait(&self) -> Wait<'_> {
        Wait { queue: self, waiter: Waiter::new(0) }
    }

    /// Waits until `check` gives something: checks, joins the queue, and checks again, now and after each wake.
    ///
    /// `check` runs outside the queue's lock. After a wake in vain the place in the queue is at its end.
    ///
    /// # Cancellation
    /// As for [`wait`](WaitQueue::wait).
    pub fn wait_for<T, F: FnMut() -> Option<T>>(&self, check: F) -> WaitFor<'_, F> {
        WaitFor { wait: self.wait(), check }
    }

    /// Wakes the one that waits longest. False if nobody waits.
    pub fn wake_one(&self) -> bool {
        let mut waiters = self.waiters.lock();
        if waiters.is_empty() {
            return false;
        }
        let waker = give_first(&mut waiters, Stage::Given);
        drop(waiters);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Wakes all that wait at this moment, in order. Returns how many. Who joins meanwhile is not woken.
    pub fn wake_all(&self) -> usize {
        let mut waiters = self.waiters.lock();
        let round = self.rounds.load(Ordering::Relaxed).wrapping_add(1);
        self.rounds.store(round, Ordering::Relaxed);
        // Mostly there is nobody, or one: then there is nothing to gather.
        let mut first = None;
        let mut woken = 0;
        if !waiters.is_empty() {
            first = give_first(&mut waiters, Stage::Released);
            woken = 1;
        }
        if waiters.is_empty() {
            drop(waiters);
            if let Some(waker) = first {
                waker.wake();
            }
            return woken;
        }
        loop {
            let batch = Batch::release(&mut waiters, |waiter| waiter.need.get() != round);
            drop(waiters);
            if let Some(waker) = first.take() {
                waker.wake();
            }
            woken += batch.len();
            if batch.wake() == Rest::Nothing {
                return woken;
            }
            waiters = self.waiters.lock();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.lock().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its waiters show.
    pub fn reason(&self) -> WaitReason {
        self.reason
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitQueue({})", self.reason)
    }
}

/// See [`WaitQueue::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct Wait<'a> {
    queue: &'a WaitQueue,
    waiter: Waiter,
}

impl Wait<'_> {
    /// Joins the queue now, before the first poll: a wake from here on is not missed. `waker` is the one to be
    /// woken, until the next poll brings another. True if a wake has come already.
    pub fn enable(self: Pin<&mut Self>, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut waiters = self.queue.waiters.lock();
        let old = match self.waiter.stage() {
            Stage::Given | Stage::Released => Some(waker),
            // SAFETY: pinned, dropped with `leave`, always the same queue.
            Stage::Idle | Stage::Queued => unsafe { self.waiter.join_round(self.queue, &mut waiters, waker) },
        };
        let woken = matches!(self.waiter.stage(), Stage::Given | Stage::Released);
        drop(waiters);
        drop(old);
        woken
    }

    /// Leaves the queue; says where it stood.
    fn leave(&self) -> Stage {
        if self.waiter.stage() == Stage::Idle {
            return Stage::Idle;
        }
        let mut waiters = self.queue.waiters.lock();
        // SAFETY: it only ever joins this queue.
        let (stage, waker) = unsafe { self.waiter.leave(&mut waiters) };
        drop(waiters);
        drop(waker);
        stage
    }
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.as_ref().get_ref().waiter.is_woken(self.queue, context) {
            return Poll::Ready(());
        }
        waits_for(self.queue.reason);
        Poll::Pending
    }
}

impl Waiter {
    /// Joins, noting the round.
    ///
    /// # Safety
    /// As for `join`, and `waiters` are the queue's.
    unsafe fn join_round(&self, queue: &WaitQueue, waiters: &mut Waiters, waker: Waker) -> Option<Waker> {
        if self.stage() != Stage::Queued {
            self.need.set(queue.rounds.load(Ordering::Relaxed));
        }
        // SAFETY: the caller's promise.
        unsafe { self.join(waiters, waker) }
    }

    /// Joins, or takes the wake that came.
    fn is_woken(&self, queue: &WaitQueue, context: &Context<'_>) -> bool {
        let waker = context.waker().clone();
        let mut waiters = queue.waiters.lock();
        let (woken, old) = match self.stage() {
            Stage::Given | Stage::Released => {
                self.reset();
                (true, Some(waker))
            }
            // SAFETY: the futures of this file pin their waiter, use one queue, and leave it when dropped.
            Stage::Idle | Stage::Queued => (false, unsafe { self.join_round(queue, &mut waiters, waker) }),
        };
        drop(waiters);
        drop(old);
        woken
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.leave() == Stage::Given {
            self.queue.wake_one();
        }
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wait({})", self.queue.reason)
    }
}

/// See [`WaitQueue::wait_for`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitFor<'a, F> {
    wait: Wait<'a>,
    check: F,
}

impl<T, F: FnMut() -> Option<T>> Future for WaitFor<'_, F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // SAFETY: the wait stays pinned; the closure is not.
        let (wait, check) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.wait), &mut this.check)
        };
        let wait = wait.as_ref().get_ref();
        // The wake that brought us here is used up by a check that succeeds.
        if let Some(value) = check() {
            wait.leave();
            return Poll::Ready(value);
        }
        // Joining takes a wake that came in vain out of the waiter; then it must join once more.
        while wait.waiter.is_woken(wait.queue, context) {}
        if let Some(value) = check() {
            // A wake between joining and here may have been for another one's sake: it is passed on.
            if wait.leave() == Stage::Given {
                wait.queue.wake_one();
            }
            return Poll::Ready(value);
        }
        waits_for(wait.queue.reason);
        Poll::Pending
    }
}

impl<F> fmt::Debug for WaitFor<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitFor({})", self.wait.queue.reason)
    }
}
