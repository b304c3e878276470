//! Guards that keep their mutex alive.
#![allow(unsafe_code, reason = "a mutex hands out references to what it guards")]

use alloc::sync::Arc;
use core::fmt;
use core::mem::forget;
use core::ops::{Deref, DerefMut};

use super::{Mutex, TryLockError};

impl<T: ?Sized> Mutex<T> {
    /// As [`lock`](Mutex::lock), with a guard that keeps the mutex alive: it borrows nothing, so it may move into a
    /// task or a structure.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub async fn lock_owned(self: Arc<Self>) -> OwnedMutexGuard<T> {
        forget(self.lock().await);
        OwnedMutexGuard { mutex: self }
    }

    /// As [`try_lock`](Mutex::try_lock), with a guard that keeps the mutex alive.
    ///
    /// # Errors
    /// [`TryLockError`] if it is locked.
    pub fn try_lock_owned(self: Arc<Self>) -> Result<OwnedMutexGuard<T>, TryLockError> {
        forget(self.try_lock()?);
        Ok(OwnedMutexGuard { mutex: self })
    }
}

/// As [`MutexGuard`](super::MutexGuard), for a mutex that it keeps alive. See [`Mutex::lock_owned`].
#[must_use = "the mutex is unlocked at once if the guard is not kept"]
pub struct OwnedMutexGuard<T: ?Sized> {
    mutex: Arc<Mutex<T>>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Send + Sync> Sync for OwnedMutexGuard<T> {}

impl<T: ?Sized> OwnedMutexGuard<T> {
    /// The mutex.
    pub fn mutex(this: &Self) -> &Arc<Mutex<T>> {
        &this.mutex
    }
}

impl<T: ?Sized> Deref for OwnedMutexGuard<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this is the only holder.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for OwnedMutexGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists and is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for OwnedMutexGuard<T> {
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for OwnedMutexGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
