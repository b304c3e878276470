//! Given frames: shown as they are, never paged, shared by forks, and replaced by address.

mod common;

use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{KERNEL_RANGE, Machine, PAGE, address, page, range};
use mm::{
    Access, AddressSpace, Denial, Frame, ManualObject, MapError, OutOfMemory, Placement, Protection,
    VmObject, reclaim,
};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 4;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    object: Arc<ManualObject>,
}

/// Four pages without frames.
fn scene() -> Scene {
    let machine = Machine::new(200);
    let space = machine.user_space();
    let object = ManualObject::try_new(machine.memory, PAGES as usize).unwrap();
    let placed = space.map_manual(&object, page(0), PAGES, RW, Placement::Fixed(address(at(0))));
    assert_eq!(placed, Ok(address(at(0))));
    Scene { machine, space, object }
}

impl Scene {
    /// A frame with this word at its start.
    fn frame(&self, word: u64) -> Frame {
        let mut frame = self.machine.memory.frames().try_alloc_zeroed().unwrap();
        frame.as_bytes_mut()[..8].copy_from_slice(&word.to_le_bytes());
        frame
    }

    fn read(&self, at: u64) -> Result<u64, Denial> {
        read(self.machine, &self.space, at)
    }

    fn write(&self, at: u64, value: u64) -> Result<(), Denial> {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.write(&space, at, value).await })
    }

    /// Replaces the frame of a page, and answers with the word in the one that it had.
    fn remap(&self, at: u64, frame: Option<Frame>) -> Result<Option<u64>, MapError> {
        let space = self.space.clone();
        let old = block_on(async move { space.remap_manual(address(at), frame).await })?;
        Ok(old.map(|frame| u64::from_le_bytes(frame.as_bytes()[..8].try_into().unwrap())))
    }
}

fn read(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64) -> Result<u64, Denial> {
    let space = space.clone();
    block_on(async move { machine.read(&space, at).await })
}

#[test]
fn a_page_without_a_frame_is_denied_by_name() {
    let scene = scene();
    assert_eq!(scene.read(at(0)), Err(Denial::ManualPageMissing));
    assert_eq!(scene.write(at(1), 1), Err(Denial::ManualPageMissing));
    let space = scene.space.clone();
    let copied = block_on(async move { space.copy_in(at(0), &mut [0; 8]).await });
    assert_eq!(copied, Err(Denial::ManualPageMissing));
    assert_eq!(scene.remap(at(0), Some(scene.frame(7))), Ok(None));
    assert_eq!(scene.read(at(0)), Ok(7));
    assert_eq!(scene.read(at(1)), Err(Denial::ManualPageMissing));
    // And again, when it is taken away.
    assert_eq!(scene.remap(at(0), None), Ok(Some(7)));
    assert_eq!(scene.read(at(0)), Err(Denial::ManualPageMissing));
    assert_eq!(scene.space.stats().resident_pages, 0);
}

#[test]
fn what_is_shown_is_the_frame_itself() {
    let scene = scene();
    let frame = scene.frame(7);
    let given = frame.address();
    assert_eq!(scene.remap(at(2), Some(frame)), Ok(None));
    assert_eq!(scene.object.address(page(2)), Some(given));
    assert_eq!(scene.write(at(2), 8), Ok(()));
    assert_eq!(scene.space.walk(address(at(2))).unwrap().address, given);
    let other = scene.frame(9);
    let second = other.address();
    assert_eq!(
        scene.remap(at(2), Some(other)),
        Ok(Some(8)),
        "what was written is in the frame that comes back"
    );
    assert_eq!((scene.read(at(2)), scene.object.address(page(2))), (Ok(9), Some(second)));
}

#[test]
fn a_fork_shows_the_same_frames_and_the_same_replacements() {
    let scene = scene();
    scene.remap(at(0), Some(scene.frame(7))).unwrap();
    scene.write(at(0), 8).unwrap();
    let (space, table) = (scene.space.clone(), scene.machine.empty_table());
    let twin = block_on(async move { space.fork(table).await }).unwrap();
    scene.write(at(0), 9).unwrap();
    assert_eq!(read(scene.machine, &twin, at(0)), Ok(9));
    let (machine, other) = (scene.machine, twin.clone());
    block_on(async move { machine.write(&other, at(0), 10).await }).unwrap();
    assert_eq!(scene.read(at(0)), Ok(10));
    assert_eq!(scene.remap(at(0), Some(scene.frame(11))), Ok(Some(10)));
    assert_eq!((scene.read(at(0)), read(scene.machine, &twin, at(0))), (Ok(11), Ok(11)));
    assert_eq!((twin.stats().manual_pages, twin.stats().mapped_pages), (PAGES, PAGES));
}

#[test]
fn frames_are_freed_when_the_last_who_shows_them_is_gone() {
    let machine = Machine::new(200);
    let free = machine.free();
    let scene = {
        let space = machine.user_space();
        let object = ManualObject::try_new(machine.memory, PAGES as usize).unwrap();
        space.map_manual(&object, page(0), PAGES, RW, Placement::Fixed(address(at(0)))).unwrap();
        Scene { machine, space, object }
    };
    for index in 0..PAGES {
        scene.remap(at(index), Some(scene.frame(index))).unwrap();
        scene.read(at(index)).unwrap();
    }
    let (space, table) = (scene.space.clone(), machine.empty_table());
    let twin = block_on(async move { space.fork(table).await }).unwrap();
    let Scene { space, object, .. } = scene;
    drop((space, object));
    assert_eq!(read(machine, &twin, at(3)), Ok(3));
    let target = twin.clone();
    block_on(async move { target.unmap(range(address(at(0)), PAGES)).await }).unwrap();
    drop(twin);
    block_on(machine.memory.settle());
    assert_eq!(machine.free(), free);
}

#[test]
fn given_frames_are_never_given_back_under_pressure() {
    let scene = scene();
    scene.remap(at(0), Some(scene.frame(7))).unwrap();
    scene.read(at(0)).unwrap();
    let free = scene.machine.free();
    assert_eq!(block_on(reclaim(scene.machine.memory, usize::MAX)), 0);
    assert_eq!((scene.machine.free(), scene.space.stats().resident_pages), (free, 1));
}

#[test]
fn parts_of_it_are_protected_moved_grown_and_unmapped_as_others_are() {
    let scene = scene();
    for index in 0..PAGES {
        scene.remap(at(index), Some(scene.frame(index))).unwrap();
        scene.read(at(index)).unwrap();
    }
    let space = scene.space.clone();
    block_on(async move {
        space.protect(range(address(at(1)), 1), Protection::READ.for_user()).await.unwrap();
        space.remap(range(address(at(1)), 2), 3, Placement::Fixed(address(at(9)))).await.unwrap();
        space.unmap(range(address(at(3)), 1)).await.unwrap();
    });
    assert_eq!(scene.write(at(9), 1), Err(Denial::Protection(Access::Write)));
    assert_eq!([9, 10, 11].map(|index| scene.read(at(index))), [Ok(1), Ok(2), Ok(3)]);
    assert_eq!([1, 3].map(|index| scene.read(at(index))), [Err(Denial::NoMapping); 2]);
    assert_eq!(scene.remap(at(11), Some(scene.frame(33))), Ok(Some(3)));
    assert_eq!((scene.read(at(11)), scene.read(at(0))), (Ok(33), Ok(0)));
    let space = scene.space.clone();
    let beyond =
        block_on(async move { space.remap(range(address(at(11)), 1), 2, Placement::Anywhere).await });
    assert_eq!(beyond, Err(MapError::BeyondObject));
    let mut told = [false; 1];
    scene.space.resident(address(at(11)), &mut told).unwrap();
    scene.remap(at(11), None).unwrap();
    let mut after = [true; 1];
    scene.space.resident(address(at(11)), &mut after).unwrap();
    assert_eq!((told, after), ([true], [false]));
}

#[test]
fn contiguous_memory_is_zero_and_its_physical_address_can_be_asked() {
    let scene = scene();
    let (machine, space) = (scene.machine, scene.space.clone());
    let free = machine.free();
    let object = ManualObject::try_contiguous(machine.memory, 5, 8).unwrap();
    let first = object.first_address().unwrap();
    assert!(first.as_u64().is_multiple_of(8 * PAGE));
    space.map_manual(&object, page(0), 5, RW, Placement::Fixed(address(at(8)))).unwrap();
    for index in 0..5 {
        assert_eq!(scene.read(at(8 + index)), Ok(0));
        assert_eq!(
            space.walk(address(at(8 + index))).unwrap().address.as_u64(),
            first.as_u64() + index * PAGE
        );
        assert_eq!(object.address(page(index)).unwrap().as_u64(), first.as_u64() + index * PAGE);
    }
    assert_eq!(object.address(page(5)), None);
    // With another frame in it, there is no one address any more.
    assert_eq!(scene.remap(at(9), Some(scene.frame(7))), Ok(Some(0)));
    assert_eq!((object.first_address(), scene.object.first_address()), (None, None));
    block_on(async move { space.unmap(range(address(at(8)), 5)).await }).unwrap();
    drop(object);
    block_on(machine.memory.settle());
    assert!(machine.free() >= free);
    let refused = ManualObject::try_contiguous(machine.memory, 100_000, 1);
    assert_eq!(refused.map(drop), Err(OutOfMemory));
}

#[test]
fn wrong_pages_are_refused_by_name_and_the_frame_is_free() {
    let scene = scene();
    let anonymous = VmObject::zero(scene.machine.memory, 1);
    scene.space.map(&anonymous, page(0), 1, RW, Placement::Fixed(address(at(8)))).unwrap();
    let free = scene.machine.free();
    for (at, why) in [
        (at(0) + 1, MapError::Unaligned),
        (0, MapError::OutOfRange),
        (KERNEL_RANGE.start, MapError::OutOfRange),
        (at(4), MapError::NotMapped),
        (at(8), MapError::NotManual),
    ] {
        assert_eq!(scene.remap(at, Some(scene.frame(1))), Err(why), "{at:#x}");
    }
    let (object, frame) = (scene.object.clone(), scene.frame(1));
    let told = block_on(async move { object.replace(page(PAGES), Some(frame)).await });
    assert_eq!(told.map(drop), Err(MapError::BeyondObject));
    assert_eq!(scene.machine.free(), free);
    let map = |first, pages, start| {
        let placed = Placement::Fixed(address(start));
        scene.space.map_manual(&scene.object, page(first), pages, RW, placed)
    };
    assert_eq!(map(0, 0, at(16)), Err(MapError::Empty));
    assert_eq!(map(1, 4, at(16)), Err(MapError::BeyondObject));
    assert_eq!(map(u64::MAX, 1, at(16)), Err(MapError::BeyondObject));
    assert_eq!(map(0, 1, at(16) + 8), Err(MapError::Unaligned));
    assert_eq!(map(0, 2, at(3)), Err(MapError::Overlap));
    assert_eq!(map(0, 1, 0), Err(MapError::OutOfRange));
    assert_eq!(map(0, u64::MAX, at(16)), Err(MapError::WrapsAround));
    assert_eq!(scene.space.stats().manual_pages, PAGES);
}
