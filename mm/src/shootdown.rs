//! Shootdown: waiting until all CPUs have forgotten what was taken out of page tables.
//!
//! A processor remembers translations, and goes on using them after the tables say something else. So whoever takes
//! rights or frames away clears the entries under the locks, makes its own CPU forget them, and then waits for a
//! grace period: every other CPU comes to the end of what it does, and forgets everything there. Only then is a
//! frame used for something else, a page shown by another frame, or a change of mappings done. One wait serves all
//! that was cleared before it began, by whomever.
//!
//! | what was taken away | what waits | if that wait is dropped |
//! | --- | --- | --- |
//! | a mapping (`unmap`) | it stays in the space and fills its range; then it goes, and its object with it | the next who looks at the space takes it out, when the wait of the background task is over |
//! | rights (`protect`) | the call | the tables say less already; CPUs follow when they come to it |
//! | a clean page (`reclaim`) | it keeps its frame; then it goes, unless it was touched | it stays unseen and keeps its frame until it is touched or reclaim comes again |
//! | a page that is dropped (`release`, `invalidate`) | its frame in quarantine; whoever touches the page | the background task waits |
//! | the pages of an object that ends | their frames in quarantine | nobody waits: the background task does |
//! | page tables | their frames in quarantine | the same |
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | task that waits, stealing | the CPU on which a wait's end is seen is the one that grace periods do not count; it forgets in the same step, with interrupts off, whatever it did before |
//! | CPU that is idle | it has left the user's tables, and forgets the rest before it runs anything |
//! | table that another CPU has loaded | leaving a user's space is part of forgetting |
//! | wait for frames, quarantine | those frames are on their way: the reclaimer waits for them before it names a victim |

use core::future::Future;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use crate::Memory;
use crate::frame::Moment;

impl Memory {
    /// Waits until no CPU uses a translation that was taken away before this call, and the frames that were in
    /// quarantine are free. Ready at once where no other CPU is busy.
    ///
    /// # Cancellation
    /// Dropping the future frees nothing; the next wait does.
    pub async fn settle(&'static self) {
        self.forgotten(self.frames().moment()).await;
    }

    /// Waits until all CPUs have forgotten what was taken away before a moment.
    ///
    /// # Cancellation
    /// Dropping the future leaves the wait to others: who must not do that calls `forget_soon`.
    pub(crate) async fn forgotten(&'static self, moment: Moment) {
        if self.frames().is_over(moment) {
            return;
        }
        let wait = self.frames().begin_wait();
        let mut grace = pin!(executor::grace_period());
        poll_fn(|context| self.look(grace.as_mut(), context)).await;
        self.frames().end_wait(wait);
    }

    /// Sees to it that all CPUs forget what was taken away before a moment: at once if no other CPU is busy, else
    /// by the background task. For destructors.
    pub(crate) fn forget_soon(&'static self, moment: Moment) {
        if !self.frames().owe(moment) {
            return;
        }
        let wait = self.frames().begin_wait();
        match self.look(pin!(executor::grace_period()), &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => self.frames().end_wait(wait),
            Poll::Pending => self.frames().leave_behind(),
        }
    }

    /// Looks whether a grace period is over. If it is, this CPU forgets as well: a grace period is for the others,
    /// and what was cleared may have been cleared on another CPU than this.
    fn look(&self, grace: Pin<&mut impl Future<Output = ()>>, context: &mut Context<'_>) -> Poll<()> {
        // The lock keeps interrupts off, and so the caller on this CPU.
        let _here = self.looking.lock();
        let over = grace.poll(context);
        if over.is_ready() {
            self.hardware().forget();
        }
        over
    }
}
