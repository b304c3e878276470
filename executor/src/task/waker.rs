//! Wakers: a pointer to the task and these four functions, all of them for any context.
#![allow(unsafe_code, reason = "a waker is a pointer and a table")]

use core::mem::ManuallyDrop;
use core::task::{RawWaker, RawWakerVTable, Waker};

use super::header::{self, Header};

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);

/// A waker that borrows the run loop's reference for the length of a poll.
///
/// # Safety
/// The task lives as long as the waker, which must not be dropped.
#[inline]
pub(crate) unsafe fn borrowed(task: *mut Header) -> ManuallyDrop<Waker> {
    // SAFETY: the table's functions fit the pointer; no reference is given away as the waker is never dropped.
    ManuallyDrop::new(unsafe { Waker::new(task.cast_const().cast(), &VTABLE) })
}

/// A waker with a reference of its own.
///
/// # Safety
/// The task is alive, and somebody else's reference keeps it so during the call.
pub(super) unsafe fn owned(task: *mut Header) -> Waker {
    // SAFETY: the table's functions fit the pointer, and `clone` has counted the reference.
    unsafe { Waker::from_raw(clone(task.cast_const().cast())) }
}

unsafe fn clone(task: *const ()) -> RawWaker {
    // SAFETY: the waker that is cloned holds or borrows a reference.
    unsafe { (*task.cast::<Header>()).state.add_reference() };
    RawWaker::new(task, &VTABLE)
}

unsafe fn wake(task: *const ()) {
    let task = task.cast::<Header>().cast_mut();
    // SAFETY: the waker's reference is used, then given back.
    unsafe { header::wake_and_release(task) };
}

unsafe fn wake_by_ref(task: *const ()) {
    // SAFETY: the waker holds or borrows a reference.
    unsafe { header::wake(task.cast::<Header>().cast_mut()) };
}

unsafe fn drop(task: *const ()) {
    // SAFETY: the waker's reference goes with it.
    unsafe { header::release(task.cast::<Header>().cast_mut()) };
}
