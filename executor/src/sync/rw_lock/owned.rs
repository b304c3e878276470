//! Guards that keep their lock alive.
#![allow(unsafe_code, reason = "a lock hands out references to what it guards")]

use alloc::sync::Arc;
use core::fmt;
use core::mem::{ManuallyDrop, forget};
use core::ops::{Deref, DerefMut};

use super::{READERS, RwLock};
use crate::sync::TryLockError;

impl<T: ?Sized> RwLock<T> {
    /// As [`read`](RwLock::read), with a guard that keeps the lock alive: it borrows nothing, so it may move into a task
    /// or a structure.
    ///
    /// # Cancellation
    /// As [`read`](RwLock::read).
    pub async fn read_owned(self: Arc<Self>) -> OwnedRwLockReadGuard<T> {
        forget(self.read().await);
        OwnedRwLockReadGuard { lock: self }
    }

    /// As [`write`](RwLock::write), with a guard that keeps the lock alive.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub async fn write_owned(self: Arc<Self>) -> OwnedRwLockWriteGuard<T> {
        forget(self.write().await);
        OwnedRwLockWriteGuard { lock: self }
    }

    /// As [`try_read`](RwLock::try_read), with a guard that keeps the lock alive.
    ///
    /// # Errors
    /// As [`try_read`](RwLock::try_read).
    pub fn try_read_owned(self: Arc<Self>) -> Result<OwnedRwLockReadGuard<T>, TryLockError> {
        forget(self.try_read()?);
        Ok(OwnedRwLockReadGuard { lock: self })
    }

    /// As [`try_write`](RwLock::try_write), with a guard that keeps the lock alive.
    ///
    /// # Errors
    /// As [`try_write`](RwLock::try_write).
    pub fn try_write_owned(self: Arc<Self>) -> Result<OwnedRwLockWriteGuard<T>, TryLockError> {
        forget(self.try_write()?);
        Ok(OwnedRwLockWriteGuard { lock: self })
    }
}

/// As [`RwLockReadGuard`](super::RwLockReadGuard), for a lock that it keeps alive. See [`RwLock::read_owned`].
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct OwnedRwLockReadGuard<T: ?Sized> {
    lock: Arc<RwLock<T>>,
}

impl<T: ?Sized> Deref for OwnedRwLockReadGuard<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: a permit is held, so no writer has all.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for OwnedRwLockReadGuard<T> {
    fn drop(&mut self) {
        self.lock.permits.add_permits(1);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for OwnedRwLockReadGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// As [`RwLockWriteGuard`](super::RwLockWriteGuard), for a lock that it keeps alive. See [`RwLock::write_owned`].
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct OwnedRwLockWriteGuard<T: ?Sized> {
    lock: Arc<RwLock<T>>,
}

impl<T: ?Sized> OwnedRwLockWriteGuard<T> {
    /// Goes on as a reader, without letting a writer in between.
    pub fn downgrade(self) -> OwnedRwLockReadGuard<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: the guard is not used or dropped any more.
        let lock = unsafe { core::ptr::read(&raw const this.lock) };
        lock.permits.add_permits(READERS as usize - 1);
        OwnedRwLockReadGuard { lock }
    }
}

impl<T: ?Sized> Deref for OwnedRwLockWriteGuard<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: all permits are held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for OwnedRwLockWriteGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: all permits are held, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for OwnedRwLockWriteGuard<T> {
    fn drop(&mut self) {
        self.lock.permits.add_permits(READERS as usize);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for OwnedRwLockWriteGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
