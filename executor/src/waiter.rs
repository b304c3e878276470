//! A future's place in a queue, and the waking of those that are taken out of it.
//!
//! The wait queue, the mutex, the semaphore, notifications and the barrier each have a list of these under a spin
//! lock of their own.
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use core::cell::Cell;
use core::marker::PhantomPinned;
use core::mem::{ManuallyDrop, forget};
use core::task::Waker;

use crate::atomic::{AtomicU8, Ordering, const_unless_loom};
use crate::list::{Linked, Links, List};

/// How far a waiter has come.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In no queue, and nothing was given to it.
    Idle,
    /// In the queue.
    Queued,
    /// Taken out, with something given to it alone: a wake, a lock, permits.
    Given,
    /// Taken out because all were.
    Released,
}

/// A future's place in a queue. Its fields belong to the queue's lock, except that the future alone may touch a
/// waiter that it knows to be idle.
pub(crate) struct Waiter {
    links: Links<Waiter>,
    /// None while it is idle, but for one that is about to join: so nothing has to be dropped with it.
    waker: Cell<ManuallyDrop<Option<Waker>>>,
    /// Changed under the lock; read by the owner also outside it. Idle seen so is certain: only the owner makes
    /// it anything else. Given or Released seen so is certain too, and carries what the giver wrote before.
    stage: AtomicU8,
    /// How many permits a semaphore's waiter asks for, or another number that its queue understands.
    pub(crate) need: Cell<u32>,
    _pinned: PhantomPinned,
}

// SAFETY: every access is under the queue's lock, or by the owner of an idle waiter.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

// SAFETY: the links are a field.
unsafe impl Linked for Waiter {
    fn links(&self) -> &Links<Waiter> {
        &self.links
    }
}

/// The waiters of a queue.
pub(crate) type Waiters = List<Waiter>;

impl Waiter {
    const_unless_loom! {
        #[inline(always)]
        pub(crate) fn new(need: u32) -> Self {
            Waiter {
                links: Links::new(),
                waker: Cell::new(ManuallyDrop::new(None)),
                stage: AtomicU8::new(Stage::Idle as u8),
                need: Cell::new(need),
                _pinned: PhantomPinned,
            }
        }
    }

    #[inline(always)]
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Queued,
            2 => Stage::Given,
            _ => Stage::Released,
        }
    }

    fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Makes it idle again after what it got was used, or will not be.
    pub(crate) fn reset(&self) {
        self.set_stage(Stage::Idle);
    }

    /// Joins the queue at its end, with the waker that it was given before ([`prepare`](Waiter::prepare)).
    ///
    /// # Safety
    /// As for [`join`](Waiter::join), and the waiter is idle.
    #[inline]
    pub(crate) unsafe fn join_prepared(&self, waiters: &mut Waiters) {
        self.set_stage(Stage::Queued);
        // SAFETY: it was idle, so it is in no list; the caller's promise covers the rest.
        unsafe { waiters.push_back(self) };
    }

    /// Leaves a waker in an idle waiter, which is its owner's alone: so before the lock.
    #[inline]
    pub(crate) fn prepare(&self, waker: Waker) {
        // Nothing was there.
        forget(self.replace(Some(waker)));
    }

    /// Takes it out again, if the waiter does not join.
    pub(crate) fn take_back(&self) -> Option<Waker> {
        self.replace(None)
    }

    #[inline]
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        ManuallyDrop::into_inner(self.waker.replace(ManuallyDrop::new(waker)))
    }

    /// Joins the queue at its end, or renews the waker of one that is in it. Gives the old waker back, to be
    /// dropped outside the lock.
    ///
    /// # Safety
    /// `waiters` is the only queue this waiter is ever in, its lock is held, the waiter is pinned, and
    /// [`leave`](Waiter::leave) is called before it goes.
    pub(crate) unsafe fn join(&self, waiters: &mut Waiters, waker: Waker) -> Option<Waker> {
        if self.stage() != Stage::Queued {
            // SAFETY: it was not queued, so it is in no list; the caller's promise covers the rest.
            unsafe { self.join_prepared(waiters) };
        }
        self.replace(Some(waker))
    }

    /// Leaves the queue if it is in it, and says where it stood. Gives the waker back, to be dropped outside.
    ///
    /// # Safety
    /// `waiters` is this waiter's queue, and its lock is held.
    pub(crate) unsafe fn leave(&self, waiters: &mut Waiters) -> (Stage, Option<Waker>) {
        let stage = self.stage();
        self.reset();
        if stage == Stage::Queued {
            // SAFETY: it is queued.
            unsafe { waiters.remove(self) };
        }
        (stage, self.replace(None))
    }
}

/// Takes the first waiter out, with something given to it, and returns its waker to be woken after the lock.
pub(crate) fn give_first(waiters: &mut Waiters, stage: Stage) -> Option<Waker> {
    let first = waiters.pop_front()?;
    // SAFETY: it was in the list, so alive until the lock is released.
    unsafe {
        let waker = (*first).replace(None);
        // From here on the owner may take it back without the lock.
        (*first).set_stage(stage);
        waker
    }
}

/// Wakers taken out under a lock, to be woken after it.
pub(crate) struct Batch {
    wakers: [Option<Waker>; Batch::SIZE],
    len: usize,
}

/// Whether a batch may have left somebody behind.
#[derive(PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Perhaps,
}

impl Batch {
    const SIZE: usize = 16;

    pub(crate) fn new() -> Self {
        Batch { wakers: [const { None }; Batch::SIZE], len: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == Batch::SIZE
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the first waiter out. There must be one, and room for it.
    pub(crate) fn take_first(&mut self, waiters: &mut Waiters, stage: Stage) {
        self.wakers[self.len] = give_first(waiters, stage);
        self.len += 1;
    }

    /// Takes waiters out from the front for as long as `goes` and the room allow.
    pub(crate) fn release(waiters: &mut Waiters, goes: impl Fn(&Waiter) -> bool) -> Self {
        let mut batch = Batch::new();
        while !batch.is_full() && waiters.front().is_some_and(&goes) {
            batch.take_first(waiters, Stage::Released);
        }
        batch
    }

    /// Wakes them, without any lock.
    pub(crate) fn wake(self) -> Rest {
        let rest = if self.is_full() { Rest::Perhaps } else { Rest::Nothing };
        self.wakers.into_iter().flatten().for_each(Waker::wake);
        rest
    }
}
