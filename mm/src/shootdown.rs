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
//! | task that waits, stealing | the CPU that asked for a grace period is the only one that it does not count. If the poll that asks sees the end as well, it forgets there; else that poll, or the thread in it, has been left, and then a CPU forgets like all others |
//! | CPU that is idle | it has left the user's tables, and forgets the rest before it runs anything |
//! | table that another CPU has loaded | leaving a user's space is part of forgetting |
//! | wait for frames, quarantine | those frames are on their way: the reclaimer waits for them before it names a victim |

use core::future::Future;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker, ready};

use crate::Memory;
use crate::frame::Moment;
use crate::trace::Event;

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
        self.tell(Event::ShootdownBegin(wait.number()));
        let mut grace = pin!(executor::grace_period());
        poll_fn(|context| self.look(grace.as_mut(), context)).await;
        let mut over = Over { memory: self, wait, is_freed: false };
        while over.free_some() {
            executor::yield_now().await;
        }
    }

    /// Sees to it that all CPUs forget what was taken away before a moment: at once if no other CPU is busy, else
    /// by the background task. For destructors.
    pub(crate) fn forget_soon(&'static self, moment: Moment) {
        if !self.frames().owe(moment) {
            return;
        }
        let wait = self.frames().begin_wait();
        self.tell(Event::ShootdownBegin(wait.number()));
        match self.look(pin!(executor::grace_period()), &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => drop(Over { memory: self, wait, is_freed: false }),
            Poll::Pending => self.frames().leave_behind(),
        }
    }

    /// Looks whether a grace period is over. If it is, this CPU forgets as well: a grace period is for the others,
    /// and what was cleared may have been cleared on another CPU than this.
    fn look(&self, grace: Pin<&mut impl Future<Output = ()>>, context: &mut Context<'_>) -> Poll<()> {
        // With no lock held: it may interrupt other CPUs.
        ready!(grace.poll(context));
        // A thread may be elsewhere by now, but then the CPU that it asked on has left it, and forgotten.
        let _interrupts_off = self.forgetting.lock();
        self.hardware().forget();
        Poll::Ready(())
    }
}

/// Batches of frames that are freed in one poll.
const BATCHES: usize = 16;

/// A wait that is over, and the frames that were in quarantine before it. Dropping it frees the rest of them at once.
struct Over {
    memory: &'static Memory,
    wait: Moment,
    is_freed: bool,
}

impl Over {
    /// Frees some of them. True if there are more.
    fn free_some(&mut self) -> bool {
        self.is_freed = !(0..BATCHES).all(|_| self.memory.end_wait(self.wait));
        !self.is_freed
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        while !self.is_freed && self.free_some() {}
        self.memory.tell(Event::ShootdownEnd(self.wait.number()));
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;

    use executor::lock::held_guard;

    use super::*;
    use crate::window::arena::arena;
    use crate::{Hardware, PhysAddr, VirtAddr};

    struct Guarded;

    impl Hardware for Guarded {
        fn invalidate(&self, _: PhysAddr, _: VirtAddr) {}
        fn forget(&self) {
            assert_eq!(held_guard(), Some("forgetting"), "interrupts are off");
        }
        fn forget_space(&self, _: PhysAddr) {}
    }

    #[test]
    fn other_cpus_are_interrupted_with_no_lock_held() {
        let (window, usable) = arena(64);
        let memory: &'static Memory = Box::leak(Box::new(Memory::new(window, &[usable], &Guarded)));
        let mut polls = 0;
        let mut grace = pin!(poll_fn(|_| {
            assert_eq!(held_guard(), None);
            polls += 1;
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(memory.look(grace.as_mut(), &mut context).is_pending());
        assert!(memory.look(grace.as_mut(), &mut context).is_ready());
    }
}
