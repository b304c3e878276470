//! What the two ends of a channel share: one state under one lock.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | send, receive, close, the last sender's end | the lock |
//! | receive in vain, send | the look and the noting of the receiver's waker are one step |
//! | receive, senders that wait | the place goes to the one that waits longest and is reserved for it, so nobody overtakes |
//! | receive, cancel of the sender that was given the place | it gives the place back, which goes to the next |
//! | close, senders that wait | all are released; who was given a place before keeps it |
//! | anything, code behind wakers and messages | wakers are cloned before the lock is taken; they are woken, and messages dropped, after |

use alloc::collections::VecDeque;
use core::mem;
use core::task::{Context, Poll, Waker};

use super::{TryRecvError, TrySendError};
use crate::list::List;
use crate::lock::{SpinGuard, SpinLock};
use crate::reason::{WaitReason, waits_for};
use crate::wait_queue::WaitQueue;
use crate::waiter::{Batch, Rest, Stage, Waiter, Waiters, give_first};

struct State<T> {
    messages: VecDeque<T>,
    /// Places of permits, and those that were given to a waiting sender.
    reserved: usize,
    /// Who waits for a place; while somebody does, none is free.
    waiters: Waiters,
    receiver: Option<Waker>,
    senders: usize,
    closed: bool,
}

impl<T> State<T> {
    /// Nothing can come any more.
    fn is_over(&self) -> bool {
        self.senders == 0 || self.closed && self.reserved == 0
    }

    /// A place became free: it goes to who waits longest.
    fn pass_place(&mut self) -> Option<Waker> {
        if self.waiters.is_empty() {
            return None;
        }
        self.reserved += 1;
        give_first(&mut self.waiters, Stage::Given)
    }

    fn is_full(&self, capacity: usize) -> bool {
        self.messages.len() + self.reserved >= capacity
    }
}

pub(super) struct Shared<T> {
    state: SpinLock<State<T>>,
    capacity: usize,
    /// Senders that wait for the end of the receiver.
    left: WaitQueue,
}

impl<T> Shared<T> {
    /// With one sender, and `room` places allocated.
    pub(super) fn new(capacity: usize, room: usize) -> Self {
        let state = State {
            messages: VecDeque::with_capacity(room),
            reserved: 0,
            waiters: List::new(),
            receiver: None,
            senders: 1,
            closed: false,
        };
        Shared { state: SpinLock::new("channel", state), capacity, left: WaitQueue::new(WaitReason::Channel) }
    }

    #[inline]
    pub(super) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Err(TrySendError::Closed(message));
        }
        if state.is_full(self.capacity) {
            drop(state);
            return Err(TrySendError::Full(message));
        }
        state.messages.push_back(message);
        if state.receiver.is_some() {
            wake_receiver(state);
        }
        Ok(())
    }

    /// Sends into a reserved place.
    pub(super) fn send_reserved(&self, message: T) {
        let mut state = self.state.lock();
        state.reserved -= 1;
        state.messages.push_back(message);
        wake_receiver(state);
    }

    pub(super) fn try_reserve(&self) -> Result<(), TrySendError<()>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(TrySendError::Closed(()));
        }
        if state.is_full(self.capacity) {
            return Err(TrySendError::Full(()));
        }
        state.reserved += 1;
        Ok(())
    }

    /// Gives a reserved place back.
    pub(super) fn give_back(&self) {
        let mut state = self.state.lock();
        state.reserved -= 1;
        let mut waker = state.pass_place();
        if waker.is_none() && state.closed && state.reserved == 0 {
            // The receiver may have waited for this place only.
            waker = state.receiver.take();
        }
        drop(state);
        wake(waker);
    }

    /// Reserves a place, or joins the queue. An error: the channel is closed.
    ///
    /// # Safety
    /// The waiter is pinned, is in no other queue ever, and [`cancel`](Shared::cancel) is called before it goes.
    pub(super) unsafe fn poll_reserve(&self, waiter: &Waiter, context: &Context<'_>) -> Poll<Result<(), ()>> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        let result = match waiter.stage() {
            Stage::Given => Poll::Ready(Ok(())),
            Stage::Released => Poll::Ready(Err(())),
            Stage::Idle if state.closed => Poll::Ready(Err(())),
            Stage::Idle if !state.is_full(self.capacity) => {
                state.reserved += 1;
                Poll::Ready(Ok(()))
            }
            Stage::Idle | Stage::Queued => Poll::Pending,
        };
        let unused = match result {
            Poll::Ready(_) => {
                waiter.reset();
                Some(waker)
            }
            // SAFETY: the caller's promise.
            Poll::Pending => unsafe { waiter.join(&mut state.waiters, waker) },
        };
        drop(state);
        drop(unused);
        if result.is_pending() {
            waits_for(WaitReason::Channel);
        }
        result
    }

    /// Leaves the queue, or gives the place back that was given.
    #[cold]
    pub(super) fn cancel(&self, waiter: &Waiter) {
        let mut state = self.state.lock();
        // SAFETY: the waiter only ever joins this queue.
        let (stage, waker) = unsafe { waiter.leave(&mut state.waiters) };
        drop(state);
        drop(waker);
        if stage == Stage::Given {
            self.give_back();
        }
    }

    /// Takes a message if there is one.
    #[inline]
    fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        let message = state.messages.pop_front()?;
        if !state.waiters.is_empty() {
            pass_place(state);
        }
        Some(message)
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(message) = self.pop() {
            return Ok(message);
        }
        if !self.state.lock().is_over() {
            return Err(TryRecvError::Empty);
        }
        // What was sent before it was over is there by now.
        self.pop().ok_or(TryRecvError::Disconnected)
    }

    /// Only the receiver calls it: it has one waker.
    #[inline]
    pub(super) fn poll_recv(&self, context: &Context<'_>) -> Poll<Option<T>> {
        match self.pop() {
            Some(message) => Poll::Ready(Some(message)),
            None => self.pop_or_register(context),
        }
    }

    #[cold]
    fn pop_or_register(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        if !state.messages.is_empty() || state.is_over() {
            drop(state);
            drop(waker);
            return Poll::Ready(self.pop());
        }
        let old = state.receiver.replace(waker);
        drop(state);
        drop(old);
        waits_for(WaitReason::Channel);
        Poll::Pending
    }

    /// Refuses messages and ends the wait of senders.
    pub(super) fn close(&self) {
        loop {
            let mut state = self.state.lock();
            state.closed = true;
            let batch = Batch::release(&mut state.waiters, |_| true);
            drop(state);
            if batch.wake() == Rest::Nothing {
                break;
            }
        }
        self.left.wake_all();
    }

    /// For the receiver's end: closes, and drops what is there.
    pub(super) fn shut(&self) {
        self.close();
        let mut state = self.state.lock();
        let left = (mem::take(&mut state.messages), state.receiver.take());
        drop(state);
        drop(left);
    }

    pub(super) async fn closed(&self) {
        self.left.wait_for(|| self.is_closed().then_some(())).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(super) fn add_sender(&self) {
        self.state.lock().senders += 1;
    }

    pub(super) fn drop_sender(&self) {
        let mut state = self.state.lock();
        state.senders -= 1;
        let receiver = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        wake(receiver);
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Free places.
    pub(super) fn free(&self) -> usize {
        let state = self.state.lock();
        self.capacity - state.messages.len() - state.reserved
    }

    /// Messages.
    pub(super) fn len(&self) -> usize {
        self.state.lock().messages.len()
    }
}

/// Wakes the receiver, if it waits, after the lock.
#[cold]
#[inline(never)]
fn wake_receiver<T>(mut state: SpinGuard<'_, State<T>>) {
    let receiver = state.receiver.take();
    drop(state);
    wake(receiver);
}

/// Gives a place that became free to a sender, and wakes it after the lock.
#[cold]
#[inline(never)]
fn pass_place<T>(mut state: SpinGuard<'_, State<T>>) {
    let sender = state.pass_place();
    drop(state);
    wake(sender);
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
