//! Channels from many senders to one receiver.
//!
//! A bounded channel is a semaphore of free places and a queue; a message holds its permit until it is received.
//! Sending takes a spin lock and may allocate: not for interrupt handlers, which set a
//! [`Signal`](super::Signal) instead.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll};

use super::{AtomicWaker, Semaphore, TryAcquireError};
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};

mod error;

pub use error::{SendError, TryRecvError, TrySendError};

struct Shared<T> {
    queue: SpinLock<VecDeque<T>>,
    /// Free places. Unbounded channels use it for `close` only.
    places: Semaphore,
    capacity: usize,
    senders: AtomicUsize,
    receiver: AtomicWaker,
}

impl<T> Shared<T> {
    fn new(capacity: usize, room: usize) -> Arc<Self> {
        Arc::new(Shared {
            queue: SpinLock::new("channel", VecDeque::with_capacity(room)),
            places: Semaphore::with_reason(capacity, WaitReason::Channel),
            capacity,
            senders: AtomicUsize::new(1),
            receiver: AtomicWaker::new(),
        })
    }

    #[inline]
    fn push(&self, value: T) {
        self.queue.lock().push_back(value);
        self.receiver.wake();
    }

    fn add_sender(&self) {
        let old = self.senders.fetch_add(1, Ordering::Relaxed);
        assert!(old < usize::MAX / 2, "too many senders");
    }

    fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.receiver.wake();
        }
    }

    /// Nothing can come any more: no senders, or closed with no place reserved.
    fn is_over(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
            || self.places.is_closed() && self.places.available_permits() == self.capacity
    }

    fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(value) = self.pop() {
            return Ok(value);
        }
        if !self.is_over() {
            return Err(TryRecvError::Empty);
        }
        // What was sent before it was over is in the queue by now.
        self.pop().ok_or(TryRecvError::Disconnected)
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        let value = self.queue.lock().pop_front()?;
        if self.capacity != 0 {
            self.places.add_permits(1);
        }
        Some(value)
    }

    fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        for register in [true, false] {
            match self.try_recv() {
                Ok(value) => return Poll::Ready(Some(value)),
                Err(TryRecvError::Disconnected) => return Poll::Ready(None),
                Err(TryRecvError::Empty) if register => self.receiver.register(context.waker()),
                Err(TryRecvError::Empty) => {}
            }
        }
        waits_for(WaitReason::Channel);
        Poll::Pending
    }

    /// For the receiver's end: refuses messages, and drops those that are there.
    fn shut(&self) {
        self.places.close();
        while self.try_recv().is_ok() {}
    }
}

/// A channel with places for `capacity` messages.
///
/// # Panics
/// With a capacity of zero, or of more than [`Semaphore::MAX_PERMITS`].
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel needs a place for a message");
    // Small channels never allocate again; a large one grows to what is really used.
    let shared = Shared::new(capacity, capacity.min(64));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// A channel that always has room.
pub fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    let shared = Shared::new(0, 0);
    (UnboundedSender { shared: Arc::clone(&shared) }, UnboundedReceiver { shared })
}

/// Sends into a bounded channel.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Waits for a free place ([`WaitReason::Channel`]) and sends.
    ///
    /// # Errors
    /// Gives the message back if the receiver is gone or closed.
    ///
    /// # Cancellation
    /// Dropping it drops the message unsent; to keep it, [`reserve`](Sender::reserve) first.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        if let Ok(permit) = self.try_reserve() {
            permit.send(value);
            return Ok(());
        }
        match self.reserve().await {
            Ok(permit) => {
                permit.send(value);
                Ok(())
            }
            Err(SendError(())) => Err(SendError(value)),
        }
    }

    /// Waits for a free place and keeps it.
    ///
    /// # Errors
    /// If the receiver is gone or closed.
    ///
    /// # Cancellation
    /// Dropping it gives up the place in the queue, and loses nothing.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        match self.shared.places.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(Permit { shared: &self.shared })
            }
            Err(_) => Err(SendError(())),
        }
    }

    /// Keeps a free place if there is one.
    ///
    /// # Errors
    /// See [`TrySendError`].
    #[inline]
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        match self.shared.places.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(Permit { shared: &self.shared })
            }
            Err(TryAcquireError::NoPermits) => Err(TrySendError::Full(())),
            Err(TryAcquireError::Closed) => Err(TrySendError::Closed(())),
        }
    }

    /// Sends if there is a free place.
    ///
    /// # Errors
    /// Gives the message back: see [`TrySendError`].
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self.try_reserve() {
            Ok(permit) => {
                permit.send(value);
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(TrySendError::Full(value)),
            Err(TrySendError::Closed(())) => Err(TrySendError::Closed(value)),
        }
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.shared.places.is_closed()
    }

    /// Free places at this moment.
    pub fn capacity(&self) -> usize {
        self.shared.places.available_permits()
    }

    /// Places in all.
    pub fn max_capacity(&self) -> usize {
        self.shared.capacity
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.add_sender();
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.drop_sender();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mpsc::Sender({} places free)", self.capacity())
    }
}

/// A place in a bounded channel. Dropping it gives the place back.
pub struct Permit<'a, T> {
    shared: &'a Shared<T>,
}

impl<T> Permit<'_, T> {
    /// Sends. Never waits, never fails; if the receiver is gone the message is dropped with the channel.
    pub fn send(self, value: T) {
        self.shared.push(value);
        core::mem::forget(self);
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        self.shared.places.add_permits(1);
        if self.shared.places.is_closed() {
            // The receiver may have waited for this place only.
            self.shared.receiver.wake();
        }
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mpsc::Permit")
    }
}

/// Sends into an unbounded channel.
pub struct UnboundedSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> UnboundedSender<T> {
    /// Sends. Never waits.
    ///
    /// # Errors
    /// Gives the message back if the receiver is gone or closed.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        self.shared.push(value);
        Ok(())
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.shared.places.is_closed()
    }
}

impl<T> Clone for UnboundedSender<T> {
    fn clone(&self) -> Self {
        self.shared.add_sender();
        UnboundedSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for UnboundedSender<T> {
    fn drop(&mut self) {
        self.shared.drop_sender();
    }
}

impl<T> fmt::Debug for UnboundedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mpsc::UnboundedSender")
    }
}

macro_rules! receiver {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<T> {
            shared: Arc<Shared<T>>,
        }

        impl<T> $name<T> {
            /// Waits for a message ([`WaitReason::Channel`]); `None` once nothing can come any more.
            ///
            /// # Cancellation
            /// Dropping it loses no message.
            pub async fn recv(&mut self) -> Option<T> {
                core::future::poll_fn(|context| self.poll_recv(context)).await
            }

            /// The form of `recv` for own futures.
            pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
                self.shared.poll_recv(context)
            }

            /// Takes a message if there is one.
            ///
            /// # Errors
            /// See [`TryRecvError`].
            pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
                self.shared.try_recv()
            }

            /// Refuses messages from now on. Those that were sent before can still be received.
            pub fn close(&mut self) {
                self.shared.places.close();
            }

            /// How many messages are there.
            pub fn len(&self) -> usize {
                self.shared.queue.lock().len()
            }

            /// Whether no message is there.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl<T> Drop for $name<T> {
            fn drop(&mut self) {
                self.shared.shut();
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("mpsc::", stringify!($name), "({} messages)"), self.len())
            }
        }
    };
}

receiver!(
    /// Receives from a bounded channel.
    Receiver
);
receiver!(
    /// Receives from an unbounded channel.
    UnboundedReceiver
);
