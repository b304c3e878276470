//! Parts of files that begin and end anywhere in a page, with zeros around them, as the segments of programs need.

mod common;

use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, USER_RANGE, address, page, range};
use mm::{
    Access, AddressSpace, Denial, MapError, PageState, Placement, Protection, TestPager, VirtAddr, VmObject,
};

const BASE: u64 = 0x40_0000;

/// Byte n of the file.
fn byte(n: u64) -> u8 {
    (n % 251) as u8 + 1
}

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    file: Arc<VmObject>,
}

/// A space without mappings, and a file of 8 pages without a zero in it.
fn scene() -> Scene {
    let machine = Machine::new(200);
    let fill = Box::new(|index: mm::PageIndex, bytes: &mut [u8]| {
        for (n, to) in (index.byte_offset()..).zip(bytes) {
            *to = byte(n);
        }
    });
    let pager = TestPager::new(machine.memory, fill);
    Scene { machine, space: machine.user_space(), file: VmObject::new(machine.memory, pager, 8) }
}

impl Scene {
    fn map(&self, offset: u64, file: u64, memory: u64, at: u64) -> Result<VirtAddr, MapError> {
        self.space.map_part(&self.file, offset, file, memory, RW, Placement::Fixed(address(at)))
    }

    /// Checks all bytes of the pages that were mapped.
    fn check(&self, offset: u64, file: u64, memory: u64, at: u64) {
        let start = at / PAGE * PAGE;
        let end = (at + memory).next_multiple_of(PAGE);
        let mut bytes = vec![0; (end - start) as usize];
        let space = self.space.clone();
        let bytes = block_on(async move {
            space.copy_in(start, &mut bytes).await.unwrap();
            assert_eq!(space.copy_in(end, &mut [0]).await, Err(Denial::NoMapping));
            assert_eq!(space.copy_in(start - 1, &mut [0]).await, Err(Denial::NoMapping));
            bytes
        });
        for (address, found) in (start..).zip(bytes) {
            let of_file = (at..at + file).contains(&address);
            let expected = if of_file { byte(offset + (address - at)) } else { 0 };
            assert_eq!(found, expected, "at {address:#x}");
        }
    }

    fn write(&self, at: u64, value: u64) -> Result<(), Denial> {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.write(&space, at, value).await })
    }

    fn read(&self, at: u64) -> Result<u64, Denial> {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.read(&space, at).await })
    }
}

#[test]
fn the_bytes_of_the_file_are_there_and_all_around_them_is_zero() {
    for (offset, file, memory) in [
        (0, PAGE, PAGE),
        (0, 1, 1),
        (PAGE - 1, 1, 1),
        (PAGE - 1, 2, 2),
        (100, 200, 200),
        (100, 200, 3 * PAGE),
        (100, PAGE - 100, PAGE),
        (100, 2 * PAGE, 2 * PAGE),
        (3 * PAGE + 17, 3 * PAGE - 17, 5 * PAGE),
        (PAGE, 3 * PAGE + 1, 3 * PAGE + 1),
        (100, 0, 2 * PAGE),
        (0, 8 * PAGE, 10 * PAGE),
    ] {
        let scene = scene();
        let at = BASE + offset % PAGE;
        assert_eq!(scene.map(offset, file, memory, at), Ok(address(at)), "{offset} {file} {memory}");
        assert_eq!(scene.space.stats().resident_pages, 0, "nothing is loaded");
        scene.check(offset, file, memory, at);
    }
}

#[test]
fn whole_pages_are_shown_and_only_the_ends_are_copied() {
    let scene = scene();
    scene.map(100, 3 * PAGE, 5 * PAGE, BASE + 100).unwrap();
    scene.check(100, 3 * PAGE, 5 * PAGE, BASE + 100);
    let at = |index: u64| address(BASE + index * PAGE);
    for index in 0..2 {
        let space = scene.space.clone();
        let touched = range(at(3 * index), 1);
        block_on(async move { space.touch(touched, Access::Read, None).await }).unwrap();
        let space = scene.space.clone();
        let touched = range(at(1 + index), 1);
        block_on(async move { space.touch(touched, Access::Read, None).await }).unwrap();
    }
    let frame = |index| scene.file.state(page(index)).frame().unwrap() * PAGE;
    let shown = |index| scene.space.walk(at(index)).unwrap().address.as_u64();
    assert_eq!([1, 2].map(shown), [1, 2].map(frame));
    assert_ne!([0, 3].map(shown), [0, 3].map(frame));
    assert!((0..4).all(|index| matches!(scene.file.state(page(index)), PageState::Loaded { .. })));
}

#[test]
fn what_is_written_beside_the_bytes_stays_and_is_private() {
    let scene = scene();
    scene.map(104, PAGE, 2 * PAGE, BASE + 104).unwrap();
    scene.write(BASE, 1).unwrap();
    scene.write(BASE + PAGE + 512, 2).unwrap();
    scene.write(BASE + 2 * PAGE, 3).unwrap();
    let (space, table) = (scene.space.clone(), scene.machine.empty_table());
    let twin = block_on(async move { space.fork(table).await }).unwrap();
    // A copy of a copy is not cut again.
    scene.write(BASE + 8, 4).unwrap();
    let machine = scene.machine;
    for (at, value) in [(BASE, 1), (BASE + 8, 0), (BASE + PAGE + 512, 2), (BASE + 2 * PAGE, 3)] {
        let twin = twin.clone();
        assert_eq!(block_on(async move { machine.read(&twin, at).await }), Ok(value));
        assert_eq!(scene.read(at), Ok(if at == BASE + 8 { 4 } else { value }));
    }
    assert!((0..2).all(|index| matches!(scene.file.state(page(index)), PageState::Loaded { .. })));
}

#[test]
fn parts_of_it_can_be_protected_moved_and_unmapped() {
    let scene = scene();
    scene.map(100, 3 * PAGE, 5 * PAGE, BASE + 100).unwrap();
    let (space, read_only) = (scene.space.clone(), Protection::READ.for_user());
    block_on(async move {
        space.protect(range(address(BASE + PAGE), 1), read_only).await.unwrap();
        space.unmap(range(address(BASE), 1)).await.unwrap();
        let to = Placement::Fixed(address(BASE + 100 * PAGE));
        space.remap(range(address(BASE + PAGE), 5), 5, to).await.unwrap();
    });
    let mut last = [0; 4096];
    let space = scene.space.clone();
    let last = block_on(async move {
        space.copy_in(BASE + 102 * PAGE, &mut last).await.unwrap();
        last
    });
    assert_eq!((last[99], last[100]), (byte(3 * PAGE + 99), 0));
    assert_eq!(scene.write(BASE + 100 * PAGE, 1), Err(Denial::Protection(Access::Write)));
    // What it becomes longer by is zero.
    let space = scene.space.clone();
    let longer = range(address(BASE + 102 * PAGE), 1);
    block_on(async move {
        space.unmap(range(address(BASE + 103 * PAGE), 2)).await.unwrap();
        space.remap(longer, 2, Placement::Anywhere).await.unwrap();
    });
    assert_eq!(scene.read(BASE + 103 * PAGE), Ok(0));
}

#[test]
fn a_found_place_lies_in_its_page_as_the_offset_does() {
    let scene = scene();
    let found = scene.space.map_part(&scene.file, 300, 10, 20, RW, Placement::Anywhere).unwrap();
    assert_eq!(found.page_offset(), 300);
    scene.check(300, 10, 20, found.as_u64());
}

#[test]
fn wrong_parts_are_refused_by_name_and_nothing_is_mapped() {
    let scene = scene();
    for (offset, file, memory, at, why) in [
        (0, 0, 0, BASE, MapError::Empty),
        (0, 2, 1, BASE, MapError::BeyondLimit),
        (8, 1, 1, BASE, MapError::Unaligned),
        (0, 1, 1, BASE + 8, MapError::Unaligned),
        (0, 8 * PAGE + 1, 9 * PAGE, BASE, MapError::BeyondObject),
        (8 * PAGE, 1, 1, BASE, MapError::BeyondObject),
        (u64::MAX - 10, 1, 1, BASE + PAGE - 11, MapError::BeyondObject),
        (8, 1, u64::MAX, BASE + 8, MapError::WrapsAround),
        (8, 1, u64::MAX - 8, BASE + 8, MapError::WrapsAround),
        (8, 1, 1, 8, MapError::OutOfRange),
        (8, 1, PAGE, USER_RANGE.end - PAGE + 8, MapError::OutOfRange),
    ] {
        assert_eq!(scene.map(offset, file, memory, at), Err(why), "{offset} {file} {memory} {at:#x}");
    }
    assert_eq!((scene.space.stats().mappings, scene.file.stats().mappings), (0, 0));
    scene.map(0, PAGE, PAGE, BASE + PAGE).unwrap();
    assert_eq!(scene.map(8, PAGE, PAGE, BASE + 8), Err(MapError::Overlap));
}
