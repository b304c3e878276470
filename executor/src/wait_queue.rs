//! The one parking primitive: a first-in-first-out queue of waiting futures.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | wait, wake, cancel | the queue's lock; a waiter's fields belong to it while the waiter is linked |
//! | wake, cancel of the waiter that was woken | a waiter that goes without having used a single wake passes it on |
//! | check of a condition, wake | [`wait_for`](WaitQueue::wait_for) looks, joins the queue, and looks again |
//! | wake, code behind the waker | wakers are called after the lock is released |
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::sync::atomic::AtomicU32;
use core::task::{Context, Poll, Waker};

use crate::atomic::{AtomicU8, Ordering, const_unless_loom};
use crate::list::{Linked, Links, List};
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};

/// How far a waiter has come.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In no queue, and nothing was given to it.
    Idle,
    /// In the queue.
    Queued,
    /// Taken out, with something given to it alone: a wake, a lock, permits.
    Given,
    /// Taken out because all were.
    Released,
}

/// A future's place in a queue. Its fields belong to the queue's lock, except that the future alone may touch a
/// waiter that it knows to be idle.
pub(crate) struct Waiter {
    links: Links<Waiter>,
    waker: Cell<Option<Waker>>,
    /// Changed under the lock; read by the owner also outside it. Idle seen so is certain: only the owner makes
    /// it anything else. Given or Released seen so is certain too, and carries what the giver wrote before.
    stage: AtomicU8,
    /// How many permits a semaphore's waiter asks for, or another number that its queue understands.
    pub(crate) need: Cell<u32>,
    _pinned: PhantomPinned,
}

// SAFETY: every access is under the queue's lock, or by the owner of an idle waiter.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

// SAFETY: the links are a field.
unsafe impl Linked for Waiter {
    fn links(&self) -> &Links<Waiter> {
        &self.links
    }
}

/// The waiters of a queue.
pub(crate) type Waiters = List<Waiter>;

impl Waiter {
    const_unless_loom! {
        pub(crate) fn new(need: u32) -> Self {
            Waiter {
                links: Links::new(),
                waker: Cell::new(None),
                stage: AtomicU8::new(Stage::Idle as u8),
                need: Cell::new(need),
                _pinned: PhantomPinned,
            }
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Queued,
            2 => Stage::Given,
            _ => Stage::Released,
        }
    }

    fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Makes it idle again after what it got was used, or will not be.
    pub(crate) fn reset(&self) {
        self.set_stage(Stage::Idle);
    }

    /// Joins the queue at its end, or renews the waker of one that is in it. Gives the old waker back, to be
    /// dropped outside the lock.
    ///
    /// # Safety
    /// `waiters` is the only queue this waiter is ever in, its lock is held, the waiter is pinned, and
    /// [`leave`](Waiter::leave) is called before it goes.
    pub(crate) unsafe fn join(&self, waiters: &mut Waiters, waker: Waker) -> Option<Waker> {
        if self.stage() != Stage::Queued {
            self.set_stage(Stage::Queued);
            // SAFETY: it was not queued, so it is in no list; the caller's promise covers the rest.
            unsafe { waiters.push_back(self) };
        }
        self.waker.replace(Some(waker))
    }

    /// Leaves the queue if it is in it, and says where it stood. Gives the waker back, to be dropped outside.
    ///
    /// # Safety
    /// `waiters` is this waiter's queue, and its lock is held.
    pub(crate) unsafe fn leave(&self, waiters: &mut Waiters) -> (Stage, Option<Waker>) {
        let stage = self.stage();
        self.reset();
        if stage == Stage::Queued {
            // SAFETY: it is queued.
            unsafe { waiters.remove(self) };
        }
        (stage, self.waker.take())
    }
}

/// Takes the first waiter out, with something given to it, and returns its waker to be woken after the lock.
pub(crate) fn give_first(waiters: &mut Waiters, stage: Stage) -> Option<Waker> {
    let first = waiters.pop_front()?;
    // SAFETY: it was in the list, so alive until the lock is released.
    unsafe {
        let waker = (*first).waker.take();
        // From here on the owner may take it back without the lock.
        (*first).set_stage(stage);
        waker
    }
}

/// Wakers taken out under a lock, to be woken after it.
pub(crate) struct Batch {
    wakers: [Option<Waker>; Batch::SIZE],
    len: usize,
}

/// Whether a batch may have left somebody behind.
#[derive(PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Perhaps,
}

impl Batch {
    const SIZE: usize = 16;

    pub(crate) fn new() -> Self {
        Batch { wakers: [const { None }; Batch::SIZE], len: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == Batch::SIZE
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the first waiter out. There must be one, and room for it.
    pub(crate) fn take_first(&mut self, waiters: &mut Waiters, stage: Stage) {
        self.wakers[self.len] = give_first(waiters, stage);
        self.len += 1;
    }

    /// Takes waiters out from the front for as long as `goes` and the room allow.
    pub(crate) fn release(waiters: &mut Waiters, goes: impl Fn(&Waiter) -> bool) -> Self {
        let mut batch = Batch::new();
        while !batch.is_full() && waiters.front().is_some_and(&goes) {
            batch.take_first(waiters, Stage::Released);
        }
        batch
    }

    /// Wakes them, without any lock.
    pub(crate) fn wake(self) -> Rest {
        let rest = if self.is_full() { Rest::Perhaps } else { Rest::Nothing };
        self.wakers.into_iter().flatten().for_each(Waker::wake);
        rest
    }
}

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
        let mut woken = 0;
        loop {
            let batch = Batch::release(&mut waiters, |waiter| waiter.need.get() != round);
            drop(waiters);
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
