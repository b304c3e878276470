//! A place for one waker, woken from anywhere.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | register, wake | the wake leaves WAKING behind; the end of `register` sees it and wakes itself |
//! | wake, wake | the second sees WAKING and leaves the work to the first |
//! | interrupt handler, either of them interrupted | as above: nobody spins |
#![allow(unsafe_code, reason = "the slot belongs to who won the state word")]

use core::fmt;
use core::task::Waker;

use crate::atomic::{AtomicU32, Ordering, UnsafeCell, const_unless_loom};

const FREE: u32 = 0;
/// The slot belongs to `register`.
const REGISTERING: u32 = 1;
/// The slot belongs to `take`, if REGISTERING was not set before.
const WAKING: u32 = 2;

/// Holds the waker of one waiting task.
pub struct AtomicWaker {
    state: AtomicU32,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the slot is touched only by who won it through the state word.
unsafe impl Sync for AtomicWaker {}
// SAFETY: a waker may be sent.
unsafe impl Send for AtomicWaker {}

impl Default for AtomicWaker {
    fn default() -> Self {
        AtomicWaker::new()
    }
}

impl AtomicWaker {
    const_unless_loom! {
        /// Holds none.
        pub fn new() -> Self {
            AtomicWaker { state: AtomicU32::new(FREE), waker: UnsafeCell::new(None) }
        }
    }

    /// Notes who is to be woken, in place of who was before. Afterwards look at what is waited for: a wake
    /// before this is not remembered. Only one task at a time may call it; not for interrupt handlers.
    pub fn register(&self, waker: &Waker) {
        match self.state.compare_exchange(FREE, REGISTERING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                self.waker.with_mut(|slot| {
                    // SAFETY: REGISTERING is ours.
                    let slot = unsafe { &mut *slot };
                    match slot {
                        Some(known) => known.clone_from(waker),
                        // Nothing is dropped, which the compiler cannot know.
                        None => core::mem::forget(slot.replace(waker.clone())),
                    }
                });
                let end = self.state.compare_exchange(REGISTERING, FREE, Ordering::AcqRel, Ordering::Acquire);
                if end.is_err() {
                    // A wake came meanwhile and left the slot to us.
                    // SAFETY: REGISTERING is still ours.
                    let waker = self.waker.with_mut(|slot| unsafe { (*slot).take() });
                    self.state.swap(FREE, Ordering::AcqRel);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            // A wake is under way and may have taken the old waker: the caller looks again.
            Err(_) => waker.wake_by_ref(),
        }
    }

    /// Wakes who was registered, once. May be called from an interrupt handler as far as the waker allows: those
    /// of this crate's tasks do.
    #[inline]
    pub fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    /// Takes the waker out. May be called from an interrupt handler; so may dropping a waker of this crate's tasks.
    #[inline]
    pub fn take(&self) -> Option<Waker> {
        let free = self.state.compare_exchange(FREE, WAKING, Ordering::AcqRel, Ordering::Relaxed);
        if free.is_err() && self.state.fetch_or(WAKING, Ordering::AcqRel) != FREE {
            return None;
        }
        // SAFETY: the word was FREE, so WAKING made the slot ours.
        let waker = self.waker.with_mut(|slot| unsafe { (*slot).take() });
        self.state.fetch_and(!WAKING, Ordering::Release);
        waker
    }
}

impl fmt::Debug for AtomicWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtomicWaker")
    }
}
