//! One allocation for a task: its header, then the future, and later the output in the future's place.
#![allow(unsafe_code, reason = "this is the task cell: a future behind a pointer without its type")]

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use super::header::{Header, Vtable};
use super::waker;
use crate::cpu::CpuLocal;

#[repr(C)]
struct Cell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

/// The future until the task is DONE, the output from then on (unless CANCELLED or taken).
union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<F::Output>,
}

/// The memory of a task that is not written yet.
pub(crate) struct Room<F: Future> {
    cell: *mut Cell<F>,
    cpu: &'static CpuLocal,
}

impl<F: Future> Room<F> {
    const VTABLE: Vtable = Vtable {
        poll: poll::<F>,
        drop_future: drop_future::<F>,
        take_output: take_output::<F>,
        drop_output: drop_output::<F>,
        free: free::<F>,
    };

    /// For a task of this CPU; `None` if there is no memory.
    #[inline]
    pub(crate) fn new(cpu: &'static CpuLocal) -> Option<Self> {
        let cell = cpu.kept.take(Layout::new::<Cell<F>>()).cast::<Cell<F>>();
        if cell.is_null() { None } else { Some(Room { cell, cpu }) }
    }

    /// The functions that fit this future.
    pub(crate) fn vtable() -> &'static Vtable {
        &Self::VTABLE
    }

    /// Puts header and future into place.
    pub(crate) fn fill(self, header: Header, future: F) -> *mut Header {
        let cell = self.cell;
        core::mem::forget(self);
        let stage = UnsafeCell::new(Stage { future: ManuallyDrop::new(future) });
        // SAFETY: the memory is ours, has the layout, and nothing is in it.
        unsafe { cell.write(Cell { header, stage }) };
        #[cfg(loom)]
        crate::host::count_cell(1);
        cell.cast()
    }
}

impl<F: Future> Drop for Room<F> {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; nothing was written.
        unsafe { self.cpu.kept.keep(self.cell.cast(), Layout::new::<Cell<F>>()) };
    }
}

/// The stage of a task whose future is an `F`.
unsafe fn stage<F: Future>(task: *mut Header) -> *mut Stage<F> {
    // SAFETY: the vtable that led here was made for this `F`, and the cell starts with the header.
    unsafe { UnsafeCell::raw_get(&raw const (*task.cast::<Cell<F>>()).stage) }
}

unsafe fn poll<F: Future>(task: *mut Header) -> bool {
    // SAFETY: the task is RUNNING here, so the stage is ours and holds the future, which never moves.
    let future = unsafe { Pin::new_unchecked(&mut *(*stage::<F>(task)).future) };
    // Made here, where the compiler sees whose waker it is: then what the future does with it needs no call.
    // SAFETY: the executor's reference keeps the task during the poll.
    let waker = unsafe { waker::borrowed(task) };
    let Poll::Ready(output) = future.poll(&mut Context::from_waker(&waker)) else {
        return false;
    };
    // SAFETY: as above; the future is dropped in place, then the output written where it was.
    unsafe {
        drop_future::<F>(task);
        (&raw mut (*stage::<F>(task)).output).write(ManuallyDrop::new(output));
    }
    true
}

unsafe fn drop_future<F: Future>(task: *mut Header) {
    // SAFETY: the caller is the run loop, the task RUNNING, the future there.
    unsafe { ManuallyDrop::drop(&mut (*stage::<F>(task)).future) };
}

unsafe fn take_output<F: Future>(task: *mut Header, to: *mut ()) {
    // SAFETY: the caller saw DONE without CANCELLED and takes once; `to` has room for an `F::Output`.
    unsafe {
        let output = (&raw mut (*stage::<F>(task)).output).cast::<F::Output>().read();
        to.cast::<F::Output>().write(output);
    }
}

unsafe fn drop_output<F: Future>(task: *mut Header) {
    // SAFETY: the caller saw DONE without CANCELLED, and nobody took or takes the output.
    unsafe { ManuallyDrop::drop(&mut (*stage::<F>(task)).output) };
}

unsafe fn free<F: Future>(task: *mut Header) {
    // SAFETY: the last reference is gone, future and output too; CPUs are never freed. Of the header only the join
    // waker would have to be dropped, and that went with the handle or at the end.
    unsafe {
        #[cfg(loom)]
        {
            core::ptr::drop_in_place(task);
            crate::host::count_cell(-1);
        }
        #[cfg(not(loom))]
        (*task).joiner.with_mut(|joiner| debug_assert!((*joiner).is_none(), "the join waker is still there"));
        let home = &*(*task).home.load(Ordering::Relaxed);
        home.kept.keep(task.cast(), Layout::new::<Cell<F>>());
    }
}
