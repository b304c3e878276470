//! The end of a task, and of its memory.
#![allow(unsafe_code, reason = "the last reference frees the task's cell")]

use super::header::Header;
use super::registry;
use super::state::{HANDLE, JOINER};
use crate::atomic::Ordering;
use crate::cpu::CpuLocal;

/// Frees the tasks whose last reference was dropped since the last look.
pub(crate) fn reap(cpu: &CpuLocal) {
    let mut task = cpu.dead.take();
    while !task.is_null() {
        // SAFETY: nobody else has the task, and only the run loop takes from this stack.
        unsafe {
            let next = (*task).link.load(Ordering::Relaxed);
            ((*task).vtable.free)(task);
            task = next;
        }
    }
}

/// What the end of a task has done with its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is left for the handle, or there is none.
    OutputLeft,
    OutputDropped,
}

/// Ends a task whose future is gone: its output is for the handle, and who joins is woken. The poll is over when the
/// output is gone and before the task is.
///
/// # Safety
/// Only for the run loop of this CPU; the task is RUNNING, and its output there unless it was cancelled.
pub(crate) unsafe fn finish(cpu: &'static CpuLocal, task: *mut Header, cancelled: bool) -> Ended {
    // SAFETY: the executor's reference is given back at the end.
    let header = unsafe { &*task };
    // SAFETY: the caller is this CPU's run loop, and the task was registered when it was spawned.
    unsafe { registry::unregister(cpu, header.id.load(Ordering::Relaxed)) };
    let before = header.state.finish(cancelled);
    let mut ended = Ended::OutputLeft;
    if before & HANDLE == 0 && !cancelled {
        // SAFETY: nobody wants the output.
        unsafe { (header.vtable.drop_output)(task) };
        ended = Ended::OutputDropped;
    }
    cpu.current.store(core::ptr::null_mut(), Ordering::Relaxed);
    if before & JOINER != 0 {
        // SAFETY: JOINER was set when DONE came: the waker is ours.
        if let Some(waker) = header.joiner.with_mut(|joiner| unsafe { (*joiner).take() }) {
            waker.wake();
        }
    }
    if header.state.drop_reference() {
        // SAFETY: the last reference is gone, and the run loop may free.
        unsafe { (header.vtable.free)(task) };
    }
    ended
}
