//! Which of a CPU's ready tasks comes next, where that is not the one that was ready first.
#![allow(unsafe_code, reason = "a pointer that is published, and tasks' headers")]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::task::{Header, TaskRef};

/// An order of ready tasks, for [`set_order`].
pub trait Order: Sync {
    /// The task of the lowest rank is polled next; of several, the one that was ready first.
    ///
    /// A run loop asks for all tasks that are ready on its CPU before each of its polls, so a rank may change with time, and
    /// a poll costs more the more tasks are ready. It has its queue's lock meanwhile: a rank must not wait, panic, or
    /// spawn, wake or abort a task.
    fn rank(&self, task: &TaskRef) -> u64;
}

static ORDER: AtomicPtr<&'static dyn Order> = AtomicPtr::new(core::ptr::null_mut());

/// Has all CPUs poll their ready tasks in this order; `None`: in the order in which they were ready, as at the beginning. A
/// CPU that has taken up to fifteen tasks in hand to poll them in the order before this one polls those first.
///
/// A task whose rank is never the lowest is never polled while others are ready. Threads are not asked for, and miss nothing:
/// after as many polls as there were ready tasks, one of them has its turn. Other CPUs steal what was ready for longest,
/// whatever its rank.
///
/// Each call keeps some bytes for ever. Not for interrupt handlers.
pub fn set_order(order: Option<&'static dyn Order>) {
    let order = order.map_or(core::ptr::null_mut(), |order| Box::into_raw(Box::new(order)));
    ORDER.store(order, Ordering::Release);
}

/// The order to keep, if there is one.
#[inline]
pub(crate) fn order() -> Option<&'static dyn Order> {
    let order = ORDER.load(Ordering::Acquire);
    // SAFETY: null, or a box that `set_order` leaked.
    unsafe { order.as_ref() }.copied()
}

/// # Safety
/// The task is alive, and somebody's reference keeps it during the call.
pub(crate) unsafe fn rank(order: &dyn Order, task: *mut Header) -> u64 {
    // SAFETY: the caller's promise.
    order.rank(&unsafe { TaskRef::borrow(task) })
}
