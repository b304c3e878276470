//! A heap that is full at every possible point of the calls that make and map shared memory: an error for the one who asked,
//! and nothing left behind.

mod common;
mod limited_heap;

use common::shown::RW;
use common::{Machine, PAGE, address, page, range};
use limited_heap::{now, until_enough, until_enough_and_nothing_kept, use_up_nodes, with_heap};
use mm::{Access, Denial, FaultOutcome, MapError, OutOfMemory, Placement, SharedMemory};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 100;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn shared(machine: &'static Machine) -> SharedMemory {
    SharedMemory::try_new(machine.memory, PAGES).unwrap()
}

#[test]
fn shared_memory_without_heap_is_an_error_and_leaves_nothing() {
    let machine = Machine::new(64);
    let free = machine.free();
    let (memory, refused) = until_enough_and_nothing_kept(
        || SharedMemory::try_new(machine.memory, PAGES),
        |why| assert_eq!((why, machine.free()), (OutOfMemory, free)),
    );
    assert!(refused >= 2, "an object and its number: {refused}");
    assert_eq!(memory.pages(), PAGES);
}

#[test]
fn a_mapping_of_shared_memory_without_heap_is_an_error_and_what_is_in_it_stays() {
    let machine = Machine::new(100);
    let free = machine.free();
    let memory = shared(machine);
    let (one, other) = (machine.user_space(), machine.user_space());
    one.map_shared(&memory, page(0), PAGES, RW, Placement::Fixed(address(at(0)))).unwrap();
    now(machine.write(&one, at(3), 7)).unwrap();
    let map = || other.map_shared(&memory, page(2), 2, RW, Placement::Fixed(address(at(0))));
    let (start, refused) = until_enough(map, |why| {
        assert_eq!((why, other.stats().mappings), (MapError::NoMemory, 0));
        assert_eq!(now(machine.read(&one, at(3))), Ok(7));
    });
    assert!(refused >= 2, "two notes of the mapping: {refused}");
    assert_eq!((start, now(machine.read(&other, at(1)))), (address(at(0)), Ok(7)));
    // Who could not map it is none of its users: it ends with the last.
    drop((memory, one));
    assert_eq!(now(machine.read(&other, at(1))), Ok(7));
    drop(other);
    now(machine.memory.settle());
    assert_eq!(machine.free(), free, "no page is left over");
}

#[test]
fn a_touch_of_shared_memory_without_heap_is_denied_to_the_one_and_seen_by_nobody() {
    let machine = Machine::new(100);
    let before = machine.free();
    let memory = shared(machine);
    let spaces = [machine.user_space(), machine.user_space()];
    for space in &spaces {
        space.map_shared(&memory, page(0), PAGES, RW, Placement::Fixed(address(at(0)))).unwrap();
        assert_eq!(now(machine.read(space, at(70))), Ok(0));
    }
    let _nodes = use_up_nodes(machine.memory);
    let free = machine.free();
    let fault = machine.fault(at(70), Access::Write);
    let write = || match now(spaces[0].resolve(fault)) {
        FaultOutcome::Resolved => Ok(()),
        FaultOutcome::Denied(why) => Err(why),
    };
    let (_, refused) = until_enough(write, |why| {
        assert_eq!((why, machine.free()), (Denial::OutOfMemory, free));
        assert_eq!(machine.try_read(spaces[1].root(), at(70)), Some(0), "it is still shown");
    });
    assert!(refused > 0);
    now(machine.write(&spaces[0], at(70), 7)).unwrap();
    assert_eq!(now(machine.read(&spaces[1], at(70))), Ok(7));
    // A fork shows the same memory, and a fork that is refused is none of its users.
    let fork = || {
        let table = limited_heap::exempt(|| machine.empty_table());
        now(spaces[0].fork(table))
    };
    let mut refused = 0;
    let twin = loop {
        match with_heap(refused, fork) {
            Ok(twin) => break twin,
            Err(_) => refused += 1,
        }
    };
    assert!(refused >= 3, "a space, a mapping and its note: {refused}");
    drop((spaces, memory));
    assert_eq!(now(machine.read(&twin, at(70))), Ok(7));
    now(twin.unmap(range(address(at(0)), PAGES))).unwrap();
    drop(twin);
    now(machine.memory.settle());
    assert_eq!(machine.free(), before - 1, "only the page of zeros is left");
}
