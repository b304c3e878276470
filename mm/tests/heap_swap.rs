//! A heap that is full at every possible point of the beginning of swap, and of a page's way back from it: an error
//! for the one who asked, nothing left behind, and no word lost.

mod common;
mod limited_heap;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, range};
use limited_heap::{Disk, now, until_enough_and_nothing_kept, use_up_transfers, with_heap};
use mm::{Access, AddressSpace, Advice, Denial, FaultOutcome, OutOfMemory, Placement, TestStore, swap_out};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 6;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn disk() -> Arc<Disk<TestStore>> {
    Arc::new(Disk(TestStore::new(100)))
}

/// A space with `PAGES` pages, each of which has its number in it.
fn written(machine: &'static Machine) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    (0..PAGES).for_each(|index| now(machine.write(&space, at(index), index + 1)).unwrap());
    space
}

#[test]
fn swap_without_heap_is_an_error_and_there_is_none() {
    let machine = Machine::new(100);
    let space = written(machine);
    let store = disk();
    let free = machine.free();
    let begin = || machine.memory.swap_on(store.clone());
    let ((), refused) = until_enough_and_nothing_kept(begin, |why| {
        assert_eq!((why, machine.memory.swap_stats()), (OutOfMemory, None));
        assert_eq!((Arc::strong_count(&store), machine.free()), (1, free));
    });
    assert!(refused >= 20, "the slots, what frames have, the clusters of 16 writes: {refused}");
    // What was there before goes to it.
    assert_eq!(block_on(swap_out(machine.memory, usize::MAX)), PAGES as usize);
    (0..PAGES).for_each(|index| assert_eq!(now(machine.read(&space, at(index))), Ok(index + 1)));
}

#[test]
fn a_page_whose_way_back_finds_the_heap_full_is_denied_and_stays_in_its_slot() {
    let machine = Machine::new(200);
    machine.memory.swap_on(disk()).unwrap();
    let space = written(machine);
    assert_eq!(block_on(swap_out(machine.memory, usize::MAX)), PAGES as usize);
    use_up_transfers(machine.memory);
    let before = machine.memory.swap_stats().unwrap();
    let free = machine.free();
    let mut refused = 0;
    for index in 0..PAGES {
        let fault = machine.fault(at(index), Access::Read);
        let mut allocations = 0;
        while let outcome = with_heap(allocations, || now(space.resolve(fault)))
            && outcome != FaultOutcome::Resolved
        {
            assert_eq!(outcome, FaultOutcome::Denied(Denial::OutOfMemory));
            if index == 0 {
                assert_eq!((machine.memory.swap_stats(), machine.free()), (Some(before), free));
            }
            allocations += 1;
        }
        refused += allocations;
        assert_eq!(now(machine.read(&space, at(index))), Ok(index + 1));
    }
    assert!(refused >= 2, "a transfer and its note: {refused}");
    drop(space);
    now(machine.memory.settle());
    assert_eq!(machine.memory.swap_stats().unwrap().used_slots, 0);
}

#[test]
fn advice_with_a_full_heap_begins_what_there_is_room_for_and_loses_nothing() {
    let machine = Machine::new(400);
    machine.memory.swap_on(disk()).unwrap();
    let space = written(machine);
    let mut advised = 0;
    for allocations in 0..10 {
        while machine.memory.frames().stats().anonymous > 0 {
            block_on(swap_out(machine.memory, usize::MAX));
        }
        use_up_transfers(machine.memory);
        let before = machine.memory.swap_stats().unwrap().pages_in;
        let mut advise = pin!(space.advise(range(address(BASE), PAGES), Advice::WillNeed));
        assert_eq!(with_heap(allocations, || poll_once(advise.as_mut())), Poll::Ready(Ok(())));
        let begun = machine.memory.swap_stats().unwrap().pages_in - before;
        assert!(begun >= advised && (begun == 0 || allocations > 0), "{begun} with {allocations}");
        advised = begun;
        (0..PAGES).for_each(|index| assert_eq!(now(machine.read(&space, at(index))), Ok(index + 1)));
    }
    assert_eq!(advised, PAGES);
    drop(space);
    now(machine.memory.settle());
    assert_eq!(machine.memory.swap_stats().unwrap().used_slots, 0);
}
