//! An async mutex: the lock goes straight to who waits longest.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | lock, unlock | the word; CONTENDED sends the unlock to the queue, and is set and cleared under its lock |
//! | unlock, cancel | who was given the lock and goes without it unlocks, which gives it to the next |
//! | lock, waiters in the queue | the word is never UNLOCKED while somebody waits, so nobody overtakes |
#![allow(unsafe_code, reason = "a mutex hands out references to what it guards")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::atomic::{AtomicU32, Ordering, const_unless_loom};
use crate::list::List;
use crate::lock::{SpinGuard, SpinLock};
use crate::reason::{WaitReason, waits_for_on};
use crate::waiter::{Stage, Waiter, Waiters, give_first};

mod owned;

pub use owned::OwnedMutexGuard;

const UNLOCKED: u32 = 0;
const LOCKED: u32 = 1;
/// Locked, and somebody may wait in the queue.
const CONTENDED: u32 = 2;

/// Mutual exclusion between tasks, held across `await` if need be. First come, first served; not poisoned by
/// anything. Not for interrupt handlers.
pub struct Mutex<T: ?Sized> {
    word: AtomicU32,
    waiters: SpinLock<Waiters>,
    value: UnsafeCell<T>,
}

// SAFETY: the mutex gives `&mut T` to one holder at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: owning the mutex is owning the value.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    const_unless_loom! {
        /// An open mutex around `value`.
        pub fn new(value: T) -> Self {
            let waiters = SpinLock::new("mutex waiters", List::new());
            Mutex { word: AtomicU32::new(UNLOCKED), waiters, value: UnsafeCell::new(value) }
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock ([`WaitReason::Mutex`]).
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue; a lock that it was already given goes to the next.
    #[inline(always)]
    pub fn lock(&self) -> Lock<'_, T> {
        Lock { mutex: self, waiter: Waiter::new(0) }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`TryLockError`] if it is not.
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError> {
        if self.take() { Ok(MutexGuard { mutex: self }) } else { Err(TryLockError) }
    }

    /// The value, for the mutex's only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes the lock if it is free.
    #[inline(always)]
    fn take(&self) -> bool {
        self.word.compare_exchange(UNLOCKED, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, or joins the queue, or renews the waker there: true if it has the lock.
    #[cold]
    #[inline(never)]
    fn lock_or_join(&self, waiter: &Waiter, waker: Waker) -> bool {
        if waiter.stage() != Stage::Idle {
            return self.renew(waiter, waker);
        }
        waiter.prepare(waker);
        let mut waiters = self.waiters.lock();
        // While somebody waits the word stays CONTENDED, so this only ever locks for a newcomer.
        if self.word.swap(CONTENDED, Ordering::Acquire) == UNLOCKED {
            if waiters.is_empty() {
                self.word.store(LOCKED, Ordering::Relaxed);
            }
            drop(waiters);
            drop(waiter.take_back());
            return true;
        }
        // SAFETY: `Lock` pins its waiter, which knows this queue only and leaves it in `drop`.
        unsafe { waiter.join_prepared(&mut waiters) };
        waits_for_on(SpinGuard::cpu(&waiters), WaitReason::Mutex);
        false
    }

    /// Another poll of one that has joined: true if it has the lock by now.
    #[cold]
    #[inline(never)]
    fn renew(&self, waiter: &Waiter, waker: Waker) -> bool {
        let mut waiters = self.waiters.lock();
        if waiter.stage() == Stage::Given {
            waiter.reset();
            return true;
        }
        // SAFETY: as above.
        let old = unsafe { waiter.join(&mut waiters, waker) };
        waits_for_on(SpinGuard::cpu(&waiters), WaitReason::Mutex);
        drop(waiters);
        drop(old);
        false
    }

    #[inline(always)]
    fn unlock(&self) {
        if self.word.compare_exchange(LOCKED, UNLOCKED, Ordering::Release, Ordering::Relaxed).is_err() {
            self.unlock_contended();
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_contended(&self) {
        let mut waiters = self.waiters.lock();
        if waiters.is_empty() {
            // Everybody who waited has given up.
            self.word.store(UNLOCKED, Ordering::Release);
            return;
        }
        let waker = give_first(&mut waiters, Stage::Given);
        if waiters.is_empty() {
            self.word.store(LOCKED, Ordering::Relaxed);
        }
        drop(waiters);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Ok(guard) => f.debug_tuple("Mutex").field(&&*guard).finish(),
            Err(TryLockError) => f.write_str("Mutex(<locked>)"),
        }
    }
}

/// The mutex is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryLockError;

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mutex is locked")
    }
}

impl core::error::Error for TryLockError {}

/// See [`Mutex::lock`].
#[must_use = "futures do nothing unless awaited"]
pub struct Lock<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    waiter: Waiter,
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = MutexGuard<'a, T>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_ref().get_ref();
        let mutex = this.mutex;
        if this.waiter.stage() == Stage::Given {
            this.waiter.reset();
            return Poll::Ready(MutexGuard { mutex });
        }
        // The waker goes by value: where the compiler knows whose it is, no context is made then.
        if mutex.take() || mutex.lock_or_join(&this.waiter, context.waker().clone()) {
            return Poll::Ready(MutexGuard { mutex });
        }
        Poll::Pending
    }
}

impl<T: ?Sized> Drop for Lock<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.waiter.stage() != Stage::Idle {
            self.give_up();
        }
    }
}

impl<T: ?Sized> Lock<'_, T> {
    /// Leaves the queue.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self) {
        let mut waiters = self.mutex.waiters.lock();
        // SAFETY: the waiter only ever joins this queue.
        let (stage, waker) = unsafe { self.waiter.leave(&mut waiters) };
        drop(waiters);
        drop(waker);
        if stage == Stage::Given {
            self.mutex.unlock();
        }
    }
}

impl<T: ?Sized> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// Shows that the mutex is locked; dropping it gives the lock to who waits longest.
#[must_use = "the mutex is unlocked at once if the guard is not kept"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this is the only holder.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists and is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
