//! A channel for one value.
//!
//! SENT and CLOSED exclude each other by compare-and-swap: whoever comes second knows that the other came first,
//! so the value has one owner at any time.
#![allow(unsafe_code, reason = "the value belongs to who the state word says")]

use alloc::sync::Arc;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::AtomicWaker;
use crate::atomic::{AtomicU32, Ordering, UnsafeCell};
use crate::reason::{WaitReason, waits_for};

/// The value is there, and the receiver's.
const SENT: u32 = 1;
/// The sender went without sending.
const ABANDONED: u32 = 2;
/// The receiver wants no value any more. Never set once SENT.
const CLOSED: u32 = 4;

struct Shared<T> {
    state: AtomicU32,
    value: UnsafeCell<Option<T>>,
    receiver: AtomicWaker,
    sender: AtomicWaker,
}

// SAFETY: the value is the sender's before SENT and the receiver's after.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

/// A channel for one value. Sending is not for interrupt handlers.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: AtomicU32::new(0),
        value: UnsafeCell::new(None),
        receiver: AtomicWaker::new(),
        sender: AtomicWaker::new(),
    });
    (Sender { shared: Some(Arc::clone(&shared)) }, Receiver { shared })
}

/// Sends the value.
pub struct Sender<T> {
    /// `None` once sent.
    shared: Option<Arc<Shared<T>>>,
}

impl<T> Sender<T> {
    /// Sends the value. Never waits.
    ///
    /// # Errors
    /// Gives the value back if the receiver is gone or closed.
    pub fn send(mut self, value: T) -> Result<(), T> {
        let Some(shared) = self.shared.take() else { return Err(value) };
        // SAFETY: not SENT, so the slot is the sender's.
        shared.value.with_mut(|slot| unsafe { *slot = Some(value) });
        let sent = shared.state.compare_exchange(0, SENT, Ordering::AcqRel, Ordering::Acquire);
        if sent.is_err() {
            // SAFETY: CLOSED, so SENT will never be, and the slot stays the sender's.
            return match shared.value.with_mut(|slot| unsafe { (*slot).take() }) {
                Some(value) => Err(value),
                None => Ok(()),
            };
        }
        shared.receiver.wake();
        Ok(())
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.state.load(Ordering::Acquire) & CLOSED != 0)
    }

    /// Waits until the receiver is gone or closed ([`WaitReason::Channel`]).
    ///
    /// # Cancellation
    /// Dropping it does nothing.
    pub async fn closed(&mut self) {
        core::future::poll_fn(|context| self.poll_closed(context)).await;
    }

    /// The form of [`closed`](Sender::closed) for own futures.
    pub fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = &self.shared else { return Poll::Ready(()) };
        shared.sender.register(context.waker());
        if self.is_closed() {
            return Poll::Ready(());
        }
        waits_for(WaitReason::Channel);
        Poll::Pending
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.state.fetch_or(ABANDONED, Ordering::AcqRel);
            shared.receiver.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("oneshot::Sender")
    }
}

/// Waits for the value ([`WaitReason::Channel`]).
///
/// # Cancellation
/// A `&mut Receiver` may be polled, left, and polled again.
#[must_use = "futures do nothing unless awaited"]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// The sender went without sending, or the value was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender is gone")
    }
}

impl core::error::Error for RecvError {}

/// Why there is no value at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Not yet.
    Empty,
    /// Never.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "nothing was sent yet",
            TryRecvError::Closed => "the sender is gone",
        })
    }
}

impl core::error::Error for TryRecvError {}

impl<T> Receiver<T> {
    /// Takes the value if it is there.
    ///
    /// # Errors
    /// See [`TryRecvError`].
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let state = self.shared.state.load(Ordering::Acquire);
        if state & SENT != 0 {
            // SAFETY: SENT, so the slot is the receiver's.
            let value = self.shared.value.with_mut(|slot| unsafe { (*slot).take() });
            return value.ok_or(TryRecvError::Closed);
        }
        if state & (ABANDONED | CLOSED) != 0 { Err(TryRecvError::Closed) } else { Err(TryRecvError::Empty) }
    }

    /// Refuses a value from now on. One that was sent before can still be received.
    pub fn close(&mut self) {
        let change = |state| if state & SENT != 0 { None } else { Some(state | CLOSED) };
        if self.shared.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok() {
            self.shared.sender.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        for register in [true, false] {
            match self.try_recv() {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(TryRecvError::Closed) => return Poll::Ready(Err(RecvError)),
                Err(TryRecvError::Empty) if register => self.shared.receiver.register(context.waker()),
                Err(TryRecvError::Empty) => {}
            }
        }
        waits_for(WaitReason::Channel);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("oneshot::Receiver")
    }
}
