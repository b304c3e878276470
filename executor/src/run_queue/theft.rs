//! Taking tasks out of another CPU's queue, or out of its hand.
#![allow(unsafe_code, reason = "the thief's run loop owns what it has taken")]

use super::{Fifo, Queues, RunQueue, is_movable};
use crate::atomic::{Ordering, fence};
use crate::cpu::CpuLocal;

impl RunQueue {
    /// Takes half of what is ready on `victim`, but not more than `most`, for `thief`, whose queue this is. Returns how
    /// many.
    ///
    /// A thief without work takes those that were ready for longest: the poll that they wait behind may be a long
    /// one. Else what is taken goes behind what stands here, and those before which not so many stand there are left:
    /// where that is not more than [`MOST_STOLEN`](super::fifo::MOST_STOLEN), nobody comes later to its turn by being
    /// moved, however often.
    ///
    /// # Safety
    /// Only for the thief's run loop, between polls.
    pub(crate) unsafe fn steal(
        &self,
        thief: &'static CpuLocal,
        victim: &'static CpuLocal,
        most: usize,
    ) -> usize {
        // SAFETY: the caller is a run loop; the two queues are reached one after the other.
        unsafe {
            let threads = self.threads.load(Ordering::Relaxed);
            let tasks = self.queued.load(Ordering::Relaxed).saturating_sub(threads);
            let mut may_have_missed = false;
            let mut loot = victim.ready.with(|queues| {
                let before = queues.tasks.len() + queues.threads.len();
                queues.take_woken(&victim.woken_tasks, &victim.woken_threads);
                if queues.tasks.len() + queues.threads.len() > before {
                    let current = victim.current.load(Ordering::Relaxed);
                    may_have_missed = current.is_null() || current == queues.last;
                }
                let tasks = queues.take_tasks(most, tasks.saturating_sub(victim.ready.len_of_hand()));
                let threads = queues.threads.take_half(most - tasks.len(), threads);
                (tasks, threads)
            });
            // The victim may have looked while what it was woken for was neither in the stacks nor in the queues: before
            // it slept, or at an interrupt of the thread that it polls, which goes on then. After a task's poll it
            // looks again.
            if victim.ready.has_tasks() || victim.ready.has_threads() {
                fence(Ordering::SeqCst);
                if may_have_missed {
                    victim.kick();
                } else {
                    victim.rouse();
                }
            }
            if loot.0.len() + loot.1.len() == 0 {
                victim.ready.take_hand(&mut loot.0, most);
            }
            let stolen = loot.0.len() + loot.1.len();
            if stolen > 0 {
                loot.0.move_to(thief);
                loot.1.move_to(thief);
                self.with(|queues| {
                    queues.tasks.append(loot.0);
                    queues.threads.append(loot.1);
                });
            }
            stolen
        }
    }

    /// Takes half of what lies in the hand, from its end, in the order in which it lies there. For a thief with no loot.
    fn take_hand(&self, loot: &mut Fifo, most: usize) {
        let movable = self.hand.iter().filter(|slot| is_movable(slot.load(Ordering::Relaxed))).count();
        for slot in self.hand.iter().rev() {
            if loot.len() == movable.div_ceil(2).min(most) {
                return;
            }
            let task = slot.load(Ordering::Relaxed);
            if is_movable(task)
                && slot
                    .compare_exchange(task, core::ptr::null_mut(), Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                // SAFETY: taken out of the hand, so ours, and alive.
                unsafe { loot.push_front(task) };
            }
        }
    }
}

impl Queues {
    /// As [`Fifo::take_half`], for the tasks.
    fn take_tasks(&mut self, most: usize, behind: usize) -> Fifo {
        let taken = self.tasks.take_half(most, behind);
        // Those before them are still of this round. What is pinned in between is of the next one then.
        let first = self.left.min(behind);
        self.left = first + (self.left - first).saturating_sub(taken.len());
        taken
    }
}
