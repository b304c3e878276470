//! What is known about memory takes memory itself: how much, and when.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::{Machine, PAGE, address, page};
use mm::{Access, AddressSpace, FaultOutcome, PageIndex, Placement, Protection, VmObject};

/// The heap, which counts what each thread has taken of it.
struct Counted;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !common::is_checking() {
            BYTES.set(BYTES.get().wrapping_add(layout.size()));
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !common::is_checking() {
            BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counted = Counted;

/// The bytes and the allocations that something took.
fn taken(f: impl FnOnce()) -> (usize, usize) {
    let before = (BYTES.get(), ALLOCATIONS.get());
    f();
    (BYTES.get().wrapping_sub(before.0), ALLOCATIONS.get() - before.1)
}

const BASE: u64 = 0x4000_0000;
const RIGHTS: Protection = Protection::READ_WRITE.for_user();
/// A frame's record; checked where it is declared.
const RECORD: usize = 24;

fn now<T>(future: impl Future<Output = T>) -> T {
    match poll_once(pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}

fn touch(machine: &Machine, space: &AddressSpace, number: u64, access: Access) {
    let fault = machine.fault(BASE + number * PAGE, access);
    assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
}

fn shared(machine: &'static Machine, pages: u64) -> (Arc<AddressSpace>, Arc<VmObject>) {
    let (space, object) = (machine.user_space(), VmObject::zero(machine.memory, pages));
    space.map(&object, PageIndex::new(0), pages, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    (space, object)
}

fn private(machine: &'static Machine, pages: u64) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_anonymous(pages, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    space
}

#[test]
fn a_page_that_is_there_takes_at_most_48_bytes_beside_its_table_entry() {
    const PAGES: u64 = 4096;
    let machine = Machine::new(3 * PAGES as usize);
    let (of_object, _object) = shared(machine, PAGES);
    for space in [of_object, private(machine, PAGES)] {
        let (bytes, _) =
            taken(|| (0..PAGES).for_each(|number| touch(machine, &space, number, Access::Write)));
        let each = RECORD + bytes.div_ceil(PAGES as usize);
        println!("{each} bytes a page");
        assert!(each <= 48, "{each}");
    }
}

#[test]
fn pages_that_are_not_there_take_nothing() {
    let machine = Machine::new(64);
    let cost = |pages| {
        let free = machine.free();
        let mut space = None;
        let bytes = taken(|| space = Some((shared(machine, pages), private(machine, pages))));
        (bytes, free - machine.free())
    };
    assert_eq!(cost(10_000_000), cost(1));
}

#[test]
fn a_minor_fault_beside_a_page_that_is_there_takes_nothing_from_the_heap() {
    let machine = Machine::new(100);
    let (first, object) = shared(machine, 8);
    let second = machine.user_space();
    second.map(&object, page(0), 8, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    let anonymous = private(machine, 8);
    for space in [&first, &anonymous] {
        touch(machine, space, 0, Access::Write);
    }
    touch(machine, &second, 0, Access::Read);
    touch(machine, &anonymous, 1, Access::Read);
    let twin = now(anonymous.fork(machine.empty_table())).unwrap();
    touch(machine, &anonymous, 7, Access::Write);
    machine.forget_translations();
    // What the processor itself needs of the host's heap is there.
    touch(machine, &anonymous, 0, Access::Write);
    let (_, allocations) = taken(|| {
        touch(machine, &first, 1, Access::Write);
        touch(machine, &second, 1, Access::Read);
        touch(machine, &anonymous, 2, Access::Read);
        touch(machine, &anonymous, 3, Access::Write);
        touch(machine, &anonymous, 1, Access::Write);
    });
    assert_eq!(allocations, 0);
    drop(twin);
}
