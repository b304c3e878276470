//! A heap that is full when the test says so.
#![allow(unreachable_pub, dead_code, reason = "a module of several test programs")]

mod disk;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mm::{Memory, PAGE_SIZE, PageRequest, Pager, VmObject};

#[allow(unused_imports, reason = "some of the test programs have none")]
pub use disk::Disk;

/// The heap, which is full for a thread that has used up its allocations.
struct Limited;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Allocations that are left for those who write pages out.
    static RESERVE: Cell<usize> = const { Cell::new(0) };
    /// The largest of those that were taken.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// Pages that were taken of the heap.
    static PAGES: Cell<usize> = const { Cell::new(0) };
    /// Whether those are at work who have a heap of their own.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if mm_simulator::is_checking() || EXEMPT.get() || takes_reserve(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let left = LEFT.get();
        if left == 0 || left == FULL {
            return std::ptr::null_mut();
        }
        LEFT.set(if left == usize::MAX { left } else { left - 1 });
        PAGES.set(PAGES.get() + usize::from(layout.align() == PAGE_SIZE));
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
fn takes_reserve(layout: Layout) -> bool {
    let taken = mm_simulator::is_drawing() && RESERVE.get() > 0;
    if taken {
        RESERVE.set(RESERVE.get() - 1);
        LARGEST.set(LARGEST.get().max(layout.size()));
    }
    taken
}

#[global_allocator]
static HEAP: Limited = Limited;

/// What a future answers that waits for nobody.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for somebody"),
    }
}

/// Room for nothing, whatever is given back.
pub const FULL: usize = usize::MAX - 1;

/// From now on so many allocations are kept for those who write pages out. Answers how large the largest was that was taken
/// since the last call.
pub fn keep_for_write_back(allocations: usize) -> usize {
    RESERVE.set(allocations);
    LARGEST.replace(0)
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
    with_heap_left(allocations, f).0
}

/// The same, and says for how many there is room afterwards: as many as before, if nothing was kept.
pub fn with_heap_left<T>(allocations: usize, f: impl FnOnce() -> T) -> (T, usize) {
    LEFT.set(allocations);
    let value = f();
    (value, LEFT.replace(usize::MAX))
}

/// Calls with room for 0, 1, 2, ... allocations until that is enough, and says how many times it was not. `refused` looks
/// after each refusal.
pub fn until_enough<T, E>(call: impl Fn() -> Result<T, E>, mut refused: impl FnMut(E)) -> (T, usize) {
    for allocations in 0.. {
        match with_heap(allocations, &call) {
            Ok(value) => return (value, allocations),
            Err(why) => refused(why),
        }
    }
    unreachable!("some heap is enough")
}

/// The same for what takes nothing of the slabs: a refusal leaves nothing in the heap.
pub fn until_enough_and_nothing_kept<T, E>(
    call: impl Fn() -> Result<T, E>,
    mut refused: impl FnMut(E),
) -> (T, usize) {
    let all_back = |allocations| match with_heap_left(allocations, &call) {
        (Ok(value), _) => Ok(value),
        (Err(why), left) => {
            assert_eq!(left, allocations, "what was taken of the heap is given back");
            Err(why)
        }
    };
    for allocations in 0.. {
        match all_back(allocations) {
            Ok(value) => return (value, allocations),
            Err(why) => refused(why),
        }
    }
    unreachable!("some heap is enough")
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

/// Keeps its loads for good.
#[derive(Default)]
struct Keeper(Mutex<Vec<PageRequest>>);

impl Pager for Keeper {
    fn name(&self) -> &str {
        "keeper"
    }

    fn load(&self, request: PageRequest) {
        self.0.lock().unwrap().push(request);
    }
}

/// Takes the places that are left in the pages of transfers, with loads that never end: the next transfer needs the heap.
pub fn use_up_transfers(memory: &'static Memory) {
    // A chunk of the index and room for its transfers come with the first loads, transfers in between.
    const MOST: u64 = 256;
    let object: &'static _ = Box::leak(Box::new(VmObject::new(memory, Arc::new(Keeper::default()), MOST)));
    let mut taken = Vec::new();
    for index in 0..MOST {
        let before = PAGES.get();
        let mut read = Box::pin(object.read(index * PAGE_SIZE as u64, Vec::leak(vec![0; 1])));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        std::mem::forget(read);
        if PAGES.get() > before && index % 64 != 0 {
            taken.push(index);
        }
        if let [.., first, second] = taken[..]
            && index + 1 == second + (second - first)
        {
            return;
        }
    }
    panic!("a page has fewer places");
}
