//! The tasks that a run loop has taken out of its queue, and those that go back.
#![allow(unsafe_code, reason = "puts tasks back into the CPU's run queue")]

use core::slice;

use crate::atomic::{AtomicPtr, Ordering};
use crate::cpu::CpuLocal;
use crate::task::Header;

use super::{Fifo, untagged};

/// See the module.
pub(crate) struct Round {
    pub(crate) cpu: &'static CpuLocal,
    pub(crate) again: Fifo,
    /// The slots of the hand that were filled, but for those that this has looked at.
    hand: slice::Iter<'static, AtomicPtr<Header>>,
}

impl Round {
    /// So many tasks lie in the hand.
    #[inline]
    pub(crate) fn new(cpu: &'static CpuLocal, dealt: usize) -> Self {
        Round { cpu, again: Fifo::new(), hand: cpu.ready.hand[..dealt].iter() }
    }

    /// The next task in the hand; null if there is none.
    #[inline]
    pub(crate) fn next(&mut self) -> *mut Header {
        // A thief may have been there.
        for slot in self.hand.by_ref() {
            let task = untagged(slot.swap(core::ptr::null_mut(), Ordering::Acquire));
            if !task.is_null() {
                return task;
            }
        }
        core::ptr::null_mut()
    }

    /// Puts back what was woken in its poll.
    #[inline]
    pub(crate) fn queue_again(&mut self) {
        if !self.again.is_empty() {
            // SAFETY: between polls.
            unsafe { self.cpu.ready.append(&mut self.again) };
        }
    }
}

impl Drop for Round {
    #[inline]
    fn drop(&mut self) {
        if self.hand.len() > 0 {
            put_back(self);
        }
        self.queue_again();
    }
}

/// After a panic in a poll: nothing may stay in the hand.
#[cold]
fn put_back(round: &mut Round) {
    let mut rest = Fifo::new();
    loop {
        let task = round.next();
        if task.is_null() {
            break;
        }
        // SAFETY: taken out of the hand, so ours.
        unsafe { rest.push_back(task) };
    }
    // SAFETY: between polls.
    unsafe { round.cpu.ready.prepend(rest) };
}
