//! A channel that keeps the last value only, for many receivers.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Notify;
use crate::lock::{SpinGuard, SpinLock};
use crate::reason::WaitReason;

/// The version's lowest bit: the senders are gone. Versions go in steps of two.
const CLOSED: usize = 1;
const STEP: usize = 2;

struct Shared<T> {
    value: SpinLock<T>,
    /// Changed under the value's lock.
    version: AtomicUsize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
    /// The last receiver went.
    left: Notify,
}

/// A channel that starts with `value`, which counts as seen by the receiver.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: SpinLock::new("watch channel", value),
        version: AtomicUsize::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        changed: Notify::with_reason(WaitReason::Channel),
        left: Notify::with_reason(WaitReason::Channel),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, seen: AtomicUsize::new(0) })
}

/// No receiver is there; here is the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody watches the channel")
    }
}

impl<T> core::error::Error for SendError<T> {}

/// The senders are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the senders are gone")
    }
}

impl core::error::Error for RecvError {}

/// The value, locked by a spin lock: keep it for a moment, borrow it once at a time, and not across an `await`.
pub struct Ref<'a, T> {
    value: SpinGuard<'a, T>,
    changed: bool,
}

impl<T> Ref<'_, T> {
    /// Whether the receiver that borrowed it had not seen it before.
    pub fn has_changed(&self) -> bool {
        self.changed
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Sets the value.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sets the value and wakes who waits for a change.
    ///
    /// # Errors
    /// Gives the value back if there is no receiver.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Sets the value, also when nobody watches, and returns the one before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|current| core::mem::swap(current, &mut value));
        value
    }

    /// Changes the value in place, with interrupts off: briefly.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place, with interrupts off; `modify` says whether that is worth a wake.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.shared.value.lock();
        let modified = modify(&mut value);
        if modified {
            self.shared.version.fetch_add(STEP, Ordering::Release);
        }
        drop(value);
        if modified {
            self.shared.changed.notify_waiters();
        }
        modified
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { value: self.shared.value.lock(), changed: false }
    }

    /// One more receiver, which has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        let seen = self.shared.version.load(Ordering::Acquire) & !CLOSED;
        Receiver { shared: Arc::clone(&self.shared), seen: AtomicUsize::new(seen) }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.shared.receivers.load(Ordering::Acquire)
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Waits until there is no receiver ([`WaitReason::Channel`]).
    ///
    /// # Cancellation
    /// Dropping it does nothing.
    pub async fn closed(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.is_closed() {
                return;
            }
            left.await;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.version.fetch_or(CLOSED, Ordering::Release);
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch::Sender")
    }
}

/// Sees the last value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Atomic only so that a shared borrow can note it.
    seen: AtomicUsize,
}

impl<T> Receiver<T> {
    /// The value; it does not count as seen by this.
    pub fn borrow(&self) -> Ref<'_, T> {
        let value = self.shared.value.lock();
        let changed = self.shared.version.load(Ordering::Acquire) & !CLOSED != self.seen();
        Ref { value, changed }
    }

    /// The value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.look()
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    fn look(&self) -> Ref<'_, T> {
        let value = self.shared.value.lock();
        let version = self.shared.version.load(Ordering::Acquire) & !CLOSED;
        let changed = self.seen.swap(version, Ordering::Relaxed) != version;
        Ref { value, changed }
    }

    /// The value, if it is as asked for.
    fn look_if(&self, wanted: &mut impl FnMut(&T) -> bool) -> Option<Ref<'_, T>> {
        let value = self.look();
        if wanted(&value) { Some(value) } else { None }
    }

    /// Whether there is a value that this receiver has not seen.
    ///
    /// # Errors
    /// [`RecvError`] if the senders are gone and the last value was seen.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let version = self.shared.version.load(Ordering::Acquire);
        let changed = version & !CLOSED != self.seen();
        if !changed && version & CLOSED != 0 { Err(RecvError) } else { Ok(changed) }
    }

    /// Lets the current value count as not seen.
    pub fn mark_changed(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire).wrapping_sub(STEP) & !CLOSED;
        self.seen.store(version, Ordering::Relaxed);
    }

    /// Waits for a value that was not seen, and marks it as seen ([`WaitReason::Channel`]).
    ///
    /// # Errors
    /// [`RecvError`] if the senders are gone and the last value was seen.
    ///
    /// # Cancellation
    /// Dropping it loses nothing: the value still counts as not seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.wait().await
    }

    async fn wait(&self) -> Result<(), RecvError> {
        loop {
            let changed = self.shared.changed.notified();
            if self.has_changed()? {
                drop(self.look());
                return Ok(());
            }
            changed.await;
        }
    }

    /// Waits until the value is as asked for, and gives it. `wanted` runs with interrupts off: briefly.
    ///
    /// # Errors
    /// [`RecvError`] if the senders are gone and the last value is not as asked for.
    ///
    /// # Cancellation
    /// Dropping it does nothing.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            // The senders are looked at first: what they sent before they went is then in the value.
            let closed = self.shared.version.load(Ordering::Acquire) & CLOSED != 0;
            if let Some(value) = self.look_if(&mut wanted) {
                return Ok(value);
            }
            if closed || self.wait().await.is_err() {
                return Err(RecvError);
            }
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver { shared: Arc::clone(&self.shared), seen: AtomicUsize::new(self.seen()) }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.left.notify_waiters();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch::Receiver")
    }
}
