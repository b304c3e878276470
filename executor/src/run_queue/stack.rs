//! Where anybody may push a task, at any moment.
#![allow(unsafe_code, reason = "tasks are linked through their own headers")]

use crate::atomic::{AtomicPtr, Ordering, const_unless_loom};
use crate::task::Header;

/// A push-only stack of tasks, taken as a whole. Safe from interrupt handlers and other CPUs.
pub(crate) struct Stack {
    head: AtomicPtr<Header>,
}

impl Stack {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Stack { head: AtomicPtr::new(core::ptr::null_mut()) }
        }
    }

    /// Pushes a task.
    ///
    /// # Safety
    /// The task is in no other stack or queue, and lives until it was taken out of this one.
    #[inline]
    pub(crate) unsafe fn push(&self, task: *mut Header) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller owns the link.
            unsafe { (*task).link.store(head, Ordering::Relaxed) };
            match self.head.compare_exchange_weak(head, task, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Takes all, newest first, as a chain through the links.
    #[inline]
    pub(crate) fn take(&self) -> *mut Header {
        if self.head.load(Ordering::Relaxed).is_null() { core::ptr::null_mut() } else { self.take_likely() }
    }

    /// As [`take`](Stack::take), where there is probably something.
    #[inline]
    pub(crate) fn take_likely(&self) -> *mut Header {
        self.head.swap(core::ptr::null_mut(), Ordering::Acquire)
    }
}
