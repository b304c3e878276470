//! A heap that is full at every possible point of a fault: an error for the one who asked, and nothing left behind.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::cpus::{Busy, poll_once};
use common::{Machine, page};
use executor::host::block_on_cpus;
use mm::{
    Access, AddressSpace, Denial, Fault, FaultOutcome, PageError, PageRequest, PageState, Pager, Placement,
    Protection, VmObject,
};

/// The heap, which is full for a thread that has used up its allocations.
struct Limited;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let left = LEFT.get();
        if left == 0 {
            return std::ptr::null_mut();
        }
        LEFT.set(if left == usize::MAX { left } else { left - 1 });
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Limited = Limited;

/// Does something with room for so many allocations.
fn with_heap<T>(allocations: usize, f: impl FnOnce() -> T) -> T {
    LEFT.set(allocations);
    let value = f();
    LEFT.set(usize::MAX);
    value
}

/// Loads at once, with what is in the frame.
struct AtOnce;

impl Pager for AtOnce {
    fn name(&self) -> &str {
        "at once"
    }

    fn load(&self, mut request: PageRequest) {
        let result = match request.memory().frames().try_alloc() {
            Some(frame) => {
                request.attach(frame);
                Ok(())
            }
            None => Err(PageError::OutOfMemory),
        };
        request.complete(result);
    }
}

struct Scene {
    machine: &'static Machine,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    fault: Fault,
}

/// The page of a large object that is touched: its way in the object's tree is long.
const TOUCHED: u64 = 1_000_000;

impl Scene {
    fn new(machine: &'static Machine, make: fn(&'static Machine, u64) -> Arc<VmObject>) -> Self {
        let space = machine.window();
        let object = make(machine, TOUCHED + 1);
        let start =
            space.map(&object, page(TOUCHED), 1, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let fault = machine.fault(start.as_u64(), Access::Write);
        Self { machine, object, space, fault }
    }

    /// One fault, for which everything is there or nothing.
    fn resolve(&self) -> FaultOutcome {
        match poll_once(pin!(self.space.resolve(self.fault))) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("there is nothing to wait for"),
        }
    }
}

fn zero(machine: &'static Machine, pages: u64) -> Arc<VmObject> {
    VmObject::zero(machine.memory, pages)
}

fn loaded(machine: &'static Machine, pages: u64) -> Arc<VmObject> {
    VmObject::new(machine.memory, Arc::new(AtOnce), pages)
}

#[test]
fn a_fault_without_heap_is_denied_and_changes_nothing() {
    for make in [zero, loaded] {
        let scene = Scene::new(Machine::new(64), make);
        let free = scene.machine.free();
        let mut denied = 0;
        while let outcome = with_heap(denied, || scene.resolve())
            && outcome != FaultOutcome::Resolved
        {
            assert_eq!(outcome, FaultOutcome::Denied(Denial::OutOfMemory));
            assert_eq!((scene.object.state(page(TOUCHED)), scene.machine.free()), (PageState::Absent, free));
            assert_eq!((scene.object.stats().loading, scene.object.stats().resident), (0, 0));
            denied += 1;
        }
        assert!(denied >= 4, "each level of the tree needs the heap");
        assert!(matches!(scene.object.state(page(TOUCHED)), PageState::Dirty { .. }));
    }
}

#[test]
fn a_fault_without_heap_waits_while_there_is_no_frame_either() {
    for make in [zero, loaded] {
        let scene = Scene::new(Machine::new(64), make);
        let frames = scene.machine.memory.frames();
        let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let mut fault = pin!(scene.space.resolve(scene.fault));
        assert!(with_heap(0, || poll(fault.as_mut())).is_pending());
        assert_eq!(frames.stats().waiting, 1);
        // Memory comes back, and with it room in the heap.
        taken.truncate(taken.len() - 8);
        assert_eq!(poll(fault.as_mut()), Poll::Ready(FaultOutcome::Resolved));
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_touch_of_a_dropped_page_without_heap_is_denied() {
    block_on_cpus(2, async {
        let scene = Scene::new(Machine::with_cpus(64), zero);
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
        let busy = Busy::begin(scene.machine).await;
        let mut release = Box::pin(scene.object.release(page(TOUCHED)..page(TOUCHED + 1)));
        assert!(poll_once(release.as_mut()).is_pending());
        let outcome = with_heap(0, || scene.resolve());
        assert_eq!(outcome, FaultOutcome::Denied(Denial::OutOfMemory));
        busy.end().await;
        release.await;
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
    });
}
