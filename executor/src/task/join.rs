//! Waiting for a task's output, and ending a task early.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | handle polled, task finishes | `set_joiner` fails once DONE: the handle takes its waker back and the output |
//! | handle changes its waker, task finishes | `clear_joiner` fails once DONE: the waker is `finish`'s |
//! | handle dropped, task finishes | the word before HANDLE was cleared says who drops output and waker |
//! | abort, anything | it only sets a bit and queues the task; see `task::state`. Threads are left alone |
#![allow(unsafe_code, reason = "the handle takes the output out of the task's cell")]

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};

use super::header::{self, Header};
use super::state::{CANCELLED, DONE, JOINER};
use super::{TaskId, TaskRef};
use crate::hooks;
use crate::reason::{WaitReason, waits_for};

/// Why a task has no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It was aborted before it was done.
    Aborted,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was aborted")
    }
}

impl core::error::Error for JoinError {}

/// Owns the right to a task's output. As a future it waits for it ([`WaitReason::Join`]).
///
/// Dropping it detaches the task, which goes on; its output is dropped when it is done. Not for interrupt
/// handlers, since the output may be dropped with the handle.
///
/// # Cancellation
/// A `&mut JoinHandle` may be polled, left, and polled again: nothing is lost.
///
/// # Panics
/// When polled again after it gave its result.
#[must_use = "dropping the handle detaches the task; say so with drop() if it is meant"]
pub struct JoinHandle<T> {
    /// The task, and TAKEN.
    task: NonNull<Header>,
    output: PhantomData<T>,
}

/// In the pointer of a handle: the result was given.
const TAKEN: usize = 1;

// SAFETY: the handle moves the output between CPUs, and else only touches what is atomic.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: a shared handle gives no access to the output.
unsafe impl<T: Send> Sync for JoinHandle<T> {}
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    /// Takes over the handle's reference of a task whose output is a `T`.
    pub(crate) unsafe fn new(task: NonNull<Header>) -> Self {
        JoinHandle { task, output: PhantomData }
    }

    #[inline]
    fn as_ptr(&self) -> *mut Header {
        self.task.as_ptr().map_addr(|address| address & !TAKEN)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: our reference keeps it.
        unsafe { &*self.as_ptr() }
    }

    #[inline]
    fn is_taken(&self) -> bool {
        self.task.addr().get() & TAKEN != 0
    }

    /// Ends the task at its next turn: its future is dropped on its CPU, then who joins is woken with
    /// [`JoinError::Aborted`]. A task that is being polled may still be done first, and a done task stays done.
    ///
    /// Does nothing to a thread ([`Class::Thread`](super::Class::Thread)), since what its stack holds would never be
    /// dropped: threads end by themselves.
    pub fn abort(&self) {
        // SAFETY: our reference keeps it.
        unsafe { abort(self.as_ptr()) };
    }

    /// A handle that can only abort.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(self.task())
    }

    /// Whether the task is done or aborted: then joining does not wait.
    pub fn is_finished(&self) -> bool {
        self.header().state.load() & DONE != 0
    }

    /// The task's number.
    pub fn id(&self) -> TaskId {
        TaskId(self.header().id.load(Ordering::Relaxed))
    }

    /// The task.
    pub fn task(&self) -> TaskRef {
        // SAFETY: our reference keeps it during the call.
        unsafe { TaskRef::borrow(self.as_ptr()) }
    }

    /// Takes the result of a task that is done, in this state.
    #[inline]
    fn take(&mut self, task: *mut Header, state: u32) -> Result<T, JoinError> {
        assert!(!self.is_taken(), "a join handle was polled after it gave its result");
        self.task = self.task.map_addr(|address| address | TAKEN);
        if state & CANCELLED != 0 {
            return Err(JoinError::Aborted);
        }
        let mut output = MaybeUninit::<T>::uninit();
        // SAFETY: DONE without CANCELLED, and HANDLE is ours: the output is there, is a `T`, and is taken once.
        unsafe {
            ((*task).vtable.take_output)(task, output.as_mut_ptr().cast());
            Ok(output.assume_init())
        }
    }
}

impl<T> JoinHandle<T> {
    /// Leaves the output to the end of the task, or drops it.
    #[cold]
    fn give_up(&mut self) {
        let header = self.header();
        let state = header.state.drop_handle();
        if state & DONE == 0 {
            // SAFETY: JOINER was cleared with HANDLE, so the slot is ours.
            header.joiner.with_mut(|joiner| unsafe { *joiner = None });
        } else if state & CANCELLED == 0 {
            // SAFETY: done, and nobody has taken the output.
            unsafe { (header.vtable.drop_output)(self.as_ptr()) };
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.as_ptr();
        // SAFETY: our reference keeps it.
        let header = unsafe { &*task };
        let mut state = header.state.load();
        if state & DONE == 0 {
            // SAFETY: we are the handle.
            if unsafe { leave_waker(header, state, context.waker()) } {
                waits_for(WaitReason::Join);
                return Poll::Pending;
            }
            state = header.state.load();
        }
        Poll::Ready(self.take(task, state))
    }
}

/// Leaves a waker to the end of a task; false if that has come meanwhile.
///
/// # Safety
/// Only for the handle, with a state that it has seen before.
unsafe fn leave_waker(header: &Header, state: u32, waker: &Waker) -> bool {
    // While JOINER is set `finish` may take the waker at any moment, so not even a look at it is allowed.
    if state & JOINER != 0 && !header.state.clear_joiner() {
        return false;
    }
    header.joiner.with_mut(|joiner| {
        // SAFETY: JOINER is clear and the caller the handle: the slot is ours.
        let slot = unsafe { &mut *joiner };
        match slot {
            Some(known) if known.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    });
    if !header.state.set_joiner() {
        // SAFETY: the task was done before the waker was handed over, so the slot is still ours.
        header.joiner.with_mut(|joiner| unsafe { *joiner = None });
        return false;
    }
    true
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_taken() {
            self.give_up();
        }
        let task = self.as_ptr();
        // SAFETY: our reference keeps it, until it is given back; where output may be dropped memory may be freed,
        // if nobody has the task any more.
        unsafe {
            if (*task).state.is_last_reference() || (*task).state.drop_reference() {
                ((*task).vtable.free)(task);
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle({:?})", self.task())
    }
}

/// Can abort a task, and nothing else. Any context may use, clone and drop it.
#[derive(Clone, Debug)]
pub struct AbortHandle(TaskRef);

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task is done or aborted.
    pub fn is_finished(&self) -> bool {
        self.0.state() == super::TaskState::Done
    }
}

impl TaskRef {
    /// As [`JoinHandle::abort`]. Any context.
    pub fn abort(&self) {
        // SAFETY: our reference keeps it.
        unsafe { abort(self.as_ptr()) };
    }
}

/// # Safety
/// The caller holds a reference.
unsafe fn abort(task: *mut Header) {
    // SAFETY: the caller's reference keeps it; the push is ours if the word says so.
    unsafe {
        let state = &(*task).state;
        if state.is_thread() {
            return;
        }
        if state.is_hooked() {
            hooks::aborted(task);
        }
        if state.abort().is_to_push() {
            header::push_quietly(task);
        }
    }
}
