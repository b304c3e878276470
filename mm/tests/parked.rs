//! What a parked fault costs: counted in the heap's own bytes.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use common::{Machine, PAGE, page};
use mm::{Access, FaultOutcome, Placement, Protection, VmObject};

/// The heap, with the bytes in use counted as a simple allocator would: in 16-byte steps.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

fn rounded(layout: Layout) -> usize {
    layout.size().next_multiple_of(16)
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !common::is_checking() {
            IN_USE.fetch_add(rounded(layout), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !common::is_checking() {
            IN_USE.fetch_sub(rounded(layout), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

#[test]
fn a_parked_fault_costs_less_than_250_bytes_beside_its_future() {
    const THREADS: u64 = 20_000;
    let machine = Machine::new(4096);
    let pager = machine.pager();
    pager.hold();
    let object = VmObject::new(machine.memory, pager.clone(), THREADS);
    let space = machine.window();
    let start = space.map(&object, page(0), THREADS, Protection::READ, Placement::Anywhere).unwrap();
    let free = machine.free();
    let mut context = Context::from_waker(Waker::noop());
    let mut futures = Vec::with_capacity(THREADS as usize);
    for index in 0..THREADS {
        futures.push(space.resolve(machine.fault(start.as_u64() + index * PAGE, Access::Read)));
    }
    let before = IN_USE.load(Ordering::Relaxed);
    let mut futures = pin!(futures.into_boxed_slice());
    let unpolled = IN_USE.load(Ordering::Relaxed);
    assert_eq!(before, unpolled);
    for index in 0..THREADS as usize {
        assert!(poll(&mut futures, index, &mut context).is_none());
    }
    let bytes = (IN_USE.load(Ordering::Relaxed) - before) / THREADS as usize;
    assert_eq!((pager.held(), machine.free()), (THREADS as usize, free));
    assert!(bytes < 250, "{bytes} bytes for each parked fault");
    for index in 0..100 {
        pager.release(page(index as u64));
        assert_eq!(poll(&mut futures, index, &mut context), Some(FaultOutcome::Resolved));
    }
}

/// Polls one of the futures, which stay where they are.
#[allow(unsafe_code, reason = "there is no safe projection into a pinned slice")]
fn poll<F: Future>(
    futures: &mut std::pin::Pin<&mut Box<[F]>>,
    index: usize,
    context: &mut Context<'_>,
) -> Option<F::Output> {
    // SAFETY: the box is never moved out of or grown.
    let future = unsafe { std::pin::Pin::new_unchecked(&mut futures.as_mut().get_unchecked_mut()[index]) };
    match future.poll(context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
