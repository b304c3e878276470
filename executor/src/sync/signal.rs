//! A notification from an interrupt handler to one task.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::AtomicWaker;
use crate::atomic::{AtomicBool, Ordering, const_unless_loom};
use crate::reason::{WaitReason, waits_for};

/// Remembers that something happened, and wakes the one task that waits for it.
///
/// Signals that come while nobody waits are remembered as one. Several tasks must not wait at the same time: the
/// last one that was polled gets the signal.
///
/// `signal` may be called from an interrupt handler as long as the waiting future is polled with a task's own
/// waker, as it is under `await`, `join!` and `select_biased!`. Combinators that make wakers of their own
/// (`FuturesUnordered`, `shared`) may free memory when woken: put a task of its own between.
pub struct Signal {
    set: AtomicBool,
    waker: AtomicWaker,
    reason: WaitReason,
}

impl Signal {
    const_unless_loom! {
        /// Not set. Who waits for it shows `reason`.
        pub fn new(reason: WaitReason) -> Self {
            Signal { set: AtomicBool::new(false), waker: AtomicWaker::new(), reason }
        }
    }

    /// Sets it and wakes who waits. May be called from an interrupt handler, as above.
    #[inline]
    pub fn signal(&self) {
        self.set.swap(true, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether it was set; clears it. May be called from an interrupt handler.
    #[inline]
    pub fn take(&self) -> bool {
        self.set.swap(false, Ordering::AcqRel)
    }

    /// Waits until it is set, and clears it.
    ///
    /// # Cancellation
    /// Dropping it loses nothing: a signal that was not seen stays set.
    pub fn wait(&self) -> SignalWait<'_> {
        SignalWait { signal: self }
    }

    /// The form for own futures: ready, and cleared, if it is set; else `context`'s task is woken when it is.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.take() {
            return Poll::Ready(());
        }
        waits_for(self.reason);
        Poll::Pending
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.reason)
    }
}

/// See [`Signal::wait`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct SignalWait<'a> {
    signal: &'a Signal,
}

impl Future for SignalWait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.signal.poll_wait(context)
    }
}
