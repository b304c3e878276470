//! Waiting for a frame: first come, first served, and nobody overtakes.
//!
//! An applicant registers under the pool's lock, in the same step in which it finds no frame for itself; so
//! a frame that is freed later is promised to an applicant before anyone else can take it. Promises and
//! refusals travel as permits of a semaphore, which keeps the order. What a permit means is read from the
//! counts when it is used, so it does not matter who of the applicants goes without using one.
//!
//! | count | grows | shrinks |
//! | --- | --- | --- |
//! | `unanswered` | an applicant registers | a frame is promised, a victim is named, an applicant goes |
//! | `promised` | a frame is freed while someone is unanswered | its taker takes it, or goes |
//! | `refused` | the reclaimer names a victim | the victim is told, or goes |
//!
//! The sum is the number of applicants. `promised` frames are not for those who did not wait.

use core::future::Future;

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
struct Applicant {
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
    /// A frame, with whatever bytes were in it; parks behind those who asked before when there is none.
    ///
    /// # Errors
    /// [`OutOfMemory`] when nothing can be freed and this caller has waited longest.
    ///
    /// # Cancellation
    /// Dropping the future gives the place in the queue, and a frame that was promised already, to the next.
    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
    pub fn alloc(&'static self) -> impl Future<Output = Result<Frame, OutOfMemory>> + Send {
        async move {
            let applicant = match self.take_or_apply() {
                Ok(frame) => return Ok(frame),
                Err(applicant) => applicant,
            };
            if let Ok(permit) = self.answers.acquire().await {
                permit.forget();
            }
            self.answer(applicant)
        }
    }

    /// Takes a frame, or registers the caller among those who wait.
    fn take_or_apply(&'static self) -> Result<Frame, Applicant> {
        if let Some(frame) = self.try_alloc() {
            return Ok(frame);
        }
        {
            let mut guarded = self.lists.lock();
            match guarded.take(0) {
                Some(number) => return Ok(Frame::from_number(self, number)),
                None => guarded.applicants.unanswered += 1,
            }
        }
        self.short.notify_one();
        Err(Applicant { pool: self })
    }

    /// What the permit of an applicant means.
    fn answer(&'static self, applicant: Applicant) -> Result<Frame, OutOfMemory> {
        core::mem::forget(applicant);
        let mut guarded = self.lists.lock();
        if guarded.applicants.promised == 0 {
            guarded.applicants.refused -= 1;
            return Err(OutOfMemory);
        }
        guarded.applicants.promised -= 1;
        let number = guarded.take(0).expect("a promised frame is there");
        Ok(Frame::from_number(self, number))
    }

    /// Tells the one who has waited longest that there is no memory; false when nobody waits.
    pub(crate) fn name_victim(&self) -> bool {
        let named = self.lists.lock().applicants.refuse();
        if named {
            self.answers.add_permits(1);
        }
        named
    }
}
