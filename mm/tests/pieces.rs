//! What takes long is done in pieces: no poll of an unmapping, of a protection or of the end of memory does more than some
//! hundred pages, and who gives up in the middle leaves nothing behind.

mod common;

use std::pin::{Pin, pin};
use std::sync::Arc;

use common::cpus::poll_once;
use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, page, range};
use mm::{AddressSpace, MapError, Placement, Protection, VmObject};

const BASE: u64 = 0x40_0000;
/// 16 MiB.
const PAGES: u64 = 4096;
/// Pages that a poll may work on.
const MOST: u64 = 1024;

/// A space whose pages were all written, one value each.
async fn written(machine: &'static Machine) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    for page in 0..PAGES {
        machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
    }
    space
}

fn all() -> std::ops::Range<mm::VirtAddr> {
    range(address(BASE), PAGES)
}

/// Polls to the end. `seen` are numbers that count pages: none changes by more than a poll may do. Says how many polls
/// there were.
fn poll_to_end<const N: usize>(
    mut future: Pin<&mut impl Future<Output = Result<(), MapError>>>,
    seen: impl Fn() -> [u64; N],
) -> u64 {
    let (mut before, mut polls) = (seen(), 0);
    loop {
        let end = poll_once(future.as_mut());
        let now = seen();
        polls += 1;
        for (before, now) in before.iter().zip(&now) {
            assert!(before.abs_diff(*now) <= MOST + 8, "{before} -> {now} in poll {polls}");
        }
        before = now;
        if end.is_ready() {
            return polls;
        }
    }
}

#[test]
fn a_large_unmapping_has_many_polls_each_of_which_clears_or_frees_some_pages() {
    let machine = Machine::new(5000);
    block_on(async move {
        let free = machine.free();
        let space = written(machine).await;
        let seen = || {
            let frames = machine.memory.frames().stats();
            [space.stats().resident_pages, frames.free as u64, frames.quarantined as u64]
        };
        let polls = poll_to_end(pin!(space.unmap(all())), seen);
        assert!(polls >= 3 * PAGES / MOST, "{polls} polls");
        assert_eq!(space.stats().mappings, 0);
        drop(space);
        machine.memory.settle().await;
        // The page of zeros may have come.
        assert!(machine.free() + 1 >= free);
    });
}

#[test]
fn pages_of_a_file_are_taken_out_of_the_tables_in_pieces_and_stay_with_it() {
    let machine = Machine::new(5000);
    block_on(async move {
        let space = machine.user_space();
        let object = VmObject::zero(machine.memory, PAGES);
        space.map(&object, page(0), PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
        for page in 0..PAGES {
            machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
        }
        let polls = poll_to_end(pin!(space.unmap(all())), || [space.stats().resident_pages]);
        assert!((PAGES / MOST..2 * PAGES / MOST).contains(&polls), "{polls} polls");
        assert_eq!(object.stats().resident, PAGES);
    });
}

#[test]
fn rights_are_taken_from_many_pages_in_pieces() {
    let machine = Machine::new(5000);
    block_on(async move {
        let space = written(machine).await;
        let writable = || {
            let writable = |&page: &u64| {
                space.walk(address(BASE + page * PAGE)).is_some_and(|walk| walk.protection.write)
            };
            (0..PAGES).filter(writable).count() as u64
        };
        let read = Protection::READ.for_user();
        let polls = poll_to_end(pin!(space.protect(all(), read)), || [writable()]);
        assert!(polls >= PAGES / MOST, "{polls} polls");
        assert_eq!((writable(), space.stats().resident_pages), (0, PAGES));
        let none = Protection { user: true, ..Protection::default() };
        let polls = poll_to_end(pin!(space.protect(all(), none)), || [space.stats().resident_pages]);
        assert!(polls >= PAGES / MOST, "{polls} polls");
        assert_eq!(space.stats().resident_pages, 0);
        space.protect(all(), RW).await.unwrap();
        assert_eq!(machine.read(&space, BASE + 77 * PAGE).await, Ok(78));
    });
}

#[test]
fn an_unmapping_or_a_protection_that_is_given_up_in_the_middle_is_done_to_its_end() {
    let machine = Machine::new(5000);
    block_on(async move {
        let space = written(machine).await;
        let read = Protection::READ.for_user();
        assert!(poll_once(pin!(space.protect(all(), read))).is_pending());
        let last = address(BASE + (PAGES - 1) * PAGE);
        assert!(space.walk(last).is_some_and(|walk| !walk.protection.write));
        // The next waits until no CPU has what was taken; those after it have nothing to wait for.
        space.protect(all(), RW).await.unwrap();
        let waits = machine.memory.stats().shootdowns;
        space.protect(all(), Protection { execute: true, ..RW }).await.unwrap();
        assert_eq!(machine.memory.stats().shootdowns, waits);
        drop(space);
        machine.memory.settle().await;
        // While pages are taken out, while they end, and while their frames are freed.
        let cleared = 2 * PAGES / MOST;
        for polls in [1, PAGES / MOST + 1, cleared - 1, cleared + 1] {
            let free = machine.free();
            let space = written(machine).await;
            let mut unmapping = Box::pin(space.unmap(all()));
            (0..polls).for_each(|_| assert!(poll_once(unmapping.as_mut()).is_pending()));
            if polls < cleared {
                assert_eq!(space.map_anonymous(1, RW, Placement::Fixed(last)), Err(MapError::Overlap));
            }
            drop(unmapping);
            assert_eq!((space.stats().resident_pages, space.stats().mappings), (0, 0));
            space.map_anonymous(1, RW, Placement::Fixed(last)).unwrap();
            drop(space);
            machine.memory.settle().await;
            assert_eq!(machine.free(), free);
            assert_eq!(machine.memory.frames().stats().quarantined, 0);
        }
    });
}

#[test]
fn two_who_unmap_the_same_in_turns_both_come_to_the_end() {
    let machine = Machine::new(5000);
    block_on(async move {
        let space = written(machine).await;
        let (mut one, mut other) = (pin!(space.unmap(all())), pin!(space.unmap(all())));
        let (mut one_ends, mut other_ends, mut polls) = (false, false, 0);
        while !(one_ends && other_ends) {
            one_ends = one_ends || poll_once(one.as_mut()).is_ready();
            other_ends = other_ends || poll_once(other.as_mut()).is_ready();
            polls += 1;
        }
        assert!(polls > 1);
        assert_eq!((space.stats().resident_pages, space.stats().mappings), (0, 0));
    });
}

#[test]
fn a_part_of_what_was_forked_goes_in_pieces_and_the_twin_keeps_it() {
    let machine = Machine::new(9000);
    block_on(async move {
        let space = written(machine).await;
        let twin = space.fork(machine.empty_table()).await.unwrap();
        for page in 0..PAGES {
            machine.write(&space, BASE + page * PAGE, page + 1_000_000).await.unwrap();
        }
        let frames = || machine.memory.frames().stats().free as u64;
        let but_one = range(address(BASE), PAGES - 1);
        let polls = poll_to_end(pin!(space.unmap(but_one)), || [frames(), space.stats().resident_pages]);
        assert!(polls >= 3 * PAGES / MOST, "{polls} polls");
        let last = BASE + (PAGES - 1) * PAGE;
        assert_eq!(machine.read(&space, last).await, Ok(PAGES - 1 + 1_000_000));
        let polls = poll_to_end(pin!(twin.unmap(range(address(BASE), 1))), || [frames()]);
        assert!(polls < 3, "{polls} polls");
        for page in 1..PAGES {
            assert_eq!(machine.read(&twin, BASE + page * PAGE).await, Ok(page + 1));
        }
    });
}
