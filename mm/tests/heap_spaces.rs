//! A heap that is full at every possible point of the calls that place and move mappings: an error for the one who asked,
//! nothing changed, and nothing left behind.

mod common;
mod limited_heap;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::shown::RW;
use common::{Machine, PAGE, address, page, range};
use limited_heap::with_heap;
use mm::{AddressSpace, Denial, FaultOutcome, Hardware, MapError, Placement, SpaceStats, VmObject};

const BASE: u64 = 0x40_0000;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match poll_once(pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}

/// Calls with room for 0, 1, 2, ... allocations until that is enough, and says how many times it was not. `same` looks
/// after each refusal.
fn until_enough<T, E>(call: impl Fn() -> Result<T, E>, mut refused: impl FnMut(E)) -> (T, usize) {
    for allocations in 0.. {
        match with_heap(allocations, &call) {
            Ok(value) => return (value, allocations),
            Err(why) => refused(why),
        }
    }
    unreachable!("some heap is enough")
}

/// What mappings there are; pages of what was split are the same pages.
fn pages(space: &AddressSpace) -> SpaceStats {
    SpaceStats { mappings: 0, ..space.stats() }
}

#[test]
fn a_stack_without_heap_is_an_error_and_one_that_cannot_grow_stays_as_it_is() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let (_, refused) = until_enough(
        || space.set_stack(range(address(BASE), 16), 1, RW),
        |why| assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 0)),
    );
    assert!(refused >= 4, "an object, a version, and two notes of the mapping: {refused}");
    now(machine.write(&space, at(15), 1)).unwrap();
    now(machine.write(&space, at(12), 1)).unwrap();
    let free = machine.free();
    let fault = machine.fault(at(3), mm::Access::Write);
    let grow = || match now(space.resolve(fault)) {
        FaultOutcome::Resolved => Ok(()),
        FaultOutcome::Denied(why) => Err(why),
    };
    // Growing is one thing, the page's place in the private memory another.
    let (_, refused) = until_enough(grow, |why| {
        assert_eq!((why, machine.free()), (Denial::OutOfMemory, free));
        assert!([4, 13].contains(&space.stats().mapped_pages));
        assert_eq!(now(machine.read(&space, at(12))), Ok(1));
    });
    assert!(refused >= 2, "two notes of the mapping: {refused}");
    assert_eq!(space.stats().mapped_pages, 13);
}
