//! Private memory and forks: who sees what, what is copied, and what is left of it.

mod common;

use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, content, page, range};
use executor::host::block_on_cpus;
use mm::{AddressSpace, MapError, Placement, Protection, VmObject};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 6;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn placed() -> Placement {
    Placement::Fixed(address(BASE))
}

fn anonymous(machine: &'static Machine) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, placed()).unwrap();
    space
}

/// A space with private memory over a file, and the file.
fn over_a_file(machine: &'static Machine) -> (Arc<AddressSpace>, Arc<VmObject>) {
    let object = VmObject::new(machine.memory, machine.pager(), PAGES + 2);
    let space = machine.user_space();
    space.map_private(&object, page(2), PAGES, RW, placed()).unwrap();
    (space, object)
}

async fn fork(machine: &'static Machine, space: &AddressSpace) -> Arc<AddressSpace> {
    space.fork(machine.empty_table()).await.unwrap()
}

#[test]
fn memory_that_is_only_read_shares_one_page_of_zeros() {
    let machine = Machine::new(100);
    block_on(async {
        let space = anonymous(machine);
        assert_eq!(machine.read(&space, at(0)).await, Ok(0));
        let free = machine.free();
        for index in 1..PAGES {
            assert_eq!(machine.read(&space, at(index)).await, Ok(0));
        }
        assert_eq!(machine.free(), free);
        machine.write(&space, at(1), 7).await.unwrap();
        assert_eq!(machine.free(), free - 1);
        assert_eq!((machine.read(&space, at(1)).await, machine.read(&space, at(2)).await), (Ok(7), Ok(0)));
        assert!(!space.walk(address(at(2))).unwrap().protection.write);
    });
}

#[test]
fn a_private_page_of_a_file_is_copied_when_it_is_written() {
    let machine = Machine::new(100);
    block_on(async {
        let (space, object) = over_a_file(machine);
        let other = machine.user_space();
        other.map(&object, page(2), PAGES, RW, placed()).unwrap();
        assert_eq!(machine.read(&space, at(0)).await, Ok(content(2)));
        // What others write to the file is seen until then, and not after it.
        machine.write(&other, at(0), 5).await.unwrap();
        assert_eq!(machine.read(&space, at(0)).await, Ok(5));
        machine.write(&space, at(0) + 8, 6).await.unwrap();
        machine.write(&other, at(0), 7).await.unwrap();
        assert_eq!(
            (machine.read(&space, at(0)).await, machine.read(&space, at(0) + 8).await),
            (Ok(5), Ok(6))
        );
        assert_eq!(machine.read(&other, at(0) + 8).await, Ok(content(2)));
        // A page that was never read is loaded, and copied, by one write.
        machine.write(&space, at(1), 8).await.unwrap();
        assert_eq!(machine.read(&other, at(1)).await, Ok(content(3)));
        assert_eq!(machine.read(&space, at(1) + 8).await, Ok(content(3)));
    });
}

#[test]
fn pages_of_a_file_can_be_given_back_under_private_memory() {
    let machine = Machine::new(100);
    block_on(async {
        let (space, object) = over_a_file(machine);
        machine.read(&space, at(0)).await.unwrap();
        machine.write(&space, at(1), 1).await.unwrap();
        assert_eq!(object.stats().resident, 2);
        assert_eq!(mm::reclaim(machine.memory, 10).await, 2);
        assert!(space.walk(address(at(0))).is_none(), "it shows a page that is gone");
        assert!(space.walk(address(at(1))).is_some(), "its own page is not the file's");
        assert_eq!(
            (machine.read(&space, at(0)).await, machine.read(&space, at(1)).await),
            (Ok(content(2)), Ok(1))
        );
    });
}

#[test]
fn a_fork_sees_what_was_and_each_side_goes_on_for_itself() {
    let machine = Machine::new(100);
    block_on(async {
        for file in [false, true] {
            let parent = if file { over_a_file(machine).0 } else { anonymous(machine) };
            machine.write(&parent, at(0), 1).await.unwrap();
            machine.write(&parent, at(1), 2).await.unwrap();
            let child = fork(machine, &parent).await;
            machine.write(&parent, at(0), 10).await.unwrap();
            machine.write(&child, at(1), 20).await.unwrap();
            machine.write(&child, at(2), 30).await.unwrap();
            let old = if file { content(4) } else { 0 };
            for (space, expected) in [(&parent, [10, 2, old]), (&child, [1, 20, 30])] {
                for (index, expected) in (0..).zip(expected) {
                    assert_eq!(machine.read(space, at(index)).await, Ok(expected), "page {index}");
                }
            }
        }
    });
}

#[test]
fn the_last_owner_of_a_page_takes_it() {
    let machine = Machine::new(100);
    block_on(async {
        let parent = anonymous(machine);
        machine.write(&parent, at(0), 1).await.unwrap();
        let child = fork(machine, &parent).await;
        assert_eq!(machine.read(&child, at(0)).await, Ok(1));
        let free = machine.free();
        machine.write(&parent, at(0), 2).await.unwrap();
        assert_eq!(machine.free(), free - 1, "the child still sees the old one");
        machine.write(&child, at(0), 3).await.unwrap();
        assert_eq!(machine.free(), free - 1, "nobody else sees the old one");
        assert_eq!((machine.read(&parent, at(0)).await, machine.read(&child, at(0)).await), (Ok(2), Ok(3)));
    });
}

#[test]
fn shared_mappings_stay_shared() {
    let machine = Machine::new(100);
    block_on(async {
        let object = VmObject::zero(machine.memory, PAGES);
        let parent = machine.user_space();
        parent.map(&object, page(0), PAGES, RW, placed()).unwrap();
        machine.write(&parent, at(0), 1).await.unwrap();
        let child = fork(machine, &parent).await;
        machine.write(&child, at(0), 2).await.unwrap();
        assert_eq!(machine.read(&parent, at(0)).await, Ok(2));
        assert_eq!(object.stats().mappings, 2);
    });
}

#[test]
fn rights_and_pieces_are_those_of_the_parent() {
    let machine = Machine::new(100);
    block_on(async {
        let parent = anonymous(machine);
        for index in 0..PAGES {
            machine.write(&parent, at(index), index + 1).await.unwrap();
        }
        parent.unmap(range(address(at(2)), 1)).await.unwrap();
        parent.protect(range(address(at(4)), 1), Protection::READ.for_user()).await.unwrap();
        let child = fork(machine, &parent).await;
        for space in [&parent, &child] {
            assert_eq!(machine.read(space, at(1)).await, Ok(2));
            assert_eq!(machine.read(space, at(2)).await, Err(mm::Denial::NoMapping));
            assert!(machine.write(space, at(4), 9).await.is_err());
            machine.write(space, at(5), 50).await.unwrap();
        }
        assert_eq!(child.stats().mappings, parent.stats().mappings);
        let taken = child.map_anonymous(1, RW, Placement::Fixed(address(at(1))));
        assert_eq!(taken, Err(MapError::Overlap));
    });
}

#[test]
fn a_chain_of_forks_ends_in_any_order_and_leaves_nothing() {
    let machine = Machine::new(3000);
    block_on(async {
        let first = anonymous(machine);
        machine.read(&first, at(0)).await.unwrap();
        drop(first);
        machine.memory.settle().await;
        let free = machine.free();
        for order in 0..4 {
            let mut spaces = vec![anonymous(machine)];
            for generation in 0..40 {
                let last = spaces.last().unwrap().clone();
                machine.write(&last, at(generation % PAGES), generation).await.unwrap();
                spaces.push(fork(machine, &last).await);
            }
            while !spaces.is_empty() {
                let next = match order {
                    0 => 0,
                    1 => spaces.len() - 1,
                    2 => spaces.len() / 2,
                    _ => spaces.len() * 7 % spaces.len().max(1),
                };
                drop(spaces.remove(next));
                for space in &spaces {
                    machine.read(space, at(3)).await.unwrap();
                }
            }
            machine.memory.settle().await;
            assert_eq!(machine.free(), free, "order {order}");
        }
    });
}

/// Runs a test with two CPUs that remember what they have seen of page tables.
fn on_two_cpus<T: Future>(test: impl FnOnce(&'static Machine) -> T) {
    let machine = Machine::with_cpus(200);
    block_on_cpus(2, test(machine));
}

#[test]
fn what_another_cpu_writes_during_a_fork_is_lost_for_nobody() {
    on_two_cpus(|machine| async move {
        let parent = anonymous(machine);
        machine.write(&parent, at(0), 1).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(parent.root(), at(0), 2));
        let mut forking = Box::pin(parent.fork(machine.empty_table()));
        assert!(poll_once(forking.as_mut()).is_pending(), "a CPU may still write");
        assert!(busy.writes(parent.root(), at(0), 3), "it remembers that it may");
        // A write by this CPU would have to copy the page, which is not settled yet.
        let mut writing = Box::pin(machine.write(&parent, at(0) + 8, 4));
        assert!(poll_once(writing.as_mut()).is_pending());
        assert!(busy.writes(parent.root(), at(0), 5));
        busy.end().await;
        writing.await.unwrap();
        let child = forking.await.unwrap();
        assert_eq!(
            (machine.read(&parent, at(0)).await, machine.read(&parent, at(0) + 8).await),
            (Ok(5), Ok(4))
        );
        assert_eq!(
            (machine.read(&child, at(0)).await, machine.read(&child, at(0) + 8).await),
            (Ok(5), Ok(0))
        );
    });
}

#[test]
fn a_copy_is_shown_when_no_cpu_sees_the_old_page_any_more() {
    on_two_cpus(|machine| async move {
        for kind in 0..3 {
            let space = if kind == 0 { over_a_file(machine).0 } else { anonymous(machine) };
            let other = if kind == 2 {
                machine.write(&space, at(0), 1).await.unwrap();
                Some(fork(machine, &space).await)
            } else {
                None
            };
            let old = machine.read(&space, at(0)).await.unwrap();
            let busy = Busy::begin(machine).await;
            assert_eq!(busy.reads(space.root(), at(0)), Some(old));
            let mut writing = Box::pin(machine.write(&space, at(0), 9));
            assert!(poll_once(writing.as_mut()).is_pending(), "kind {kind}");
            assert_eq!(busy.reads(space.root(), at(0)), Some(old));
            let mut reading = Box::pin(machine.read(&space, at(0)));
            assert!(poll_once(reading.as_mut()).is_pending(), "what is shown next is the new page");
            busy.end().await;
            writing.await.unwrap();
            assert_eq!(reading.await, Ok(9));
            drop(other);
        }
    });
}

#[test]
fn a_page_is_taken_when_no_cpu_remembers_it_that_runs_the_other_side() {
    on_two_cpus(|machine| async move {
        let space = anonymous(machine);
        machine.write(&space, at(0), 1).await.unwrap();
        let other = fork(machine, &space).await;
        assert_eq!(machine.read(&space, at(0)).await, Ok(1));
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(space.root(), at(0)), Some(1));
        let mut copying = Box::pin(machine.write(&space, at(0), 9));
        assert!(poll_once(copying.as_mut()).is_pending());
        let mut taking = Box::pin(machine.write(&other, at(0), 5));
        assert!(
            poll_once(taking.as_mut()).is_pending(),
            "the page is the other side's alone, but not all CPUs know"
        );
        assert_eq!(busy.reads(space.root(), at(0)), Some(1), "it sees what it had");
        busy.end().await;
        copying.await.unwrap();
        taking.await.unwrap();
        assert_eq!((machine.read(&space, at(0)).await, machine.read(&other, at(0)).await), (Ok(9), Ok(5)));
    });
}

#[test]
fn a_copy_of_a_page_that_just_leaves_waits_for_the_cpus_that_remember_it() {
    on_two_cpus(|machine| async move {
        for over_an_overlay in [false, true] {
            let object = VmObject::new(machine.memory, machine.pager(), PAGES + 2);
            let shown = if over_an_overlay { VmObject::overlay(object.clone()) } else { object.clone() };
            let space = machine.user_space();
            space.map_private(&shown, page(2), PAGES, RW, placed()).unwrap();
            let old = machine.read(&space, at(0)).await.unwrap();
            let busy = Busy::begin(machine).await;
            assert_eq!(busy.reads(space.root(), at(0)), Some(old));
            let mut leaving = Box::pin(object.evict(page(2)));
            assert!(poll_once(leaving.as_mut()).is_pending());
            assert!(space.walk(address(at(0))).is_none(), "no page table shows it any more");
            let mut writing = Box::pin(machine.write(&space, at(0), 9));
            assert!(poll_once(writing.as_mut()).is_pending(), "the other CPU would still read the old page");
            assert_eq!(busy.reads(space.root(), at(0)), Some(old));
            busy.end().await;
            writing.await.unwrap();
            assert_eq!(machine.read(&space, at(0)).await, Ok(9));
            leaving.await;
        }
    });
}

#[test]
fn a_copy_of_a_page_whose_rights_came_back_waits_for_the_cpus_that_remember_it() {
    on_two_cpus(|machine| async move {
        let (space, _object) = over_a_file(machine);
        let old = machine.read(&space, at(0)).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(space.root(), at(0)), Some(old));
        let all = range(address(BASE), PAGES);
        let nothing = Protection { read: false, write: false, execute: false, user: true };
        let mut taking = Box::pin(space.protect(all.clone(), nothing));
        assert!(poll_once(taking.as_mut()).is_pending());
        let mut giving = Box::pin(space.protect(all, RW));
        assert!(poll_once(giving.as_mut()).is_pending());
        let mut writing = Box::pin(machine.write(&space, at(0), 9));
        assert!(poll_once(writing.as_mut()).is_pending(), "the other CPU would still read the old page");
        assert_eq!(busy.reads(space.root(), at(0)), Some(old));
        busy.end().await;
        writing.await.unwrap();
        taking.await.unwrap();
        giving.await.unwrap();
        assert_eq!(machine.read(&space, at(0)).await, Ok(9));
    });
}

#[test]
fn an_unmapping_right_after_a_fork_gives_nobody_a_page_that_another_cpu_still_writes() {
    on_two_cpus(|machine| async move {
        let parent = anonymous(machine);
        machine.write(&parent, at(0), 1).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(parent.root(), at(0), 2));
        // The fork is dropped before it is settled, and so is its space.
        let mut forking = Box::pin(parent.fork(machine.empty_table()));
        assert!(poll_once(forking.as_mut()).is_pending());
        drop(forking);
        assert!(busy.writes(parent.root(), at(0), 3));
        let mut writing = Box::pin(machine.write(&parent, at(0), 4));
        assert!(poll_once(writing.as_mut()).is_pending());
        busy.end().await;
        writing.await.unwrap();
        assert_eq!(machine.read(&parent, at(0)).await, Ok(4));
    });
}

#[test]
fn the_page_of_a_space_that_ends_is_written_when_no_cpu_remembers_it_that_ran_that_space() {
    on_two_cpus(|machine| async move {
        // With few pages of its own the other side gets what was before; with many, what was before comes to it.
        for own in [1, PAGES - 1] {
            let space = anonymous(machine);
            machine.write(&space, at(0), 1).await.unwrap();
            let other = fork(machine, &space).await;
            for index in 1..=own {
                machine.write(&space, at(index), index).await.unwrap();
            }
            assert_eq!(machine.read(&other, at(0)).await, Ok(1));
            let busy = Busy::begin(machine).await;
            let ended = other.root();
            assert_eq!(busy.reads(ended, at(0)), Some(1));
            drop(other);
            assert_eq!(machine.read(&space, at(0)).await, Ok(1), "it can be read meanwhile");
            let mut writing = Box::pin(machine.write(&space, at(0), 9));
            assert!(poll_once(writing.as_mut()).is_pending(), "{own} pages: a CPU still reads the page");
            assert_eq!(busy.reads(ended, at(0)), Some(1));
            busy.end().await;
            writing.await.unwrap();
            assert_eq!(machine.read(&space, at(0)).await, Ok(9));
        }
    });
}

#[test]
fn a_page_is_taken_when_no_cpu_remembers_it_that_ran_a_space_that_has_ended() {
    on_two_cpus(|machine| async move {
        let space = anonymous(machine);
        machine.write(&space, at(0), 1).await.unwrap();
        let other = fork(machine, &space).await;
        machine.write(&other, at(1), 2).await.unwrap();
        let third = fork(machine, &other).await;
        assert_eq!(machine.read(&third, at(0)).await, Ok(1));
        let busy = Busy::begin(machine).await;
        let ended = third.root();
        assert_eq!(busy.reads(ended, at(0)), Some(1));
        drop(third);
        let mut copying = Box::pin(machine.write(&other, at(0), 5));
        let _ = poll_once(copying.as_mut());
        let mut taking = Box::pin(machine.write(&space, at(0), 9));
        assert!(
            poll_once(taking.as_mut()).is_pending(),
            "all who live have a page of their own, but a CPU reads this one"
        );
        assert_eq!(busy.reads(ended, at(0)), Some(1));
        busy.end().await;
        copying.await.unwrap();
        taking.await.unwrap();
        assert_eq!((machine.read(&space, at(0)).await, machine.read(&other, at(0)).await), (Ok(9), Ok(5)));
    });
}
