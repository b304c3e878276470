//! What happens between a peek and its commit, which from outside is too short to aim at.

use alloc::sync::Arc;
use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use executor::lock::in_trap;

use super::AddressSpace;
use super::pieces::Clearing;
use crate::mapping::Going;
use crate::page_table::LOOKS;
use crate::settle::Attempt;
use crate::window::arena;
use crate::{
    Access, Advice, Fault, PageIndex, PageState, PageTable, PhysAddr, Placement, Protection, VirtAddr,
    VmObject,
};

const BASE: VirtAddr = VirtAddr::truncated(0x40_0000);
const RW: Protection = Protection::READ_WRITE.for_user();

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing to wait for"),
    }
}

/// A space that shows 8 pages of lazy memory at `BASE`, all of them touched.
fn scene() -> (Arc<AddressSpace>, Arc<VmObject>) {
    let memory = arena::memory(100);
    let object = VmObject::zero(memory, 8);
    // Nothing is in the kernel's half of these.
    let table = PageTable::new_user(memory, PhysAddr::new(0)).expect("room for a root");
    let range = VirtAddr::truncated(0x1000)..VirtAddr::truncated(0x7fff_ffff_f000);
    let space = AddressSpace::new(memory, table, range);
    space.map(&object, PageIndex::new(0), 8, RW, Placement::Fixed(BASE)).expect("room");
    (space, object)
}

fn fault(access: Access) -> Fault {
    Fault { address: BASE.as_u64(), access, user: true }
}

#[test]
fn a_mapping_that_went_since_the_peek_is_looked_for_again() {
    let (space, object) = scene();
    let view = space.peek(fault(Access::Write)).expect("it is mapped");
    now(space.unmap(BASE..BASE.page_add(1))).expect("it is mapped");
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Again));
    assert!(space.walk(BASE).is_none(), "the page is not shown where nothing is mapped");
    let mut used = false;
    assert!(matches!(space.touch_and_use(&view, Access::Read, &mut None, |_| used = true), Attempt::Again));
    assert!(!used);
    assert!(matches!(space.attempt(fault(Access::Write), &mut None), Attempt::Denied(_)));
    assert_eq!(object.stats().mappings, 1);
}

#[test]
fn rights_that_went_since_the_peek_are_not_given() {
    let (space, _object) = scene();
    let view = space.peek(fault(Access::Write)).expect("it is writable");
    now(space.protect(BASE..BASE.page_add(8), Protection::READ.for_user())).expect("it is mapped");
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Again));
    assert!(matches!(space.attempt(fault(Access::Read), &mut None), Attempt::Done));
    assert!(space.walk(BASE).is_some_and(|walk| !walk.protection.write));
}

#[test]
fn a_page_that_was_copied_for_rights_that_went_takes_the_place_of_the_old_one() {
    let (space, _object) = scene();
    let zeros = space.map_anonymous(1, RW, Placement::Anywhere).expect("room");
    let fault = |access| Fault { address: zeros.as_u64(), access, user: true };
    assert!(in_trap(|within| space.resolve_at_once(fault(Access::Read), within)));
    let view = space.peek(fault(Access::Write)).expect("it is writable");
    now(space.protect(zeros..zeros.page_add(1), Protection::READ.for_user())).expect("it is mapped");
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Again));
    let shown = space.walk(zeros).expect("it is still shown");
    assert_eq!(Some(shown.address.as_u64() / 4096), space.private_frame(zeros));
    assert!(!shown.protection.write);
    assert!(in_trap(|within| space.resolve_at_once(fault(Access::Read), within)));
}

#[test]
fn a_mapping_that_was_moved_since_the_peek_is_looked_for_again() {
    let (space, object) = scene();
    let view = space.peek(fault(Access::Write)).expect("it is mapped");
    let there = BASE.page_add(100);
    let moved = now(space.remap(BASE..BASE.page_add(8), 8, Placement::Fixed(there)));
    assert_eq!(moved, Ok(there));
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Again));
    assert!(space.walk(BASE).is_none(), "the page is not shown where nothing is mapped");
    assert_eq!(object.stats().mappings, 1);
}

#[test]
fn advice_is_noted_for_its_range_moves_with_it_and_is_forked() {
    let (space, _object) = scene();
    let noted = |space: &AddressSpace| {
        let mappings = space.mappings.lock();
        mappings
            .all()
            .map(|mapping| (mapping.start, mapping.pages, mapping.advice))
            .collect::<std::vec::Vec<_>>()
    };
    now(space.advise(BASE.page_add(2)..BASE.page_add(4), Advice::Sequential)).expect("it is mapped");
    let parts = [
        (BASE, 2, Advice::Normal),
        (BASE.page_add(2), 2, Advice::Sequential),
        (BASE.page_add(4), 4, Advice::Normal),
    ];
    assert_eq!(noted(&space), parts);
    let there = BASE.page_add(100);
    let moved = now(space.remap(BASE.page_add(3)..BASE.page_add(4), 1, Placement::Fixed(there)));
    assert_eq!(moved, Ok(there));
    now(space.advise(BASE..BASE.page_add(1), Advice::DoNotNeed)).expect("it is mapped");
    let after =
        [parts[0], (BASE.page_add(2), 1, Advice::Sequential), parts[2], (there, 1, Advice::Sequential)];
    assert_eq!(noted(&space), after);
    let table = PageTable::new_user(space.memory, PhysAddr::new(0)).expect("room for a root");
    assert_eq!(noted(&now(space.fork(table)).expect("room")), after);
}

#[test]
fn another_mapping_at_the_same_address_is_not_taken_for_the_old_one() {
    let (space, old) = scene();
    let view = space.peek(fault(Access::Write)).expect("it is mapped");
    now(space.unmap(BASE..BASE.page_add(8))).expect("it is mapped");
    let new = VmObject::zero(space.memory, 8);
    space.map(&new, PageIndex::new(4), 4, RW, Placement::Fixed(BASE)).expect("it is free");
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Again));
    assert!(matches!(space.attempt(fault(Access::Write), &mut None), Attempt::Done));
    let shown = space.walk(BASE).expect("it is shown").address;
    let state = new.state(PageIndex::new(4));
    assert!(matches!(state, PageState::Dirty { frame } if frame * 4096 == shown.as_u64()));
    assert_eq!(old.stats().mappings, 0);
}

#[test]
fn a_new_mapping_elsewhere_does_not_disturb_a_fault() {
    let (space, object) = scene();
    let view = space.peek(fault(Access::Write)).expect("it is mapped");
    space.map(&object, PageIndex::new(0), 8, RW, Placement::Anywhere).expect("room");
    assert!(matches!(space.touch_and_commit(&view, Access::Write, &mut None), Attempt::Done));
}

#[test]
fn a_page_that_is_being_unmapped_is_not_found_and_its_range_is_not_free() {
    let (space, object) = scene();
    assert!(matches!(space.attempt(fault(Access::Write), &mut None), Attempt::Done));
    let all = BASE..BASE.page_add(8);
    space.mappings.lock().change_within(&all, |mapping| mapping.going = Some(Going::Marked));
    assert!(space.peek(fault(Access::Read)).is_err());
    let again = space.map(&object, PageIndex::new(0), 1, RW, Placement::Fixed(BASE));
    assert_eq!(again, Err(crate::MapError::Overlap));
    let protected = now(space.protect(BASE..BASE.page_add(1), RW));
    assert_eq!(protected, Err(crate::MapError::NotMapped));
}

#[test]
fn a_table_takes_the_spare_frame_when_there_is_no_other() {
    let (space, _object) = scene();
    let frames = space.memory.frames();
    let mut taken: std::vec::Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    // One frame for the page and one each for the tables of three levels, one at a time.
    for missing in 0..4 {
        assert!(matches!(space.attempt(fault(Access::Write), &mut None), Attempt::NeedsFrame), "{missing}");
        let mut spare = taken.pop();
        let last = space.attempt(fault(Access::Write), &mut spare);
        assert!(spare.is_none());
        assert_eq!(matches!(last, Attempt::Done), missing == 3, "{missing}");
    }
}

/// Uses all 8 pages at `BASE`.
fn touch_all(space: &AddressSpace) {
    for page in 0..8 {
        let fault = Fault { address: BASE.page_add(page).as_u64(), ..fault(Access::Write) };
        assert!(matches!(space.attempt(fault, &mut None), Attempt::Done));
    }
}

/// An unmapping that has marked a range and has yet to clear it.
fn mark(space: &AddressSpace, range: &Range<VirtAddr>) {
    let mut mappings = space.mappings.lock();
    for end in [range.start, range.end] {
        mappings.split(end, space.memory.number_mapping()).expect("there is memory");
    }
    mappings.change_within(range, |mapping| mapping.going = Some(Going::Marked));
}

#[test]
fn an_unmapping_takes_down_what_another_has_marked_and_not_cleared() {
    // All of it, a part of it, one page within it, and more than it.
    for (from, to) in [(3, 5), (0, 4), (4, 5), (0, 8)] {
        let (space, object) = scene();
        touch_all(&space);
        mark(&space, &(BASE.page_add(3)..BASE.page_add(5)));
        now(space.unmap(BASE.page_add(from)..BASE.page_add(to))).expect("a range of the space");
        let gone = |page| (from..to).contains(&page) || (3..5).contains(&page);
        for page in 0..8 {
            assert_eq!(space.walk(BASE.page_add(page)).is_none(), gone(page), "page {page}");
        }
        let left = (0..8).filter(|&page| !gone(page)).count() as u64;
        assert_eq!((space.stats().mapped_pages, space.stats().resident_pages), (left, left));
        assert_eq!(object.stats().mappings, space.stats().mappings);
        let at = Placement::Fixed(BASE.page_add(3));
        assert_eq!(space.map(&object, PageIndex::new(0), 2, RW, at), Ok(BASE.page_add(3)));
    }
}

#[test]
fn whoever_is_late_with_clearing_leaves_what_is_mapped_there_next() {
    let (space, object) = scene();
    touch_all(&space);
    let all = BASE..BASE.page_add(8);
    mark(&space, &all);
    let marked = space.first_going(&all).expect("it is marked");
    now(space.unmap(all)).expect("a range of the space");
    let new = VmObject::zero(space.memory, 8);
    space.map(&new, PageIndex::new(0), 8, RW, Placement::Fixed(BASE)).expect("it is free");
    touch_all(&space);
    let mut late = Clearing::of(&space, marked);
    while late.some() {}
    assert!(late.cleared().is_none());
    assert_eq!(space.stats().resident_pages, 8);
    assert_eq!((object.stats().mappings, new.stats().mappings), (0, 1));
}

#[test]
fn hiding_pages_of_a_mapping_that_was_split_begins_again() {
    let (space, _object) = scene();
    touch_all(&space);
    let all = BASE..BASE.page_add(8);
    let whole = space.mappings.lock().within(&all).next().cloned().expect("one");
    let split = space.mappings.lock().split(BASE.page_add(3), space.memory.number_mapping());
    split.expect("there is memory");
    assert!(!whole.shows.hide_range(&whole, whole.end(), &space.table));
    assert_eq!(space.stats().resident_pages, 8);
    now(space.protect(BASE..BASE.page_add(6), Protection::default())).expect("it is mapped");
    assert_eq!(space.stats().resident_pages, 2);
}

#[test]
fn a_walk_over_pages_that_are_not_there_gives_up_its_locks_again_and_again() {
    const PAGES: u64 = 4 * 512;
    let memory = arena::memory(100);
    let object = VmObject::zero(memory, PAGES);
    let table = PageTable::new_user(memory, PhysAddr::new(0)).expect("room for a root");
    let space = AddressSpace::new(memory, table, BASE..BASE.page_add(PAGES));
    space.map(&object, PageIndex::new(0), PAGES, RW, Placement::Fixed(BASE)).expect("room");
    // All tables are there, and one page in each: the last, without which a table goes.
    let all = BASE..BASE.page_add(PAGES);
    for page in (511..PAGES).step_by(512) {
        let fault = Fault { address: BASE.page_add(page).as_u64(), ..fault(Access::Write) };
        assert!(matches!(space.attempt(fault, &mut None), Attempt::Done));
    }
    let holds = |step: &mut dyn FnMut(&mut Range<VirtAddr>)| {
        let (mut rest, mut holds) = (all.clone(), 0);
        while !rest.is_empty() {
            let before = rest.start.as_u64();
            step(&mut rest);
            assert!(rest.start.as_u64() - before <= LOOKS as u64 * 4096);
            holds += 1;
        }
        holds
    };
    let expected = PAGES / LOOKS as u64;
    assert_eq!(holds(&mut |rest| space.restrict_some(rest, Protection::READ.for_user())), expected);
    assert!(space.walk(BASE.page_add(511)).is_some_and(|walk| !walk.protection.write));
    let mapping = space.mappings.lock().at(BASE).cloned().expect("it is mapped");
    assert_eq!(holds(&mut |rest| assert!(object.hide_some(&mapping, rest, &space.table))), expected);
    assert_eq!((space.stats().resident_pages, space.stats().tables), (0, 0));
}

#[test]
fn a_walk_over_tables_that_are_not_there_gives_up_its_locks_as_well() {
    let memory = arena::memory(100);
    let mut table = PageTable::new_user(memory, PhysAddr::new(0)).expect("room for a root");
    let at = |address| VirtAddr::truncated(address);
    // One page at either end of 1 GiB whose other 510 tables are missing.
    for page in [0x4000_0000, 0x7fff_f000] {
        let frame = memory.frames().try_alloc().expect("room").into_number();
        table.map(at(page), frame, RW, &mut None).expect("room for tables");
    }
    let (mut rest, mut found, mut times) = (at(0x4000_0000)..at(0x8000_0000), 0, 0);
    while !rest.is_empty() {
        let mut looks = LOOKS;
        while table.next_present(&mut rest, &mut looks).is_some() {
            found += 1;
        }
        times += 1;
    }
    assert_eq!((found, times), (2, (512u64 + 510 + 512).div_ceil(LOOKS as u64)));
}

#[test]
fn giving_rights_takes_those_that_another_has_yet_to_take() {
    let (space, _object) = scene();
    touch_all(&space);
    let all = BASE..BASE.page_add(8);
    let read = Protection::READ.for_user();
    // Another protection has changed the mappings and has yet to change the tables.
    assert!(space.mappings.lock().protect(space.memory.frames(), &all, read));
    now(space.protect(all.clone(), read)).expect("it is mapped");
    assert!((0..8).all(|page| !space.walk(BASE.page_add(page)).is_some_and(|walk| walk.protection.write)));
    space.mappings.lock().note_taken(space.memory.frames());
    // And while that other may not have waited, this one does.
    let waits = space.memory.stats().shootdowns;
    now(space.protect(all.clone(), RW)).expect("it is mapped");
    assert_eq!(space.memory.stats().shootdowns, waits + 1);
    now(space.protect(all, Protection { execute: true, ..RW })).expect("it is mapped");
    assert_eq!(space.memory.stats().shootdowns, waits + 1);
}
