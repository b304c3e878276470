//! Waiting for a frame: first come, first served, and nobody overtakes.
//!
//! An applicant registers under the pool's lock, in the same step in which it finds no frame for itself; so
//! a frame that is freed later is promised to an applicant before anyone else can take it. Promises and
//! refusals travel as permits of a semaphore, which keeps the order. What a permit means is read from the
//! counts when it is used, so it does not matter who of the applicants goes without using one. A permit follows
//! its promise a moment later, so an applicant that goes in between leaves one behind that means nothing: whoever
//! gets it waits again.
//!
//! | count | grows | shrinks |
//! | --- | --- | --- |
//! | `unanswered` | an applicant registers | a frame is promised, a victim is named, an applicant goes |
//! | `promised` | a frame is freed while someone is unanswered | its taker takes it, or goes |
//! | `refused` | the reclaimer names a victim | the victim is told, or goes |
//!
//! The sum is the number of applicants. `promised` frames are not for those who did not wait. They are on the lists: the
//! CPUs' caches are closed while there is an applicant, and whoever becomes one empties them.

use core::future::Future;

use super::marks::Claim;
use super::{Frame, FramePool, OutOfMemory};

/// Guarded by the pool's lock.
#[derive(Default)]
pub(super) struct Applicants {
    pub(super) unanswered: usize,
    pub(super) promised: usize,
    pub(super) refused: usize,
}

impl Applicants {
    /// Promises up to `frames` frames that were just freed; returns how many.
    pub(super) fn promise(&mut self, frames: usize) -> usize {
        let promised = frames.min(self.unanswered);
        self.unanswered -= promised;
        self.promised += promised;
        promised
    }

    /// Names one victim, if anyone is there.
    pub(super) fn refuse(&mut self) -> bool {
        if self.unanswered == 0 {
            return false;
        }
        self.unanswered -= 1;
        self.refused += 1;
        true
    }

    /// All who wait or were answered just now.
    pub(super) fn all(&self) -> usize {
        self.unanswered + self.promised + self.refused
    }

    /// An applicant goes without an answer. True when an answer was given already, to it or to another who
    /// takes this one's place: then one permit too many is about.
    fn withdraw(&mut self) -> bool {
        let count = match self {
            Applicants { unanswered: count @ 1.., .. } => {
                *count -= 1;
                return false;
            }
            Applicants { promised: count @ 1.., .. } | Applicants { refused: count, .. } => count,
        };
        *count -= 1;
        true
    }
}

/// Someone who is registered; withdraws when dropped.
pub(super) struct Applicant {
    pool: &'static FramePool,
}

impl Drop for Applicant {
    fn drop(&mut self) {
        if self.pool.lists.lock().applicants.withdraw() {
            self.pool.answers.forget_permits(1);
        }
    }
}

impl FramePool {
    /// A frame, with whatever bytes were in it; parks below the low mark, behind those who asked before, until
    /// one is given back or nothing can be.
    ///
    /// # Errors
    /// [`OutOfMemory`] when nothing can be freed and this caller has waited longest.
    ///
    /// # Cancellation
    /// Dropping the future gives the place in the queue, and a frame that was promised already, to the next.
    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
    pub fn alloc(&'static self) -> impl Future<Output = Result<Frame, OutOfMemory>> + Send {
        async move {
            let mut applicant = match self.take_or_apply() {
                Ok(frame) => return Ok(frame),
                Err(applicant) => applicant,
            };
            loop {
                if let Ok(permit) = self.answers.acquire().await {
                    permit.forget();
                }
                match self.answer(applicant) {
                    Ok(answer) => return answer,
                    Err(unanswered) => applicant = unanswered,
                }
            }
        }
    }

    /// Takes a frame, or registers the caller among those who wait.
    fn take_or_apply(&'static self) -> Result<Frame, Applicant> {
        match self.try_alloc_page(None) {
            Some(frame) => Ok(frame),
            None => self.apply(),
        }
    }

    /// Registers the caller, unless there is a frame by now.
    pub(super) fn apply(&'static self) -> Result<Frame, Applicant> {
        {
            let mut guarded = self.lists.lock();
            match guarded.take(0, Claim::Page, self) {
                Some(number) => return Ok(self.hand_out(number)),
                None => guarded.applicants.unanswered += 1,
            }
            self.close(&guarded);
        }
        let applicant = Applicant { pool: self };
        // What is in a cache by now is promised to those who wait, and nothing comes into one from here on.
        self.drain();
        self.short.notify_one();
        Err(applicant)
    }

    /// What the permit of an applicant means. Nothing, and the applicant is given back, when the one whom it was
    /// for has gone between the promise and its permit.
    fn answer(&'static self, applicant: Applicant) -> Result<Result<Frame, OutOfMemory>, Applicant> {
        let mut guarded = self.lists.lock();
        let answer = match guarded.applicants {
            Applicants { promised: 1.., .. } => {
                guarded.applicants.promised -= 1;
                Ok(guarded.take(0, Claim::Any, self).expect("a promised frame is there"))
            }
            Applicants { refused: 1.., .. } => {
                guarded.applicants.refused -= 1;
                Err(OutOfMemory)
            }
            Applicants { .. } => return Err(applicant),
        };
        let is_short = guarded.lists.free_frames < self.marks.low() || guarded.applicants.unanswered > 0;
        drop(guarded);
        core::mem::forget(applicant);
        if is_short {
            // The reclaimer may have taken frames that were promised for free ones.
            self.short.notify_one();
        }
        Ok(answer.map(|number| self.hand_out(number)))
    }

    /// Whether somebody waits for a frame who was not promised one.
    pub(crate) fn is_waited_for(&self) -> bool {
        // While somebody waits, nothing comes into them.
        self.drain();
        self.lists.lock().applicants.unanswered > 0
    }

    /// Tells the one who has waited longest that there is no memory; false when nobody waits.
    pub(crate) fn name_victim(&self) -> bool {
        let named = loop {
            // While somebody waits, nothing comes into them.
            self.drain();
            let mut guarded = self.lists.lock();
            if guarded.applicants.unanswered == 0 || self.caches.count_all() == 0 {
                break guarded.applicants.refuse();
            }
        };
        if named {
            self.answers.add_permits(1);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;
    use crate::window::arena;

    #[test]
    fn a_permit_whose_applicant_has_gone_answers_nobody() {
        let frames = arena::memory(64).frames();
        let mut taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
        let mut context = Context::from_waker(Waker::noop());
        for refused in [false, true] {
            let mut gone = Box::pin(frames.alloc());
            assert!(gone.as_mut().poll(&mut context).is_pending());
            // The answer is given; the applicant goes; its permit comes.
            {
                let mut guarded = frames.lists.lock();
                if refused {
                    assert!(guarded.applicants.refuse());
                } else {
                    let number = taken.pop().map(Frame::into_number).expect("all are taken");
                    frames.checks.takes_back(number, 1);
                    guarded.lists.free(number, 1);
                    assert_eq!(guarded.applicants.promise(1), 1);
                }
            }
            drop(gone);
            frames.answers.add_permits(1);
            taken.extend(frames.try_alloc());
            let mut next = pin!(frames.alloc());
            assert!(next.as_mut().poll(&mut context).is_pending());
            assert_eq!(frames.stats().waiting, 1);
            taken.pop();
            let Poll::Ready(Ok(frame)) = next.as_mut().poll(&mut context) else { panic!("a frame is free") };
            taken.push(frame);
            assert_eq!((frames.stats().waiting, frames.answers.available_permits()), (0, 0));
        }
    }
}
