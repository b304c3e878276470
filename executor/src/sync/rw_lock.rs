//! A fair read-write lock: a semaphore of which a reader takes one permit and a writer all.
#![allow(unsafe_code, reason = "a lock hands out references to what it guards")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};

use super::{Semaphore, SemaphorePermit, TryLockError};
use crate::atomic::const_unless_loom;
use crate::reason::WaitReason;

mod owned;

pub use owned::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

/// Many readers or one writer, across `await` if need be. First come, first served: readers do not overtake a
/// waiting writer, nor writers a waiting reader. Not poisoned by anything; not for interrupt handlers.
pub struct RwLock<T: ?Sized> {
    permits: Semaphore,
    value: UnsafeCell<T>,
}

/// The most readers at a time; one more waits.
const READERS: u32 = Semaphore::MAX_PERMITS as u32 / 2;

// SAFETY: readers share the value, so it must be `Sync`; a writer may be anywhere, so `Send`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}

impl<T> RwLock<T> {
    const_unless_loom! {
        /// An open lock around `value`.
        pub fn new(value: T) -> Self {
            let permits = Semaphore::with_reason(READERS as usize, WaitReason::Mutex);
            RwLock { permits, value: UnsafeCell::new(value) }
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until it may read ([`WaitReason::Mutex`]).
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue.
    pub async fn read(&self) -> RwLockReadGuard<'_, T> {
        match self.permits.acquire().await {
            Ok(permit) => RwLockReadGuard { permit, lock: self },
            Err(_) => unreachable!("the semaphore of a lock is never closed"),
        }
    }

    /// Waits until it may write ([`WaitReason::Mutex`]).
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue.
    pub async fn write(&self) -> RwLockWriteGuard<'_, T> {
        match self.permits.acquire_many(READERS).await {
            Ok(permit) => RwLockWriteGuard { permit, lock: self },
            Err(_) => unreachable!("the semaphore of a lock is never closed"),
        }
    }

    /// Reads if nobody writes or waits.
    ///
    /// # Errors
    /// [`TryLockError`] otherwise.
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError> {
        let permit = self.permits.try_acquire().map_err(|_| TryLockError)?;
        Ok(RwLockReadGuard { permit, lock: self })
    }

    /// Writes if nobody reads, writes or waits.
    ///
    /// # Errors
    /// [`TryLockError`] otherwise.
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError> {
        let permit = self.permits.try_acquire_many(READERS).map_err(|_| TryLockError)?;
        Ok(RwLockWriteGuard { permit, lock: self })
    }

    /// The value, for the lock's only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Ok(guard) => f.debug_tuple("RwLock").field(&&*guard).finish(),
            Err(TryLockError) => f.write_str("RwLock(<locked>)"),
        }
    }
}

/// Shows that the lock is held for reading; dropping it releases it.
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    #[expect(dead_code, reason = "gives the permit back when dropped")]
    permit: SemaphorePermit<'a>,
    lock: &'a RwLock<T>,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: a permit is held, so no writer has all.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Shows that the lock is held for writing; dropping it releases it.
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    permit: SemaphorePermit<'a>,
    lock: &'a RwLock<T>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Goes on as a reader, without letting a writer in between.
    pub fn downgrade(self) -> RwLockReadGuard<'a, T> {
        let RwLockWriteGuard { mut permit, lock } = self;
        drop(permit.split(READERS as usize - 1));
        RwLockReadGuard { permit, lock }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: all permits are held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: all permits are held, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
