//! A counting semaphore, first come, first served.
//!
//! The word counts permits and says whether somebody waits. While WAITING is set the word changes under the
//! queue's lock only, so permits go to the front of the queue and nobody overtakes.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | acquire, release, nobody waits | the word alone |
//! | acquire in vain, release | joining sets WAITING by compare-and-swap under the queue's lock |
//! | release, cancel | who was given permits and goes without them releases them |
//! | cancel of the front, permits that are too few for it | the cancel serves the new front |
//! | close, anything | CLOSED ends every wait and refuses every later one; permits may still be released |
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use alloc::sync::Arc;
use core::fmt;
use core::task::{Context, Poll};

use crate::atomic::{AtomicU32, Ordering, const_unless_loom};
use crate::list::List;
use crate::lock::{SpinGuard, SpinLock};
use crate::reason::{WaitReason, waits_for};
use crate::waiter::{Batch, Rest, Stage, Waiter, Waiters};

mod permit;

pub use permit::{Acquire, AcquireOwned, OwnedSemaphorePermit, SemaphorePermit};

const CLOSED: u32 = 1;
const WAITING: u32 = 2;
const SHIFT: u32 = 2;

/// Permits that tasks wait for. Not for interrupt handlers.
pub struct Semaphore {
    word: AtomicU32,
    waiters: SpinLock<Waiters>,
    reason: WaitReason,
}

/// The semaphore was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireError;

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore is closed")
    }
}

impl core::error::Error for AcquireError {}

/// Why no permit could be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The semaphore was closed.
    Closed,
    /// Too few permits, or others wait for them.
    NoPermits,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryAcquireError::Closed => "the semaphore is closed",
            TryAcquireError::NoPermits => "no permits are available",
        })
    }
}

impl core::error::Error for TryAcquireError {}

/// So many permits as they stand in the word.
fn count(permits: usize) -> u32 {
    assert!(permits <= Semaphore::MAX_PERMITS, "a semaphore cannot hold that many permits");
    (permits as u32) << SHIFT
}

impl Semaphore {
    /// The most permits that a semaphore can hold, or that can be asked for at once.
    pub const MAX_PERMITS: usize = (u32::MAX >> SHIFT) as usize;

    const_unless_loom! {
        /// A semaphore with so many permits; who waits shows [`WaitReason::Semaphore`].
        ///
        /// # Panics
        /// With more than [`MAX_PERMITS`](Semaphore::MAX_PERMITS).
        pub fn new(permits: usize) -> Self {
            Semaphore::with_reason(permits, WaitReason::Semaphore)
        }
    }

    const_unless_loom! {
        /// As `new`, for another reason.
        ///
        /// # Panics
        /// As `new`.
        pub fn with_reason(permits: usize, reason: WaitReason) -> Self {
            assert!(permits <= Self::MAX_PERMITS, "a semaphore cannot hold that many permits");
            let word = AtomicU32::new((permits as u32) << SHIFT);
            Semaphore { word, waiters: SpinLock::new("semaphore waiters", List::new()), reason }
        }
    }

    /// Permits that nobody has at this moment.
    pub fn available_permits(&self) -> usize {
        (self.word.load(Ordering::Acquire) >> SHIFT) as usize
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// [`AcquireError`] if the semaphore is closed, or gets closed meanwhile.
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue; permits that it was already given are released.
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_many(1)
    }

    /// Waits for `permits` permits at once. Who asks for many also holds up those behind who ask for few; who asks
    /// for more than there will ever be waits for [`close`](Semaphore::close).
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire).
    ///
    /// # Panics
    /// With more than [`MAX_PERMITS`](Semaphore::MAX_PERMITS).
    ///
    /// # Cancellation
    /// As [`acquire`](Semaphore::acquire).
    pub fn acquire_many(&self, permits: u32) -> Acquire<'_> {
        count(permits as usize);
        Acquire { semaphore: self, waiter: Waiter::new(permits) }
    }

    /// As [`acquire`](Semaphore::acquire), with a permit that keeps the semaphore alive.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire).
    ///
    /// # Cancellation
    /// As [`acquire`](Semaphore::acquire).
    pub fn acquire_owned(self: Arc<Self>) -> AcquireOwned {
        self.acquire_many_owned(1)
    }

    /// As [`acquire_many`](Semaphore::acquire_many), with a permit that keeps the semaphore alive.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire).
    ///
    /// # Panics
    /// As [`acquire_many`](Semaphore::acquire_many).
    ///
    /// # Cancellation
    /// As [`acquire`](Semaphore::acquire).
    pub fn acquire_many_owned(self: Arc<Self>, permits: u32) -> AcquireOwned {
        count(permits as usize);
        AcquireOwned { waiter: Waiter::new(permits), semaphore: self }
    }

    /// Takes a permit if there is one and nobody waits.
    ///
    /// # Errors
    /// See [`TryAcquireError`].
    #[inline]
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes `permits` permits if they are there and nobody waits. More than a semaphore can hold are never there.
    ///
    /// # Errors
    /// See [`TryAcquireError`].
    #[inline]
    pub fn try_acquire_many(&self, permits: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.take(permits)?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// As [`try_acquire`](Semaphore::try_acquire), with a permit that keeps the semaphore alive.
    ///
    /// # Errors
    /// See [`TryAcquireError`].
    pub fn try_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// As [`try_acquire_many`](Semaphore::try_acquire_many), with a permit that keeps the semaphore alive.
    ///
    /// # Errors
    /// See [`TryAcquireError`].
    pub fn try_acquire_many_owned(
        self: Arc<Self>,
        permits: u32,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.take(permits)?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits })
    }

    /// Adds permits, and gives them to who waits.
    ///
    /// # Panics
    /// Where there would be more than [`MAX_PERMITS`](Semaphore::MAX_PERMITS); then none are added.
    #[inline]
    pub fn add_permits(&self, permits: usize) {
        let add = count(permits);
        let mut word = self.word.load(Ordering::Relaxed);
        while word & WAITING == 0 {
            let new = word.checked_add(add).expect("a semaphore cannot hold that many permits");
            match self.word.compare_exchange_weak(word, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        self.add_for_waiters(add);
    }

    #[cold]
    fn add_for_waiters(&self, add: u32) {
        let waiters = self.waiters.lock();
        // Whoever waited may have gone meanwhile, and others may take permits without the lock.
        let sum = |word: u32| word.checked_add(add);
        let added = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, sum);
        assert!(added.is_ok(), "a semaphore cannot hold that many permits");
        self.serve(waiters);
    }

    /// Takes up to `permits` permits away for good; returns how many there were.
    pub fn forget_permits(&self, permits: usize) -> usize {
        // Under the lock, since permits that are being given out must not vanish meanwhile.
        let _waiters = self.waiters.lock();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let taken = permits.min((word >> SHIFT) as usize);
            let new = word - count(taken);
            match self.word.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(now) => word = now,
            }
        }
    }

    /// Closes it for good: every wait under way and every later one ends with an error.
    pub fn close(&self) {
        loop {
            let mut waiters = self.waiters.lock();
            self.word.fetch_or(CLOSED, Ordering::AcqRel);
            let batch = Batch::release(&mut waiters, |_| true);
            if waiters.is_empty() {
                self.word.fetch_and(!WAITING, Ordering::AcqRel);
            }
            drop(waiters);
            if batch.wake() == Rest::Nothing {
                return;
            }
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    #[inline]
    fn take(&self, permits: u32) -> Result<(), TryAcquireError> {
        let too_many = permits as usize > Self::MAX_PERMITS;
        let need = if too_many { u32::MAX } else { permits << SHIFT };
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(TryAcquireError::Closed);
            }
            if word & WAITING != 0 || word < need {
                return Err(TryAcquireError::NoPermits);
            }
            match self.word.compare_exchange_weak(word, word - need, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    fn poll_acquire(&self, waiter: &Waiter, context: &Context<'_>) -> Poll<Result<(), AcquireError>> {
        if waiter.stage() == Stage::Idle {
            match self.take(waiter.need.get()) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(TryAcquireError::Closed) => return Poll::Ready(Err(AcquireError)),
                Err(TryAcquireError::NoPermits) => {}
            }
        }
        let result = self.take_or_join(waiter, context);
        if result.is_pending() {
            waits_for(self.reason);
        }
        result
    }

    #[cold]
    fn take_or_join(&self, waiter: &Waiter, context: &Context<'_>) -> Poll<Result<(), AcquireError>> {
        let waker = context.waker().clone();
        let mut waiters = self.waiters.lock();
        match waiter.stage() {
            Stage::Given => {
                waiter.reset();
                return Poll::Ready(Ok(()));
            }
            Stage::Released => {
                waiter.reset();
                return Poll::Ready(Err(AcquireError));
            }
            Stage::Queued => {}
            Stage::Idle => loop {
                match self.take(waiter.need.get()) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TryAcquireError::Closed) => return Poll::Ready(Err(AcquireError)),
                    Err(TryAcquireError::NoPermits) => {}
                }
                let word = self.word.load(Ordering::Relaxed);
                let short = word & WAITING != 0 || word < waiter.need.get() << SHIFT;
                // The word must not have got permits between the look and the mark.
                if short
                    && word & CLOSED == 0
                    && self
                        .word
                        .compare_exchange(word, word | WAITING, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok()
                {
                    break;
                }
            },
        }
        // SAFETY: both futures pin their waiter, which knows this queue only and leaves it when dropped.
        let old = unsafe { waiter.join(&mut waiters, waker) };
        drop(waiters);
        drop(old);
        Poll::Pending
    }

    /// Gives permits to the front of the queue as far as they go. The lock goes between batches and at the end.
    fn serve<'a>(&'a self, mut waiters: SpinGuard<'a, Waiters>) {
        loop {
            let mut batch = Batch::new();
            while !batch.is_full()
                && let Some(front) = waiters.front()
                && self.word.load(Ordering::Relaxed) >> SHIFT >= front.need.get()
            {
                self.word.fetch_sub(front.need.get() << SHIFT, Ordering::AcqRel);
                batch.take_first(&mut waiters, Stage::Given);
            }
            if waiters.is_empty() {
                self.word.fetch_and(!WAITING, Ordering::AcqRel);
            }
            drop(waiters);
            if batch.wake() == Rest::Nothing {
                return;
            }
            waiters = self.waiters.lock();
        }
    }

    fn cancel(&self, waiter: &Waiter) {
        if waiter.stage() == Stage::Idle {
            return;
        }
        let mut waiters = self.waiters.lock();
        // SAFETY: the waiter only ever joins this queue.
        let (stage, waker) = unsafe { waiter.leave(&mut waiters) };
        if stage == Stage::Queued {
            self.serve(waiters);
        } else {
            drop(waiters);
        }
        drop(waker);
        if stage == Stage::Given {
            self.add_permits(waiter.need.get() as usize);
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Semaphore({} permits)", self.available_permits())
    }
}
