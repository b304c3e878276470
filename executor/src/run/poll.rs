//! One poll: from a task that is queued to one that waits, is ready again, or is done.
#![allow(unsafe_code, reason = "polls tasks through their headers")]

use core::ptr;
use core::sync::atomic::Ordering;

use super::{RunLoop, now_on};
use crate::atomic::fence_after_update;
use crate::cpu::CpuLocal;
use crate::hooks;
use crate::platform::{HOG_NS, LONG_NS, platform};
use crate::run_queue::Round;
use crate::steal::{SLEEPERS, offer};
use crate::task::end::{Ended, finish};
use crate::task::header::Header;
use crate::task::state::{AfterPoll, Start};
use crate::task::{Class, TaskRef, names};

impl RunLoop {
    /// Polls a task or thread, in a round if there are others.
    ///
    /// # Safety
    /// The task is QUEUED, was taken out of the queue, and this CPU's run loop is between polls.
    #[inline(always)]
    pub(super) unsafe fn poll_task(
        &mut self,
        cpu: &'static CpuLocal,
        task: *mut Header,
        round: Option<&mut Round>,
    ) -> AfterPoll {
        // SAFETY: the executor's reference keeps it until it is done, below.
        let header = unsafe { &*task };
        cpu.current.store(task, Ordering::Relaxed);
        let current = Current { cpu };
        let start = header.state.start();
        // Pairs with the fence in `idle`: either a thief sees what is left here, or we see that it sleeps.
        fence_after_update();
        if SLEEPERS.load(Ordering::Relaxed) > 0 {
            if let Some(round) = round {
                round.queue_again();
            }
            offer(cpu);
        }
        header.begin_notes();
        if start.is_special() {
            // SAFETY: the caller's promise; the poll has begun.
            return unsafe { self.poll_special(task, start, current) };
        }
        // SAFETY: RUNNING, so the stage is ours and holds the future.
        let done = unsafe { (header.vtable.poll)(task) };
        // SAFETY: the poll is over.
        unsafe { self.end_poll(task, done, false, current, || cpu.notable_poll_ns.load(Ordering::Relaxed)) }
    }

    /// Polls a hooked task, or drops the future of an aborted one.
    ///
    /// # Safety
    /// As for [`poll_task`](RunLoop::poll_task), and the task is RUNNING.
    #[cold]
    unsafe fn poll_special(&mut self, task: *mut Header, start: Start, current: Current) -> AfterPoll {
        let cancelled = start.is_cancelled();
        // SAFETY: the caller's promise; then the poll is over.
        unsafe {
            let done = begin_special(task, cancelled);
            self.end_poll(task, done, cancelled, current, || 0)
        }
    }

    /// Counts a poll, which is noted if it took `notable` nanoseconds; then the task waits, is ready again, or ends.
    ///
    /// # Safety
    /// The task is RUNNING and was polled. If `done`, its output is there, or it was `cancelled`.
    #[inline(always)]
    unsafe fn end_poll(
        &mut self,
        task: *mut Header,
        done: bool,
        cancelled: bool,
        current: Current,
        notable: impl FnOnce() -> u64,
    ) -> AfterPoll {
        let cpu = current.cpu;
        // SAFETY: the executor's reference keeps it until it is done, below.
        let header = unsafe { &*task };
        let now = now_on(cpu);
        // Should the clock go back this is beyond all measure, which counts as nothing.
        let took = now.wrapping_sub(self.now);
        self.now = now;
        header.account.add(took);
        if took >= notable() {
            note_poll(cpu, task, took, done);
        }
        if done {
            // SAFETY: the future is gone, and the output there unless cancelled.
            if unsafe { finish(cpu, task, cancelled) } == Ended::OutputDropped {
                // That is not the next task's time.
                self.look_at_clock();
            }
            return AfterPoll::DONE;
        }
        // As soon as it does not run any more another CPU may poll it, to its end.
        drop(current);
        header.end_notes(now);
        header.state.end_pending()
    }
}

/// Polls a hooked task, or drops the future of an aborted one. True if it is done.
///
/// # Safety
/// The task is RUNNING, and its future there.
#[cold]
unsafe fn begin_special(task: *mut Header, cancelled: bool) -> bool {
    // SAFETY: the executor's reference keeps it, and its stage is ours.
    unsafe {
        if (*task).state.is_hooked() {
            hooks::poll_begins(task);
        }
        if cancelled {
            ((*task).vtable.drop_future)(task);
            return true;
        }
        ((*task).vtable.poll)(task)
    }
}

/// Ends the poll also when the future panics, which only hosts survive.
struct Current {
    cpu: &'static CpuLocal,
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        self.cpu.current.store(ptr::null_mut(), Ordering::Relaxed);
    }
}

/// A poll that was longer than any before on this CPU, or a long one, or is one of a hooked task.
#[cold]
fn note_poll(cpu: &CpuLocal, task: *mut Header, took: u64, done: bool) {
    let took = if i64::try_from(took).is_ok() { took } else { 0 };
    // SAFETY: the executor's reference keeps it until `finish`.
    let (header, task) = unsafe { (&*task, TaskRef::borrow(task)) };
    if header.state.is_hooked() {
        hooks::poll_ends(&task, took, done);
    }
    if task.class() == Class::Thread {
        return;
    }
    if took > cpu.longest_poll_ns.load(Ordering::Relaxed) {
        cpu.longest_poll_ns.store(took, Ordering::Relaxed);
        cpu.longest_poll.store(task.name_number(), Ordering::Relaxed);
        cpu.notable_poll_ns.store(took.min(LONG_NS) + 1, Ordering::Relaxed);
    }
    if took > LONG_NS {
        names::note_poll(task.name_number(), took);
    }
    if took > HOG_NS {
        platform().hogged(&task, took);
    }
}
