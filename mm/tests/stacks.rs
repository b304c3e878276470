//! Stacks: mappings that grow down to a limit when they are touched below their lowest page.

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, USER_RANGE, address, page, range};
use mm::{Access, AddressSpace, Denial, FaultOutcome, MapError, Placement, Protection, VirtAddr, VmObject};

const TOP: u64 = 0x80_0000;
/// Pages that a stack may have.
const LIMIT: u64 = 16;

/// The page of the stack that is so many below its top.
fn down(pages: u64) -> u64 {
    TOP - pages * PAGE
}

fn room() -> Range<VirtAddr> {
    range(address(down(LIMIT)), LIMIT)
}

/// A space with a stack that has one page.
fn scene() -> (&'static Machine, Arc<AddressSpace>) {
    let machine = Machine::new(200);
    let space = machine.user_space();
    assert_eq!(space.set_stack(room(), 1, RW), Ok(()));
    (machine, space)
}

fn write(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64, value: u64) -> Result<(), Denial> {
    let space = space.clone();
    block_on(async move { machine.write(&space, at, value).await })
}

fn read(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64) -> Result<u64, Denial> {
    let space = space.clone();
    block_on(async move { machine.read(&space, at).await })
}

fn mapped(space: &AddressSpace) -> (usize, u64) {
    let stats = space.stats();
    (stats.mappings, stats.mapped_pages)
}

#[test]
fn a_stack_grows_to_the_page_that_is_touched_and_keeps_what_is_in_it() {
    let (machine, space) = scene();
    assert_eq!(write(machine, &space, down(1), 1), Ok(()));
    assert_eq!(mapped(&space), (1, 1));
    assert_eq!(write(machine, &space, down(2) + 8, 2), Ok(()));
    assert_eq!(mapped(&space), (1, 2));
    // Many at once: those between are there, and zero.
    assert_eq!(write(machine, &space, down(7), 7), Ok(()));
    assert_eq!(mapped(&space), (1, 7));
    assert_eq!(space.stats().resident_pages, 3);
    for (pages, value) in [(1, 1), (4, 0), (7, 7)] {
        assert_eq!(read(machine, &space, down(pages)), Ok(value));
    }
    assert_eq!(read(machine, &space, down(2) + 8), Ok(2));
    // To the last page, and by the kernel's copies as well.
    let target = space.clone();
    assert_eq!(block_on(async move { target.copy_out(down(LIMIT), &[9]).await }), Ok(()));
    assert_eq!(mapped(&space), (1, LIMIT));
    assert_eq!(read(machine, &space, down(LIMIT)), Ok(9));
}

#[test]
fn the_page_below_the_limit_is_an_overflow_and_what_is_below_that_is_nothing() {
    let (machine, space) = scene();
    for (at, why) in [
        (down(LIMIT) - 1, Denial::StackOverflow),
        (down(LIMIT + 1), Denial::StackOverflow),
        (down(LIMIT + 1) - 8, Denial::NoMapping),
        (TOP, Denial::NoMapping),
        (0x1000, Denial::NoMapping),
    ] {
        assert_eq!(write(machine, &space, at & !7, 1), Err(why), "{at:#x}");
    }
    assert_eq!(mapped(&space), (1, 1));
}

#[test]
fn an_access_that_a_stack_does_not_allow_does_not_make_it_grow() {
    let (machine, space) = scene();
    let fault = machine.fault(down(3), Access::Execute);
    let target = space.clone();
    let outcome = block_on(async move { target.resolve(fault).await });
    assert_eq!(outcome, FaultOutcome::Denied(Denial::Protection(Access::Execute)));
    assert_eq!(mapped(&space), (1, 1));
}

#[test]
fn a_stack_never_grows_into_another_mapping_and_leaves_a_page_between() {
    let (machine, space) = scene();
    let object = VmObject::zero(machine.memory, 1);
    let beside = Placement::Fixed(address(down(6)));
    assert_eq!(space.map(&object, page(0), 1, RW, beside), Ok(address(down(6))));
    assert_eq!(write(machine, &space, down(4), 4), Ok(()));
    assert_eq!(write(machine, &space, down(5), 5), Err(Denial::StackOverflow));
    assert_eq!(write(machine, &space, down(6), 6), Ok(()));
    assert_eq!(write(machine, &space, down(7), 7), Err(Denial::NoMapping));
    assert_eq!(mapped(&space), (2, 5));
    // When it is gone, there is room again.
    let target = space.clone();
    block_on(async move { target.unmap(range(address(down(6)), 1)).await }).unwrap();
    assert_eq!(write(machine, &space, down(7), 7), Ok(()));
    assert_eq!(read(machine, &space, down(6)), Ok(0));
}

#[test]
fn mappings_that_are_placed_anywhere_stay_out_of_a_stacks_room() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    // The lowest place that would be found lies in the room.
    let room = range(address(USER_RANGE.start + PAGE), LIMIT);
    space.set_stack(room.clone(), 1, RW).unwrap();
    let object = VmObject::zero(machine.memory, 4);
    let found = space.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    assert_eq!(found, address(room.end.as_u64() + PAGE));
    assert_eq!(write(machine, &space, room.start.as_u64(), 1), Ok(()));
}

#[test]
fn a_fork_has_the_stack_and_each_side_grows_for_itself() {
    let (machine, space) = scene();
    write(machine, &space, down(2), 2).unwrap();
    let (original, table) = (space.clone(), machine.empty_table());
    let twin = block_on(async move { original.fork(table).await }).unwrap();
    assert_eq!(write(machine, &twin, down(4), 40), Ok(()));
    assert_eq!((mapped(&space), mapped(&twin)), ((1, 2), (1, 4)));
    assert_eq!(write(machine, &space, down(3), 3), Ok(()));
    assert_eq!(write(machine, &space, down(4), 4), Ok(()));
    for (of, values) in [(&space, [2, 3, 4]), (&twin, [2, 0, 40])] {
        for (pages, value) in (2..).zip(values) {
            assert_eq!(read(machine, of, down(pages)), Ok(value));
        }
    }
}

#[test]
fn the_lowest_part_of_a_stack_is_the_one_that_grows() {
    let (machine, space) = scene();
    write(machine, &space, down(4), 4).unwrap();
    // A page in its middle becomes read-only.
    let target = space.clone();
    let read_only = Protection::READ.for_user();
    block_on(async move { target.protect(range(address(down(2)), 1), read_only).await }).unwrap();
    assert_eq!(write(machine, &space, down(2), 1), Err(Denial::Protection(Access::Write)));
    assert_eq!(write(machine, &space, down(5), 5), Ok(()));
    assert_eq!(mapped(&space), (3, 5));
    // What is left when that is gone stays as large as it is.
    let target = space.clone();
    block_on(async move { target.unmap(range(address(down(5)), 3)).await }).unwrap();
    assert_eq!(write(machine, &space, down(3), 3), Err(Denial::NoMapping));
    assert_eq!(read(machine, &space, down(2)), Ok(0));
}

#[test]
fn wrong_stacks_are_refused_by_name_and_change_nothing() {
    let (_, space) = scene();
    let end = USER_RANGE.end;
    let all = |start, end| address(start)..address(end);
    for (room, pages, why) in [
        (all(0x10_0000, 0x10_0000), 1, MapError::Empty),
        (all(0x10_0000, 0x11_0000), 0, MapError::Empty),
        (all(0x10_0001, 0x11_0000), 1, MapError::Unaligned),
        (all(0x10_0000, 0x11_0008), 1, MapError::Unaligned),
        (all(0x10_0000, 0x11_0000), 17, MapError::BeyondLimit),
        (all(0, 0x11_0000), 1, MapError::OutOfRange),
        (
            all(0x7fff_0000_0000, end + PAGE - 1).start..VirtAddr::truncated(end + PAGE),
            1,
            MapError::OutOfRange,
        ),
        (all(0x11_0000, 0x10_0000), 1, MapError::WrapsAround),
        (all(0xffff_a000_0000_0000, 0xffff_a000_0010_0000), 1, MapError::OutOfRange),
        (all(down(4), TOP + PAGE), 1, MapError::Overlap),
        (all(TOP - PAGE, TOP + PAGE), 1, MapError::Overlap),
    ] {
        assert_eq!(space.set_stack(room.clone(), pages, RW), Err(why), "{room:?}");
    }
    assert_eq!(mapped(&space), (1, 1));
}

#[test]
fn nothing_of_a_stack_that_grew_is_left_when_it_is_unmapped() {
    let machine = Machine::new(200);
    let space = machine.user_space();
    let free = machine.free();
    space.set_stack(room(), 2, RW).unwrap();
    for pages in 1..=LIMIT {
        write(machine, &space, down(pages), pages).unwrap();
    }
    let target = space.clone();
    block_on(async move { target.unmap(room()).await }).unwrap();
    assert_eq!((mapped(&space), machine.free()), ((0, 0), free));
}

#[test]
fn growing_by_a_page_costs_the_same_whatever_the_stack_has() {
    // The fastest of many growths of a stack that has so many pages in memory.
    let fastest = |pages: u64| {
        let machine = Machine::new(9000);
        let space = machine.user_space();
        let top = 0x8000_0000;
        let limit = pages + 64;
        space.set_stack(range(address(top - limit * PAGE), limit), pages, RW).unwrap();
        for page in 1..=pages {
            write(machine, &space, top - page * PAGE, page).unwrap();
        }
        let grow = |more: u64| {
            let begin = Instant::now();
            write(machine, &space, top - (pages + more) * PAGE, more).unwrap();
            begin.elapsed()
        };
        (1..=64).map(grow).min().unwrap()
    };
    let (small, large) = (fastest(1), fastest(8000));
    assert!(large < 10 * small, "{small:?} with one page, {large:?} with 8000");
}
