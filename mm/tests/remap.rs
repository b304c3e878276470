//! Remapping: moving, growing and shrinking what is mapped, or a part of it.

mod common;

use std::sync::Arc;

use common::shown::RW;
use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, USER_RANGE, address, content, page, range};
use mm::{
    AddressSpace, Denial, FaultStats, MapError, PageState, Placement, Protection, TestPager, VirtAddr,
    VmObject,
};

const BASE: u64 = 0x40_0000;
const ELSEWHERE: u64 = 0x4000_0000;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn other(index: u64) -> u64 {
    ELSEWHERE + index * PAGE
}

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    pager: Arc<TestPager>,
    file: Arc<VmObject>,
}

/// A space without mappings, and a file of 16 pages.
fn scene() -> Scene {
    let machine = Machine::new(200);
    let pager = machine.pager();
    let file = VmObject::new(machine.memory, pager.clone(), 16);
    Scene { machine, space: machine.user_space(), pager, file }
}

fn fixed(at: u64) -> Placement {
    Placement::Fixed(address(at))
}

impl Scene {
    fn read(&self, at: u64) -> Result<u64, Denial> {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.read(&space, at).await })
    }

    fn write(&self, at: u64, value: u64) -> Result<(), Denial> {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.write(&space, at, value).await })
    }

    fn remap(&self, from: u64, old: u64, pages: u64, to: Placement) -> Result<VirtAddr, MapError> {
        let space = self.space.clone();
        block_on(async move { space.remap(range(address(from), old), pages, to).await })
    }

    fn protect(&self, at: u64, pages: u64, to: Protection) {
        let space = self.space.clone();
        block_on(async move { space.protect(range(address(at), pages), to).await }).unwrap();
    }

    fn unmap(&self, at: u64, pages: u64) {
        let space = self.space.clone();
        block_on(async move { space.unmap(range(address(at), pages)).await }).unwrap();
    }

    fn stats(&self) -> FaultStats {
        self.machine.memory.stats()
    }

    fn mapped(&self) -> (usize, u64) {
        let stats = self.space.stats();
        (stats.mappings, stats.mapped_pages)
    }
}

#[test]
fn loaded_and_dirty_pages_move_without_being_loaded_or_copied() {
    let scene = scene();
    scene.space.map(&scene.file, page(2), 4, RW, fixed(at(0))).unwrap();
    assert_eq!(scene.read(at(0)), Ok(content(2)));
    assert_eq!(scene.write(at(1), 7), Ok(()));
    let frames = [2, 3].map(|index| scene.file.state(page(index)));
    assert!(matches!(frames, [PageState::Loaded { .. }, PageState::Dirty { .. }]));
    let free = scene.machine.free();
    assert_eq!(scene.remap(at(0), 4, 4, fixed(other(0))), Ok(address(other(0))));
    assert_eq!(scene.mapped(), (1, 4));
    for index in 0..4 {
        assert_eq!(scene.read(at(index)), Err(Denial::NoMapping));
    }
    assert_eq!(scene.read(other(0)), Ok(content(2)));
    assert_eq!(scene.read(other(1)), Ok(7));
    assert_eq!([2, 3].map(|index| scene.file.state(page(index))), frames);
    // One table of level 1 for another.
    assert_eq!((scene.stats().loads_started, scene.machine.free()), (2, free));
    assert_eq!(scene.read(other(3)), Ok(content(5)));
}

#[test]
fn a_change_that_only_the_page_table_knows_of_moves_along() {
    let scene = scene();
    scene.space.map(&scene.file, page(0), 1, RW, fixed(at(0))).unwrap();
    scene.write(at(0), 1).unwrap();
    let file = scene.file.clone();
    block_on(async move { file.store(page(0)..page(1)).await }).unwrap();
    // It is writable and was stored: no fault tells of this write.
    scene.write(at(0), 2).unwrap();
    scene.remap(at(0), 1, 1, fixed(other(0))).unwrap();
    let file = scene.file.clone();
    assert_eq!(block_on(async move { file.mark(page(0)..page(1)).await }), 0, "it was written since");
    let file = scene.file.clone();
    assert_eq!(block_on(async move { file.store_and_mark(page(0)..page(1)).await }), Ok(1));
    assert_eq!(scene.pager.backing(page(0))[0], 2);
}

#[test]
fn private_pages_move_without_being_copied() {
    let scene = scene();
    scene.space.map_anonymous(4, RW, fixed(at(0))).unwrap();
    scene.space.map_private(&scene.file, page(0), 4, RW, fixed(at(4))).unwrap();
    for (index, value) in [(1, 11), (5, 15)] {
        scene.write(at(index), value).unwrap();
    }
    assert_eq!((scene.read(at(0)), scene.read(at(6))), (Ok(0), Ok(content(2))));
    let (free, loads) = (scene.machine.free(), scene.stats().loads_started);
    // Two mappings at once.
    assert_eq!(scene.remap(at(0), 8, 8, fixed(other(0))), Ok(address(other(0))));
    assert_eq!(scene.mapped(), (2, 8));
    for (index, value) in [(0, 0), (1, 11), (5, 15), (6, content(2))] {
        assert_eq!(scene.read(other(index)), Ok(value), "{index}");
    }
    assert_eq!((scene.machine.free(), scene.stats().loads_started), (free, loads));
    // They are still private: written here, and not in the file.
    scene.write(other(6), 16).unwrap();
    assert!(matches!(scene.file.state(page(2)), PageState::Loaded { .. }));
}

#[test]
fn a_part_of_a_mapping_moves_and_the_rest_stays() {
    let scene = scene();
    scene.space.map(&scene.file, page(0), 8, RW, fixed(at(0))).unwrap();
    for index in 0..8 {
        scene.write(at(index), index).unwrap();
    }
    assert_eq!(scene.remap(at(2), 3, 3, fixed(other(0))), Ok(address(other(0))));
    assert_eq!(scene.mapped(), (3, 8));
    for index in 0..8 {
        let moved = (2..5).contains(&index);
        assert_eq!(scene.read(at(index)), if moved { Err(Denial::NoMapping) } else { Ok(index) });
    }
    for index in 0..3 {
        assert_eq!(scene.read(other(index)), Ok(index + 2));
    }
    // The gap is free.
    scene.space.map_anonymous(3, RW, fixed(at(2))).unwrap();
    assert_eq!(scene.read(at(3)), Ok(0));
}

#[test]
fn rights_move_along_and_stay_where_they_were_different() {
    let scene = scene();
    scene.space.map(&scene.file, page(0), 4, RW, fixed(at(0))).unwrap();
    scene.write(at(1), 1).unwrap();
    scene.protect(at(1), 2, Protection::READ.for_user());
    assert_eq!(scene.remap(at(0), 4, 4, fixed(other(0))), Ok(address(other(0))));
    let refused = Err(Denial::Protection(mm::Access::Write));
    for (index, expected) in [Ok(()), refused, refused, Ok(())].into_iter().enumerate() {
        assert_eq!(scene.write(other(index as u64), 9), expected);
    }
    assert_eq!(scene.read(other(1)), Ok(1));
}

#[test]
fn growing_shows_more_of_an_object_where_there_is_room() {
    let scene = scene();
    scene.space.map(&scene.file, page(1), 2, RW, fixed(at(0))).unwrap();
    assert_eq!(scene.remap(at(0), 2, 5, Placement::Anywhere), Ok(address(at(0))));
    assert_eq!(scene.read(at(4)), Ok(content(5)));
    assert_eq!(scene.remap(at(0), 5, 6, fixed(at(0))), Ok(address(at(0))));
    assert_eq!(scene.read(at(5)), Ok(content(6)));
    // Where there is none, it moves.
    scene.write(at(4), 44).unwrap();
    scene.space.map_anonymous(1, RW, fixed(at(7))).unwrap();
    assert_eq!(scene.remap(at(0), 6, 8, fixed(at(0))), Err(MapError::Overlap));
    let found = scene.remap(at(0), 6, 8, Placement::Anywhere).unwrap();
    assert_ne!(found, address(at(0)));
    for (index, value) in [(0, content(1)), (4, 44), (7, content(8))] {
        assert_eq!(scene.read(found.as_u64() + index * PAGE), Ok(value));
    }
    assert_eq!(scene.read(at(0)), Err(Denial::NoMapping));
    // The object ends.
    let before = scene.space.stats();
    let beyond = scene.remap(found.as_u64(), 8, 16, Placement::Anywhere);
    assert_eq!((beyond, scene.space.stats()), (Err(MapError::BeyondObject), before));
}

#[test]
fn growing_private_memory_adds_zeros_or_more_of_the_file() {
    let scene = scene();
    scene.space.map_anonymous(2, RW, fixed(at(0))).unwrap();
    scene.write(at(1), 1).unwrap();
    assert_eq!(scene.remap(at(0), 2, 4, fixed(other(0))), Ok(address(other(0))));
    assert_eq!([0, 1, 2, 3].map(|index| scene.read(other(index))), [Ok(0), Ok(1), Ok(0), Ok(0)]);
    scene.write(other(3), 3).unwrap();
    // Again, with what was added.
    assert_eq!(scene.remap(other(0), 4, 5, fixed(at(0))), Ok(address(at(0))));
    assert_eq!([1, 3, 4].map(|index| scene.read(at(index))), [Ok(1), Ok(3), Ok(0)]);
    scene.space.map_private(&scene.file, page(12), 2, RW, fixed(at(8))).unwrap();
    scene.write(at(9), 9).unwrap();
    assert_eq!(scene.remap(at(8), 2, 4, fixed(at(8))), Ok(address(at(8))));
    let expected = [Ok(content(12)), Ok(9), Ok(content(14)), Ok(content(15))];
    assert_eq!([8, 9, 10, 11].map(|index| scene.read(at(index))), expected);
    scene.write(at(11), 0).unwrap();
    assert!(matches!(scene.file.state(page(15)), PageState::Loaded { .. }), "it is private");
    assert_eq!(scene.remap(at(8), 4, 5, fixed(at(8))), Err(MapError::BeyondObject));
}

#[test]
fn what_was_cut_off_is_not_there_when_it_grows_again() {
    let scene = scene();
    scene.space.map_anonymous(4, RW, fixed(at(0))).unwrap();
    for index in 0..4 {
        scene.write(at(index), index + 1).unwrap();
    }
    let free = scene.machine.free();
    assert_eq!(scene.remap(at(0), 4, 2, Placement::Anywhere), Ok(address(at(0))));
    assert_eq!((scene.mapped(), scene.machine.free()), ((1, 2), free + 2));
    assert_eq!(scene.read(at(2)), Err(Denial::NoMapping));
    assert_eq!(scene.remap(at(0), 2, 4, Placement::Anywhere), Ok(address(at(0))));
    assert_eq!([0, 1, 2, 3].map(|index| scene.read(at(index))), [Ok(1), Ok(2), Ok(0), Ok(0)]);
    // Moved and cut in one.
    assert_eq!(scene.remap(at(0), 4, 1, fixed(other(0))), Ok(address(other(0))));
    assert_eq!((scene.read(other(0)), scene.mapped()), (Ok(1), (1, 1)));
    for lost in [at(0), at(3), other(1)] {
        assert_eq!(scene.read(lost), Err(Denial::NoMapping));
    }
}

#[test]
fn a_fault_at_the_old_place_that_waits_for_a_load_finds_no_mapping() {
    let scene = scene();
    let Scene { machine, ref space, ref pager, .. } = scene;
    pager.hold();
    space.map(&scene.file, page(0), 1, RW, fixed(at(0))).unwrap();
    let mut tasks = Tasks::default();
    let target = space.clone();
    let reader = tasks.spawn(async move { machine.read(&target, at(0)).await });
    tasks.run();
    scene.remap(at(0), 1, 1, fixed(other(0))).unwrap();
    let target = space.clone();
    let second = tasks.spawn(async move { machine.read(&target, other(0)).await });
    tasks.run();
    assert!(!reader.is_done() && !second.is_done());
    pager.release(page(0));
    tasks.run();
    assert_eq!(reader.take(), Some(Err(Denial::NoMapping)));
    assert_eq!(second.take(), Some(Ok(content(0))));
    assert_eq!(scene.stats().loads_started, 1);
}

#[test]
fn what_is_at_the_new_place_is_forked_and_each_side_goes_on_for_itself() {
    let scene = scene();
    let machine = scene.machine;
    scene.space.map_anonymous(2, RW, fixed(at(0))).unwrap();
    scene.write(at(0), 1).unwrap();
    let (original, table) = (scene.space.clone(), machine.empty_table());
    let twin = block_on(async move { original.fork(table).await }).unwrap();
    scene.remap(at(0), 2, 2, fixed(other(0))).unwrap();
    scene.write(other(0), 2).unwrap();
    let (original, table) = (scene.space.clone(), machine.empty_table());
    let second = block_on(async move { original.fork(table).await }).unwrap();
    scene.write(other(0), 3).unwrap();
    for (space, at, value) in [(twin, at(0), 1), (second, other(0), 2), (scene.space.clone(), other(0), 3)] {
        assert_eq!(block_on(async move { machine.read(&space, at).await }), Ok(value));
    }
}

#[test]
fn nothing_is_left_when_all_is_unmapped() {
    let scene = scene();
    let free = scene.machine.free();
    scene.space.map_anonymous(4, RW, fixed(at(0))).unwrap();
    for index in 0..4 {
        scene.write(at(index), 1).unwrap();
    }
    scene.remap(at(1), 2, 6, fixed(other(0))).unwrap();
    scene.write(other(5), 1).unwrap();
    scene.unmap(at(0), 4);
    scene.unmap(other(0), 6);
    assert_eq!((scene.mapped(), scene.machine.free()), ((0, 0), free));
}

#[test]
fn wrong_ranges_are_refused_by_name_and_change_nothing() {
    let scene = scene();
    scene.space.map(&scene.file, page(0), 4, RW, fixed(at(0))).unwrap();
    scene.write(at(1), 1).unwrap();
    scene.space.map_anonymous(1, RW, fixed(at(6))).unwrap();
    let end = USER_RANGE.end;
    for (from, old, pages, to, why) in [
        (at(0), 0, 4, Placement::Anywhere, MapError::Empty),
        (at(0), 4, 0, Placement::Anywhere, MapError::Empty),
        (at(0) + 1, 2, 2, Placement::Anywhere, MapError::Unaligned),
        (at(0), 2, 2, fixed(other(0) + 8), MapError::Unaligned),
        (0, 2, 2, Placement::Anywhere, MapError::OutOfRange),
        (at(0), 2, 2, fixed(0), MapError::OutOfRange),
        (at(0), 2, 2, fixed(end - PAGE), MapError::OutOfRange),
        (at(0), 2, u64::MAX, fixed(other(0)), MapError::WrapsAround),
        (at(0), 2, u64::MAX / PAGE, fixed(at(0)), MapError::WrapsAround),
        (at(0), 2, u64::MAX, Placement::Anywhere, MapError::NoSpace),
        (at(3), 2, 2, Placement::Anywhere, MapError::NotMapped),
        (at(4), 1, 1, Placement::Anywhere, MapError::NotMapped),
        (at(0), 4, 4, fixed(at(2)), MapError::Overlap),
        (at(1), 2, 2, fixed(at(0)), MapError::Overlap),
        (at(0), 4, 4, fixed(at(5)), MapError::Overlap),
        (at(0), 2, 3, fixed(at(0)), MapError::Overlap),
        (at(0), 4, 13 + 4, fixed(other(0)), MapError::BeyondObject),
    ] {
        assert_eq!(scene.remap(from, old, pages, to), Err(why), "{from:#x} {old} {pages} {to:?}");
        assert_eq!((scene.space.stats().mapped_pages, scene.read(at(1))), (5, Ok(1)));
    }
    let space = scene.space.clone();
    let backwards = block_on(async move { space.remap(address(at(2))..address(at(0)), 1, fixed(0)).await });
    assert_eq!(backwards, Err(MapError::WrapsAround));
}
