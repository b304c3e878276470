//! The tasks that a run loop has taken out of its queue, and those that go back.
#![allow(unsafe_code, reason = "puts tasks back into the CPU's run queue")]

use core::{mem, ptr};

use crate::cpu::CpuLocal;

use super::{Fifo, HAND};

/// See the module.
pub(crate) struct Round {
    pub(crate) cpu: &'static CpuLocal,
    pub(crate) again: Fifo,
}

impl Round {
    #[inline]
    pub(crate) fn new(cpu: &'static CpuLocal) -> Self {
        Round { cpu, again: Fifo::new() }
    }

    /// Puts back what was woken in its poll, behind what else was woken: who yields lets all that is ready go first.
    #[inline]
    pub(crate) fn queue_again(&mut self) {
        if !self.again.is_empty() {
            let cpu = self.cpu;
            // SAFETY: for the run loop, when no task's code runs.
            unsafe {
                cpu.ready.append(ptr::null_mut(), &cpu.woken_tasks, &cpu.woken_threads, &mut self.again);
            }
        }
    }

    /// Ends it, when nothing lies in the hand any more.
    #[inline]
    pub(crate) fn end(mut self) {
        self.queue_again();
        mem::forget(self);
    }
}

/// After a panic in a poll: nothing may stay in the hand.
impl Drop for Round {
    #[cold]
    fn drop(&mut self) {
        let mut rest = Fifo::new();
        for task in self.cpu.ready.hand(HAND) {
            // SAFETY: taken out of the hand, so ours.
            unsafe { rest.push_back(task.as_ptr()) };
        }
        // SAFETY: between polls.
        unsafe { self.cpu.ready.prepend(rest) };
        self.queue_again();
    }
}
