//! Waiting for a semaphore's permits, and holding them.

use alloc::sync::Arc;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::{AcquireError, Semaphore};
use crate::waiter::Waiter;

/// See [`Semaphore::acquire`].
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a> {
    pub(super) semaphore: &'a Semaphore,
    pub(super) waiter: Waiter,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<SemaphorePermit<'a>, AcquireError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_ref().get_ref();
        let semaphore = this.semaphore;
        let permits = this.waiter.need.get();
        semaphore.poll_acquire(&this.waiter, context).map_ok(|()| SemaphorePermit { semaphore, permits })
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.cancel(&self.waiter);
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acquire")
    }
}

/// See [`Semaphore::acquire_owned`].
#[must_use = "futures do nothing unless awaited"]
pub struct AcquireOwned {
    pub(super) waiter: Waiter,
    pub(super) semaphore: Arc<Semaphore>,
}

impl Future for AcquireOwned {
    type Output = Result<OwnedSemaphorePermit, AcquireError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_ref().get_ref();
        let permits = this.waiter.need.get();
        this.semaphore
            .poll_acquire(&this.waiter, context)
            .map_ok(|()| OwnedSemaphorePermit { semaphore: Arc::clone(&this.semaphore), permits })
    }
}

impl Drop for AcquireOwned {
    fn drop(&mut self) {
        self.semaphore.cancel(&self.waiter);
    }
}

impl fmt::Debug for AcquireOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcquireOwned")
    }
}

/// Permits of a semaphore, released when dropped.
#[must_use = "the permits are released at once if they are not kept"]
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    pub(super) semaphore: &'a Semaphore,
    pub(super) permits: u32,
}

impl<'a> SemaphorePermit<'a> {
    /// Takes `permits` of them into a guard of their own; `None` if there are not so many.
    pub fn split(&mut self, permits: usize) -> Option<SemaphorePermit<'a>> {
        let permits = u32::try_from(permits).ok()?;
        self.permits = self.permits.checked_sub(permits)?;
        Some(SemaphorePermit { semaphore: self.semaphore, permits })
    }

    /// Takes the permits away from the semaphore for good.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// How many permits these are.
    pub fn num_permits(&self) -> usize {
        self.permits as usize
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.permits != 0 {
            self.semaphore.add_permits(self.permits as usize);
        }
    }
}

/// Permits of a semaphore that they keep alive, released when dropped.
#[must_use = "the permits are released at once if they are not kept"]
#[derive(Debug)]
pub struct OwnedSemaphorePermit {
    pub(super) semaphore: Arc<Semaphore>,
    pub(super) permits: u32,
}

impl OwnedSemaphorePermit {
    /// Takes `permits` of them into a guard of their own; `None` if there are not so many.
    pub fn split(&mut self, permits: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(permits).ok()?;
        self.permits = self.permits.checked_sub(permits)?;
        Some(OwnedSemaphorePermit { semaphore: Arc::clone(&self.semaphore), permits })
    }

    /// Takes the permits away from the semaphore for good.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// How many permits these are.
    pub fn num_permits(&self) -> usize {
        self.permits as usize
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        if self.permits != 0 {
            self.semaphore.add_permits(self.permits as usize);
        }
    }
}
