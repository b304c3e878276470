//! Faults and mappings: what is allowed, what is denied and why, and what unmapping and protecting leave.

mod common;

use std::sync::Arc;

use common::tasks::{Tasks, block_on};
use common::{KERNEL_RANGE, Machine, PAGE, USER_RANGE, address, content, page, range};
use mm::{
    Access, AddressSpace, Denial, Fault, FaultOutcome, MapError, PageState, Placement, Protection, VirtAddr,
    VmObject,
};

const RW: Protection = Protection::READ_WRITE;

fn read(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64) -> Result<u64, Denial> {
    let space = space.clone();
    block_on(async move { machine.read(&space, at).await })
}

fn write(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64, value: u64) -> Result<(), Denial> {
    let space = space.clone();
    block_on(async move { machine.write(&space, at, value).await })
}

fn execute(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64) -> Result<(), Denial> {
    let space = space.clone();
    block_on(async move { machine.execute(&space, at).await })
}

fn unmap(space: &Arc<AddressSpace>, start: VirtAddr, pages: u64) -> Result<(), MapError> {
    let space = space.clone();
    block_on(async move { space.unmap(range(start, pages)).await })
}

fn protect(space: &Arc<AddressSpace>, start: VirtAddr, pages: u64, to: Protection) -> Result<(), MapError> {
    let space = space.clone();
    block_on(async move { space.protect(range(start, pages), to).await })
}

fn at(start: VirtAddr, page: u64) -> u64 {
    start.as_u64() + page * PAGE
}

#[test]
fn lazy_memory_is_zero_and_keeps_what_is_written() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 1 << 30);
    let start = space.map(&object, page(0), 1 << 30, RW, Placement::Anywhere).unwrap();
    let before = machine.free();
    for sparse in [0, 77, (1 << 30) - 1] {
        assert_eq!(read(machine, &space, at(start, sparse)), Ok(0));
        assert_eq!(write(machine, &space, at(start, sparse) + 8, sparse + 1), Ok(()));
        assert_eq!(read(machine, &space, at(start, sparse) + 8), Ok(sparse + 1));
    }
    assert_eq!(space.stats().resident_pages, 3);
    assert_eq!(machine.memory.stats().zero_fills, 3);
    // Three pages, and tables at levels 1 to 3 for two distant places; one of level 3 exists from the start.
    assert!(before - machine.free() <= 3 + 5);
    drop(object.release(page(0)..page(1 << 30)));
    assert_eq!(read(machine, &space, at(start, 77) + 8), Ok(0));
}

#[test]
fn an_address_where_nothing_is_mapped_is_denied() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 4);
    let start = space.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    for outside in [at(start, 4), start.as_u64() - 8, KERNEL_RANGE.end, 0x8000_0000_0000_0000] {
        assert_eq!(read(machine, &space, outside), Err(Denial::NoMapping), "{outside:#x}");
    }
    assert_eq!(machine.memory.stats().denied, 4);
}

#[test]
fn what_the_protection_does_not_allow_is_denied_with_the_access() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 4);
    let start = space.map(&object, page(0), 4, Protection::READ, Placement::Anywhere).unwrap();
    assert_eq!(read(machine, &space, at(start, 0)), Ok(0));
    assert_eq!(write(machine, &space, at(start, 0), 1), Err(Denial::Protection(Access::Write)));
    assert_eq!(execute(machine, &space, at(start, 0)), Err(Denial::Protection(Access::Execute)));
    let code = space.map(&object, page(0), 4, Protection::READ_EXECUTE, Placement::Anywhere).unwrap();
    assert_eq!(execute(machine, &space, at(code, 0)), Ok(()));
    assert_eq!(write(machine, &space, at(code, 0), 1), Err(Denial::Protection(Access::Write)));
}

#[test]
fn a_user_program_reaches_neither_the_upper_half_nor_what_is_not_for_it() {
    let machine = Machine::new(256);
    let window = machine.window();
    let object = VmObject::zero(machine.memory, 4);
    let kernels = window.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    assert_eq!(write(machine, &window, at(kernels, 0), 5), Ok(()));
    let space = machine.user_space();
    let fault = Fault { address: at(kernels, 0), access: Access::Read, user: true };
    let outcome = block_on({
        let space = space.clone();
        async move { space.resolve(fault).await }
    });
    assert_eq!(outcome, FaultOutcome::Denied(Denial::UserTouchesKernel));
    let private = space.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    assert_eq!(read(machine, &space, at(private, 0)), Err(Denial::UserTouchesKernel));
    let users = space.map(&object, page(0), 4, RW.for_user(), Placement::Anywhere).unwrap();
    assert_eq!(read(machine, &space, at(users, 0)), Ok(5));
}

#[test]
fn a_clean_page_is_shown_read_only_until_it_is_written() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::new(machine.memory, machine.pager(), 4);
    let start = space.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    assert_eq!(read(machine, &space, at(start, 1)), Ok(content(1)));
    assert!(!space.walk(address(at(start, 1))).unwrap().protection.write);
    assert!(matches!(object.state(page(1)), PageState::Loaded { .. }));
    assert_eq!(write(machine, &space, at(start, 1), 9), Ok(()));
    assert!(space.walk(address(at(start, 1))).unwrap().protection.write);
    assert!(matches!(object.state(page(1)), PageState::Dirty { .. }));
    // A dirty page is writable at once wherever it is shown.
    let second = space.map(&object, page(0), 4, RW, Placement::Anywhere).unwrap();
    assert_eq!(read(machine, &space, at(second, 1)), Ok(9));
    assert!(space.walk(address(at(second, 1))).unwrap().protection.write);
}

#[test]
fn a_fault_that_is_resolved_already_is_a_success() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 1);
    let start = space.map(&object, page(0), 1, RW, Placement::Anywhere).unwrap();
    for _ in 0..3 {
        let (space, fault) = (space.clone(), machine.fault(at(start, 0), Access::Write));
        assert_eq!(block_on(async move { space.resolve(fault).await }), FaultOutcome::Resolved);
    }
    assert_eq!(space.stats().resident_pages, 1);
    assert_eq!(machine.memory.stats().zero_fills, 1);
}

#[test]
fn many_spaces_show_one_object() {
    let machine = Machine::new(256);
    let object = VmObject::zero(machine.memory, 8);
    let spaces: Vec<_> = (0..3).map(|_| machine.user_space()).collect();
    let fixed = Placement::Fixed(address(0x40_0000));
    for space in &spaces {
        assert_eq!(space.map(&object, page(2), 4, RW.for_user(), fixed), Ok(address(0x40_0000)));
    }
    assert_eq!(write(machine, &spaces[0], 0x40_0000, 77), Ok(()));
    for space in &spaces {
        assert_eq!(read(machine, space, 0x40_0000), Ok(77));
    }
    drop(object.release(page(0)..page(8)));
    for space in &spaces {
        assert_eq!(space.stats().resident_pages, 0);
        assert_eq!(read(machine, space, 0x40_0000), Ok(0));
    }
}

#[test]
fn nothing_is_left_of_a_space_that_ends() {
    let machine = Machine::new(256);
    let before = machine.free();
    let object = VmObject::zero(machine.memory, 8);
    let space = machine.user_space();
    for start in [0x40_0000, 0x7000_0000_0000] {
        space.map(&object, page(0), 8, RW.for_user(), Placement::Fixed(address(start))).unwrap();
        assert_eq!(write(machine, &space, start + 5 * PAGE, 1), Ok(()));
    }
    assert_eq!(object.stats().mappings, 2);
    drop(space);
    assert_eq!(object.stats().mappings, 0);
    drop(object);
    assert_eq!(machine.free(), before);
}

#[test]
fn unmapping_a_part_leaves_the_rest() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::new(machine.memory, machine.pager(), 16);
    let start = space.map(&object, page(4), 10, RW, Placement::Anywhere).unwrap();
    for index in 0..10 {
        assert_eq!(read(machine, &space, at(start, index)), Ok(content(4 + index)));
    }
    assert_eq!(unmap(&space, address(at(start, 3)), 4), Ok(()));
    for index in 0..10 {
        let expected = if (3..7).contains(&index) { Err(Denial::NoMapping) } else { Ok(content(4 + index)) };
        assert_eq!(read(machine, &space, at(start, index)), expected, "page {index}");
    }
    let stats = space.stats();
    assert_eq!((stats.mappings, stats.mapped_pages, stats.resident_pages), (2, 6, 6));
    // The object knows where its pages are still shown.
    drop(object.release(page(0)..page(16)));
    assert_eq!(space.stats().resident_pages, 0);
    assert_eq!(unmap(&space, start, 10), Ok(()));
    assert_eq!((space.stats().mappings, object.stats().mappings), (0, 0));
}

#[test]
fn unmapping_across_mappings_and_holes_takes_all_of_them() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 4);
    let base = address(KERNEL_RANGE.start + 64 * PAGE);
    for index in [0, 8, 16] {
        let there = Placement::Fixed(address(at(base, index)));
        space.map(&object, page(0), 4, RW, there).unwrap();
        assert_eq!(write(machine, &space, at(base, index + 2), index), Ok(()));
    }
    assert_eq!(unmap(&space, address(at(base, 1)), 17), Ok(()));
    let stats = space.stats();
    assert_eq!((stats.mappings, stats.mapped_pages), (2, 3));
    assert_eq!(unmap(&space, base, 64), Ok(()));
    assert_eq!(unmap(&space, base, 64), Ok(()));
    let tables = space.stats().tables;
    assert_eq!(space.stats(), mm::SpaceStats { tables, ..Default::default() });
}

#[test]
fn protecting_takes_rights_at_once_and_gives_them_at_the_next_fault() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 8);
    let start = space.map(&object, page(0), 8, RW, Placement::Anywhere).unwrap();
    for index in 0..8 {
        assert_eq!(write(machine, &space, at(start, index), index), Ok(()));
    }
    assert_eq!(protect(&space, address(at(start, 2)), 3, Protection::READ), Ok(()));
    for index in 0..8 {
        let denied = (2..5).contains(&index);
        let expected = if denied { Err(Denial::Protection(Access::Write)) } else { Ok(()) };
        assert_eq!(write(machine, &space, at(start, index), index), expected, "page {index}");
        assert_eq!(read(machine, &space, at(start, index)), Ok(index));
    }
    assert_eq!(space.stats().mappings, 3);
    assert_eq!(protect(&space, start, 8, Protection::default()), Ok(()));
    assert_eq!(read(machine, &space, at(start, 6)), Err(Denial::Protection(Access::Read)));
    assert_eq!(protect(&space, start, 8, RW), Ok(()));
    for index in 0..8 {
        assert_eq!(read(machine, &space, at(start, index)), Ok(index));
        assert_eq!(write(machine, &space, at(start, index), 0), Ok(()));
    }
    assert_eq!(protect(&space, start, 9, RW), Err(MapError::NotMapped));
}

#[test]
fn protecting_while_a_write_waits_denies_it() {
    let machine = Machine::new(256);
    let space = machine.window();
    let pager = machine.pager();
    pager.hold();
    let object = VmObject::new(machine.memory, pager.clone(), 1);
    let start = space.map(&object, page(0), 1, RW, Placement::Anywhere).unwrap();
    let mut tasks = Tasks::default();
    let writer = tasks.spawn({
        let space = space.clone();
        async move { machine.write(&space, start.as_u64(), 1).await }
    });
    tasks.run();
    assert_eq!(protect(&space, start, 1, Protection::READ), Ok(()));
    pager.release(page(0));
    tasks.run();
    assert_eq!(writer.take(), Some(Err(Denial::Protection(Access::Write))));
    assert!(matches!(object.state(page(0)), PageState::Loaded { .. }));
}

#[test]
fn wrong_ranges_are_refused_by_name() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 8);
    let map = |first, pages, start: u64| {
        space.map(&object, page(first), pages, RW, Placement::Fixed(address(start)))
    };
    let base = KERNEL_RANGE.start;
    assert_eq!(map(0, 0, base), Err(MapError::Empty));
    assert_eq!(map(0, 1, base + 1), Err(MapError::Unaligned));
    assert_eq!(map(0, 1, base - PAGE), Err(MapError::OutOfRange));
    assert_eq!(map(0, 2, KERNEL_RANGE.end - PAGE), Err(MapError::OutOfRange));
    assert_eq!(map(0, u64::MAX, base), Err(MapError::WrapsAround));
    assert_eq!(map(0, 9, base), Err(MapError::BeyondObject));
    assert_eq!(map(u64::MAX, 2, base), Err(MapError::BeyondObject));
    assert_eq!(space.stats().mappings, 0);
    assert_eq!(map(0, 4, base + 4 * PAGE), Ok(address(base + 4 * PAGE)));
    for (start, pages) in [(3, 2), (7, 1), (4, 4), (0, 8), (5, 1)] {
        assert_eq!(map(0, pages, base + start * PAGE), Err(MapError::Overlap), "{start} {pages}");
    }
    assert_eq!(map(0, 4, base), Ok(address(base)));
    assert_eq!(map(0, 1, KERNEL_RANGE.end - PAGE), Ok(address(KERNEL_RANGE.end - PAGE)));
    let huge = VmObject::zero(machine.memory, 1 << 51);
    let nowhere = space.map(&huge, page(0), 1 << 40, RW, Placement::Anywhere);
    assert_eq!(nowhere, Err(MapError::NoSpace));
    let outside = address(KERNEL_RANGE.start - PAGE)..address(KERNEL_RANGE.end);
    let unmapped = block_on({
        let space = space.clone();
        async move { space.unmap(outside).await }
    });
    assert_eq!(unmapped, Err(MapError::OutOfRange));
    assert_eq!(unmap(&space, address(base), 0), Err(MapError::Empty));
    assert!(VirtAddr::new(USER_RANGE.end + PAGE).is_none());
}

#[test]
fn around_a_mapping_put_anywhere_nothing_is_mapped() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 64);
    let mut taken = Vec::new();
    for pages in [1, 5, 2, 64, 1, 1] {
        let start = space.map(&object, page(0), pages, RW, Placement::Anywhere).unwrap();
        taken.push((start, pages));
    }
    let (freed, _) = taken.remove(1);
    assert_eq!(unmap(&space, freed, 5), Ok(()));
    taken.push((space.map(&object, page(0), 5, RW, Placement::Anywhere).unwrap(), 5));
    assert_eq!(taken.last(), Some(&(freed, 5)), "a gap is used again");
    for &(start, pages) in &taken {
        for near in [start.as_u64() - 8, at(start, pages)] {
            assert_eq!(read(machine, &space, near), Err(Denial::NoMapping));
        }
    }
}

#[test]
fn a_gap_without_room_for_unmapped_neighbours_is_not_used() {
    let machine = Machine::new(256);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 8);
    let base = KERNEL_RANGE.start;
    for fixed in [5, 12] {
        let there = Placement::Fixed(address(base + fixed * PAGE));
        space.map(&object, page(0), 1, RW, there).unwrap();
    }
    // Pages 0..5 and 6..12 are free.
    for (pages, expected) in [(4, 7), (4, 14)] {
        let start = space.map(&object, page(0), pages, RW, Placement::Anywhere);
        assert_eq!(start, Ok(address(base + expected * PAGE)), "{pages} pages");
    }
}

#[test]
fn copies_fault_pages_in_and_are_checked_like_faults() {
    let machine = Machine::new(256);
    let space = machine.user_space();
    let object = VmObject::new(machine.memory, machine.pager(), 4);
    let start = 0x40_0000;
    space.map(&object, page(0), 2, RW.for_user(), Placement::Fixed(address(start))).unwrap();
    let third = Placement::Fixed(address(start + 2 * PAGE));
    space.map(&object, page(2), 1, Protection::READ.for_user(), third).unwrap();
    let out = |to: u64, bytes: Vec<u8>| {
        let space = space.clone();
        block_on(async move { space.copy_out(to, &bytes).await })
    };
    let into = |from: u64, length: usize| {
        let space = space.clone();
        block_on(async move {
            let mut bytes = vec![0; length];
            space.copy_in(from, &mut bytes).await.map(|()| bytes)
        })
    };
    assert_eq!(out(start + PAGE - 3, b"faults".to_vec()), Ok(()));
    assert_eq!(into(start + PAGE - 3, 6), Ok(b"faults".to_vec()));
    assert_eq!(into(start + 2 * PAGE, 8), Ok(content(2).to_le_bytes().to_vec()));
    assert_eq!(out(start + 2 * PAGE - 1, vec![1, 2]), Err(Denial::Protection(Access::Write)));
    assert_eq!(into(start + 3 * PAGE - 1, 2), Err(Denial::NoMapping));
    assert_eq!(into(0x8000_0000_0000, 1), Err(Denial::NoMapping));
    assert_eq!(into(KERNEL_RANGE.start, 1), Err(Denial::UserTouchesKernel));
    assert_eq!(into(u64::MAX, 2), Err(Denial::UserTouchesKernel));
    assert_eq!(into(u64::MAX, 0), Ok(vec![]));
}

#[test]
fn an_object_is_read_and_written_without_a_mapping() {
    let machine = Machine::new(256);
    let object = VmObject::new(machine.memory, machine.pager(), 2);
    let shared = object.clone();
    let bytes = block_on(async move {
        shared.write(PAGE - 2, &[1, 2, 3, 4]).await.unwrap();
        let mut bytes = [0; 16];
        shared.read(PAGE - 8, &mut bytes).await.unwrap();
        assert_eq!(shared.read(2 * PAGE - 1, &mut [0; 2]).await, Err(mm::PageError::OutOfRange));
        assert_eq!(shared.read(u64::MAX, &mut [0; 2]).await, Err(mm::PageError::OutOfRange));
        bytes
    });
    let mut expected = [content(0).to_le_bytes(), content(1).to_le_bytes()].concat();
    expected[6..10].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(bytes.to_vec(), expected);
}

#[test]
fn the_future_of_a_fault_is_small() {
    let machine = Machine::new(256);
    let space = machine.window();
    let future = space.resolve(machine.fault(0, Access::Read));
    assert!(size_of_val(&future) <= 160, "{} bytes", size_of_val(&future));
}
