//! Channels from many senders to one receiver.
//!
//! Sending takes a spin lock and may allocate: not for interrupt handlers, which set a
//! [`Signal`](super::Signal) instead. Receivers are streams, too.
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use alloc::sync::Arc;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;

use crate::waiter::{Stage, Waiter};

mod error;
mod shared;

pub use error::{SendError, TryRecvError, TrySendError};
use shared::Shared;

/// A channel with places for `capacity` messages.
///
/// # Panics
/// With a capacity of zero.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel needs a place for a message");
    // Small channels never allocate again; a large one grows to what is really used.
    let shared = Arc::new(Shared::new(capacity, capacity.min(64)));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// A channel that always has room.
pub fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    let shared = Arc::new(Shared::new(usize::MAX, 0));
    (UnboundedSender { shared: Arc::clone(&shared) }, UnboundedReceiver { shared })
}

/// Sends into a bounded channel.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Waits for a free place ([`WaitReason::Channel`](crate::WaitReason::Channel)) and sends.
    ///
    /// # Errors
    /// Gives the message back if the receiver is gone or closed.
    ///
    /// # Cancellation
    /// Dropping it drops the message unsent; to keep it, [`reserve`](Sender::reserve) first.
    #[inline]
    pub fn send(&self, value: T) -> SendValue<'_, T> {
        SendValue { reserve: self.reserve(), value: Some(value) }
    }

    /// Waits for a free place ([`WaitReason::Channel`](crate::WaitReason::Channel)) and keeps it. First come, first served.
    ///
    /// # Errors
    /// If the receiver is gone or closed, or goes meanwhile.
    ///
    /// # Cancellation
    /// Dropping it gives up the place in the queue, and loses nothing.
    #[inline]
    pub fn reserve(&self) -> Reserve<'_, T> {
        Reserve { shared: &self.shared, waiter: Waiter::new(0) }
    }

    /// Keeps a free place if there is one.
    ///
    /// # Errors
    /// See [`TrySendError`].
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        self.shared.try_reserve().map(|()| Permit { shared: &self.shared })
    }

    /// Sends if there is a free place.
    ///
    /// # Errors
    /// Gives the message back: see [`TrySendError`].
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.shared.try_send(value)
    }

    /// Waits until the receiver is gone or closed ([`WaitReason::Channel`](crate::WaitReason::Channel)).
    ///
    /// # Cancellation
    /// Dropping it does nothing.
    pub async fn closed(&self) {
        self.shared.closed().await;
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Free places at this moment.
    pub fn capacity(&self) -> usize {
        self.shared.free()
    }

    /// Places in all.
    pub fn max_capacity(&self) -> usize {
        self.shared.capacity()
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

/// See [`Sender::reserve`].
#[must_use = "futures do nothing unless awaited"]
pub struct Reserve<'a, T> {
    shared: &'a Shared<T>,
    waiter: Waiter,
}

impl<'a, T> Future for Reserve<'a, T> {
    type Output = Result<Permit<'a, T>, SendError<()>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_ref().get_ref();
        let shared = this.shared;
        // SAFETY: the waiter is pinned with the whole, knows this channel only, and is cancelled in `drop`.
        let result = unsafe { shared.poll_reserve(&this.waiter, context) };
        result.map(|result| result.map(|()| Permit { shared }).map_err(SendError))
    }
}

impl<T> Drop for Reserve<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.waiter.stage() != Stage::Idle {
            self.shared.cancel(&self.waiter);
        }
    }
}

impl<T> fmt::Debug for Reserve<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mpsc::Reserve")
    }
}

/// See [`Sender::send`].
#[must_use = "futures do nothing unless awaited"]
pub struct SendValue<'a, T> {
    reserve: Reserve<'a, T>,
    /// `None` once sent or refused.
    value: Option<T>,
}

impl<T> Future for SendValue<'_, T> {
    type Output = Result<(), SendError<T>>;

    /// # Panics
    /// After it was done.
    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the place in the queue stays pinned; the value is moved out, and is not.
        let this = unsafe { self.get_unchecked_mut() };
        let shared = this.reserve.shared;
        let value = this.value.take().expect("a send was polled after it was done");
        if this.reserve.waiter.stage() != Stage::Idle {
            this.value = Some(value);
            return this.poll_reserved(context);
        }
        match shared.try_send(value) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(TrySendError::Closed(value)) => Poll::Ready(Err(SendError(value))),
            Err(TrySendError::Full(value)) => {
                this.value = Some(value);
                this.poll_reserved(context)
            }
        }
    }
}

impl<T> SendValue<'_, T> {
    /// Waits for a place, and sends into it.
    #[cold]
    fn poll_reserved(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        // SAFETY: only `poll` calls this, where the whole is pinned.
        let reserve = unsafe { Pin::new_unchecked(&mut self.reserve) };
        let result = core::task::ready!(reserve.poll(context));
        let value = self.value.take().expect("kept until now");
        match result {
            Ok(permit) => {
                permit.send(value);
                Poll::Ready(Ok(()))
            }
            Err(SendError(())) => Poll::Ready(Err(SendError(value))),
        }
    }
}

impl<T> fmt::Debug for SendValue<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mpsc::SendValue")
    }
}

/// See [`Receiver::recv`].
#[must_use = "futures do nothing unless awaited"]
pub struct Recv<'a, T> {
    shared: &'a Shared<T>,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.shared.poll_recv(context)
    }
}

impl<T> fmt::Debug for Recv<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mpsc::Recv")
    }
}

/// A place in a bounded channel. Dropping it gives the place back.
pub struct Permit<'a, T> {
    shared: &'a Shared<T>,
}

impl<T> Permit<'_, T> {
    /// Sends. Never waits, never fails; if the receiver is gone the message is dropped with the channel.
    pub fn send(self, value: T) {
        self.shared.send_reserved(value);
        core::mem::forget(self);
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        self.shared.give_back();
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
        self.shared.try_send(value).map_err(|error| match error {
            TrySendError::Closed(value) | TrySendError::Full(value) => SendError(value),
        })
    }

    /// Waits until the receiver is gone or closed ([`WaitReason::Channel`](crate::WaitReason::Channel)).
    ///
    /// # Cancellation
    /// Dropping it does nothing.
    pub async fn closed(&self) {
        self.shared.closed().await;
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
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
            /// Waits for a message ([`WaitReason::Channel`](crate::WaitReason::Channel)); `None` once nothing can
            /// come any more.
            ///
            /// # Cancellation
            /// Dropping it loses no message.
            #[inline]
            pub fn recv(&mut self) -> Recv<'_, T> {
                Recv { shared: &self.shared }
            }

            /// The form of `recv` for own futures.
            #[inline]
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
                self.shared.close();
            }

            /// How many messages are there.
            pub fn len(&self) -> usize {
                self.shared.len()
            }

            /// Whether no message is there.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        /// [`recv`]($name::recv) as a stream. It may be polled after its end.
        impl<T> Stream for $name<T> {
            type Item = T;

            fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
                self.shared.poll_recv(context)
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
