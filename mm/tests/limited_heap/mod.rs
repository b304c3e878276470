//! A heap that is full when the test says so.
#![allow(unreachable_pub, dead_code, reason = "a module of several test programs")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mm::{Memory, VmObject};

/// The heap, which is full for a thread that has used up its allocations.
struct Limited;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Allocations that are left for those who write pages out.
    static RESERVE: Cell<usize> = const { Cell::new(0) };
    /// Whether those are at work who have a heap of their own.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if mm_simulator::is_checking() || EXEMPT.get() || takes_reserve() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let left = LEFT.get();
        if left == 0 || left == FULL {
            return std::ptr::null_mut();
        }
        LEFT.set(if left == usize::MAX { left } else { left - 1 });
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What is given back can be had again.
        let left = LEFT.get();
        LEFT.set(if left >= FULL || mm_simulator::is_checking() || EXEMPT.get() { left } else { left + 1 });
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Whether an allocation comes from what is kept for write-back.
fn takes_reserve() -> bool {
    let taken = mm_simulator::is_drawing() && RESERVE.get() > 0;
    RESERVE.set(RESERVE.get() - usize::from(taken));
    taken
}

#[global_allocator]
static HEAP: Limited = Limited;

/// Room for nothing, whatever is given back.
pub const FULL: usize = usize::MAX - 1;

/// From now on so many allocations are kept for those who write pages out.
pub fn keep_for_write_back(allocations: usize) {
    RESERVE.set(allocations);
}

/// Does something with a heap that is never full.
pub fn exempt<T>(f: impl FnOnce() -> T) -> T {
    let before = EXEMPT.replace(true);
    let value = f();
    EXEMPT.set(before);
    value
}

/// Does something with room for so many allocations.
pub fn with_heap<T>(allocations: usize, f: impl FnOnce() -> T) -> T {
    LEFT.set(allocations);
    let value = f();
    LEFT.set(usize::MAX);
    value
}

/// Takes the places that are left in the pages of index nodes, with objects that are the caller's: as long as they live,
/// the next node that has entries of pages needs the heap.
pub fn use_up_nodes(memory: &'static Memory) -> Vec<Arc<VmObject>> {
    let mut objects = Vec::new();
    loop {
        let object = VmObject::zero(memory, 1);
        let has_place = {
            let mut write = pin!(object.write(0, &[1]));
            let mut poll = || write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            matches!(with_heap(0, &mut poll), Poll::Ready(Ok(_)))
        };
        if !has_place {
            return objects;
        }
        objects.push(object);
        assert!(objects.len() < 64, "a page has fewer places");
    }
}
