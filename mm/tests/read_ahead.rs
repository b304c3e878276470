//! Pages that are read ahead of those who touch them in order.

mod common;

use std::sync::Arc;

use common::tasks::{Handle, Tasks, block_on};
use common::{Machine, PAGE, content, page, range};
use mm::{
    AddressSpace, Advice, Denial, PageError, PageState, Placement, Protection, ReadAhead, TestPager,
    VirtAddr, VmObject,
};

const PAGES: u64 = 512;

struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    start: VirtAddr,
    tasks: Tasks,
}

impl Scene {
    fn new(frames: usize) -> Self {
        let machine = Machine::new(frames);
        let pager = machine.pager();
        pager.set_pages_at_once(32);
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        let space = machine.window();
        let start = space.map(&object, page(0), PAGES, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        Self { machine, pager, object, space, start, tasks: Tasks::default() }
    }

    fn reader(&mut self, index: u64) -> Handle<Result<u64, Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64() + index * PAGE);
        let handle = self.tasks.spawn(async move { machine.read(&space, at).await });
        self.tasks.run();
        handle
    }

    fn read(&mut self, index: u64) {
        assert_eq!(self.reader(index).take(), Some(Ok(content(index))), "page {index}");
    }

    fn release(&mut self, index: u64) {
        assert!(self.pager.release(page(index)), "page {index} is being loaded");
        self.tasks.run();
    }

    /// Pages 0 and 1 were read, and page 2 is being read ahead.
    fn held() -> (Self, Handle<Result<u64, Denial>>) {
        let mut scene = Self::new(1024);
        scene.read(0);
        scene.pager.hold();
        let reader = scene.reader(1);
        assert_eq!(scene.pager.take_asked(), [(0, 1), (1, 2)]);
        assert_eq!(scene.object.state(page(2)), PageState::Loading);
        (scene, reader)
    }
}

#[test]
fn pages_touched_in_order_are_asked_for_in_turns_that_grow_to_32() {
    let mut scene = Scene::new(1024);
    (0..PAGES).for_each(|index| scene.read(index));
    let asked = scene.pager.take_asked();
    assert_eq!(asked[..7], [(0, 1), (1, 2), (3, 4), (7, 8), (15, 17), (32, 32), (64, 32)]);
    assert!(asked.iter().all(|&(_, pages)| pages <= 32));
    assert_eq!(asked.iter().map(|&(_, pages)| pages as u64).sum::<u64>(), PAGES, "each page once");
    assert_eq!(scene.machine.memory.stats().loads_ahead, PAGES - 5, "five turns were waited for");
}

#[test]
fn a_touch_out_of_order_halves_the_window() {
    let mut scene = Scene::new(1024);
    (0..40).for_each(|index| scene.read(index));
    scene.pager.take_asked();
    scene.read(200);
    scene.read(300);
    scene.read(400);
    assert_eq!(scene.pager.take_asked(), [(200, 16), (300, 8), (400, 4)]);
}

#[test]
fn a_pager_that_takes_one_page_at_once_is_asked_for_what_is_touched_only() {
    let mut scene = Scene::new(1024);
    scene.pager.set_pages_at_once(1);
    (0..100).for_each(|index| scene.read(index));
    assert_eq!(scene.pager.loads(), 100);
    assert_eq!(scene.machine.memory.stats().loads_ahead, 0);
}

#[test]
fn the_next_turn_is_under_way_while_the_last_is_read() {
    let mut scene = Scene::new(1024);
    (0..33).for_each(|index| scene.read(index));
    scene.pager.hold();
    assert!(matches!(scene.object.state(page(64)), PageState::Loaded { .. }), "the one before it has come");
    (33..80).for_each(|index| scene.read(index));
    assert_eq!(scene.object.state(page(96)), PageState::Loading);
    assert_eq!(scene.pager.held(), 32);
}

#[test]
fn a_reader_that_is_faster_than_the_device_has_larger_turns_in_requests_that_the_pager_takes() {
    let mut scene = Scene::new(1024);
    scene.pager.set_pages_at_once(48);
    (0..64).for_each(|index| scene.read(index));
    scene.pager.hold();
    (64..96).for_each(|index| scene.read(index));
    scene.pager.take_asked();
    let reader = scene.reader(96);
    assert_eq!(reader.take(), None, "the device has not read it yet");
    (96..112).for_each(|index| scene.release(index));
    assert_eq!(reader.take(), Some(Ok(content(96))));
    (97..112).for_each(|index| scene.read(index));
    let state = |index| scene.object.state(page(index));
    assert_eq!((state(159), state(191)), (PageState::Loading, PageState::Loading), "two windows");
    assert_eq!(scene.pager.take_asked(), [(128, 48), (176, 16)]);
    assert_eq!(state(192), PageState::Absent);
    assert_eq!(scene.pager.held(), 16 + 32 + 32);
}

#[test]
fn pages_come_in_any_order() {
    let mut scene = Scene::new(1024);
    (0..3).for_each(|index| scene.read(index));
    scene.pager.hold();
    let reader = scene.reader(3);
    for index in [6, 4, 5] {
        scene.release(index);
        assert!(!reader.is_done());
        assert!(matches!(scene.object.state(page(index)), PageState::Loaded { .. }));
    }
    scene.release(3);
    assert_eq!(reader.take(), Some(Ok(content(3))));
}

#[test]
fn what_cannot_be_read_ahead_is_nobodys_error_and_is_loaded_again_when_touched() {
    let (mut scene, reader) = Scene::held();
    scene.pager.fail(Some(page(2)), 1, PageError::Io);
    scene.release(2);
    assert_eq!(scene.object.state(page(2)), PageState::Absent);
    assert_eq!(scene.machine.memory.stats().loads_failed, 0);
    scene.release(1);
    assert_eq!(reader.take(), Some(Ok(content(1))));
    let reader = scene.reader(2);
    scene.release(2);
    assert_eq!(reader.take(), Some(Ok(content(2))));
}

#[test]
fn who_waits_for_a_page_that_cannot_be_read_ahead_loads_it_and_gets_its_own_error() {
    let (mut scene, _first) = Scene::held();
    let reader = scene.reader(2);
    scene.pager.fail(Some(page(2)), 2, PageError::Io);
    scene.release(2);
    assert!(!reader.is_done(), "it loads the page itself");
    scene.release(2);
    assert_eq!(reader.take(), Some(Err(Denial::Io { page: page(2), error: PageError::Io })));
}

#[test]
fn a_page_that_is_invalidated_while_it_is_read_ahead_is_loaded_again() {
    let (mut scene, _first) = Scene::held();
    drop(scene.object.invalidate(page(2)));
    assert_eq!(scene.object.state(page(2)), PageState::LoadingInvalidated);
    let reader = scene.reader(2);
    scene.release(2);
    assert!(!reader.is_done());
    scene.release(2);
    assert_eq!(reader.take(), Some(Ok(content(2))));
}

#[test]
fn an_unmapping_leaves_what_is_read_ahead_to_the_object() {
    let (mut scene, reader) = Scene::held();
    let (space, all) = (scene.space.clone(), range(scene.start, PAGES));
    block_on(async move { space.unmap(all).await.unwrap() });
    scene.release(2);
    scene.release(1);
    assert_eq!(reader.take(), Some(Err(Denial::NoMapping)));
    assert!(matches!(scene.object.state(page(2)), PageState::Loaded { .. }));
    assert_eq!(scene.space.stats().resident_pages, 0);
}

#[test]
fn the_frames_come_back_when_the_object_ends_before_its_pages_have_come() {
    let (mut scene, _reader) = Scene::held();
    let Scene { machine, ref space, .. } = scene;
    let (space, all) = (space.clone(), range(scene.start, PAGES));
    block_on(async move { space.unmap(all).await.unwrap() });
    scene.tasks.run();
    let before = machine.free();
    scene.object = VmObject::zero(machine.memory, 1);
    assert_eq!(machine.free(), before + 1, "page 0");
    scene.release(2);
    scene.release(1);
    assert_eq!(machine.free(), before + 1);
}

#[test]
fn without_frames_to_spare_nothing_is_read_ahead_and_nothing_given_back() {
    let mut scene = Scene::new(512);
    let frames = scene.machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    taken.truncate(taken.len() - frames.stats().high - 5);
    let clean = frames.stats().clean;
    (0..8).for_each(|index| scene.read(index));
    let stats = scene.machine.memory.stats();
    assert_eq!((stats.loads_ahead, stats.evictions, frames.stats().clean), (0, 0, clean + 8));
    drop(taken);
    (8..16).for_each(|index| scene.read(index));
    assert!(scene.machine.memory.stats().loads_ahead > 0);
}

#[test]
fn requests_without_a_frame_end_when_memory_becomes_short() {
    let mut scene = Scene::new(512);
    (0..3).for_each(|index| scene.read(index));
    scene.pager.hold();
    let reader = scene.reader(3);
    assert_eq!(scene.pager.held(), 4);
    let frames = scene.machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    taken.truncate(taken.len() - frames.stats().high);
    for index in 3..7 {
        scene.release(index);
    }
    assert_eq!(reader.take(), Some(Ok(content(3))));
    assert_eq!(scene.object.state(page(4)), PageState::Absent);
    assert_eq!(frames.stats().free, frames.stats().high - 1);
}

#[test]
fn what_was_read_ahead_and_never_touched_is_given_back_first() {
    let mut scene = Scene::new(512);
    (0..4).for_each(|index| scene.read(index));
    // Pages 3 to 6 came together; page 3 was touched.
    let memory = scene.machine.memory;
    assert_eq!(block_on(mm::reclaim(memory, 3)), 3);
    let state = |index| scene.object.state(page(index));
    assert!((0..4).all(|index| matches!(state(index), PageState::Loaded { .. })));
    assert!((4..7).all(|index| state(index) == PageState::Absent));
}

#[test]
fn a_store_of_pages_that_follow_each_other_is_one_request() {
    let mut scene = Scene::new(1024);
    let (machine, space, start) = (scene.machine, scene.space.clone(), scene.start.as_u64());
    let object = scene.object.clone();
    let writer = scene.tasks.spawn(async move {
        for index in [7, 8, 9, 20, 22, 23] {
            machine.write(&space, start + index * PAGE, index).await.unwrap();
        }
        object.store(page(0)..page(PAGES)).await
    });
    scene.pager.take_asked();
    scene.tasks.run();
    assert_eq!(writer.take(), Some(Ok(())));
    let asked = scene.pager.take_asked();
    assert_eq!(asked[asked.len() - 3..], [(7, 3), (20, 1), (22, 2)]);
    assert_eq!(scene.pager.stores(), 6);
}

#[test]
fn advice_says_how_much_is_read_ahead() {
    let mut scene = Scene::new(1024);
    let (space, all) = (scene.space.clone(), range(scene.start, PAGES));
    let advised = all.clone();
    block_on(async move { space.advise(advised, Advice::Random).await.unwrap() });
    (0..20).for_each(|index| scene.read(index));
    assert_eq!(scene.machine.memory.stats().loads_ahead, 0);
    scene.pager.take_asked();
    let space = scene.space.clone();
    block_on(async move { space.advise(all, Advice::Sequential).await.unwrap() });
    scene.read(100);
    assert_eq!(scene.pager.take_asked(), [(100, 32)]);
}

#[test]
fn an_object_of_any_size_is_read_to_its_end() {
    for pages in [1, 2, 31, 47, 48, 49, 50, 63, 64, 65] {
        let machine = Machine::new(1024);
        let pager = machine.pager();
        pager.set_pages_at_once(32);
        let object = VmObject::new(machine.memory, pager.clone(), pages);
        let space = machine.window();
        let start = space.map(&object, page(0), pages, Protection::READ, Placement::Anywhere).unwrap();
        block_on(async move {
            for index in 0..pages {
                assert_eq!(machine.read(&space, start.as_u64() + index * PAGE).await, Ok(content(index)));
            }
        });
        assert_eq!(pager.loads(), pages as usize, "{pages} pages");
    }
}

#[test]
fn a_memory_that_never_reads_ahead_takes_pages_one_by_one_and_shows_them_alone() {
    let mut scene = Scene::new(1024);
    let memory = scene.machine.memory;
    memory.set_read_ahead(ReadAhead::Never);
    (0..40).for_each(|index| scene.read(index));
    assert!(scene.pager.take_asked().iter().all(|&(_, pages)| pages <= 1));
    assert_eq!((memory.stats().loads_ahead, scene.pager.loads()), (0, 40));
    assert_eq!(scene.space.stats().resident_pages, 40);
    memory.set_read_ahead(ReadAhead::WhilePlenty);
    scene.read(40);
    scene.read(41);
    assert!(memory.stats().loads_ahead > 0);
}

#[test]
fn a_memory_may_read_ahead_as_long_as_any_frame_is_free_and_gives_nothing_back_for_it() {
    let mut scene = Scene::new(64);
    let memory = scene.machine.memory;
    scene.read(0);
    let mut taken = Vec::new();
    while scene.machine.free() > 4 {
        taken.extend(memory.frames().try_alloc());
    }
    scene.read(1);
    scene.read(3);
    assert_eq!(memory.stats().loads_ahead, 0, "there are not plenty");
    memory.set_read_ahead(ReadAhead::WhileFree);
    scene.read(4);
    assert_eq!((memory.stats().loads_ahead, scene.machine.free()), (1, 0));
    assert!((0..2).all(|index| matches!(scene.object.state(page(index)), PageState::Loaded { .. })));
}
