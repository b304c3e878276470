//! One load for many waiters, and whatever may happen meanwhile.

mod common;

use std::sync::Arc;

use common::tasks::{Handle, Tasks};
use common::{Machine, PAGE, content, page, range};
use mm::{AddressSpace, Denial, PageError, PageState, Placement, Protection, TestPager, VirtAddr, VmObject};

struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    start: VirtAddr,
    tasks: Tasks,
}

const PAGES: u64 = 64;

/// A machine with 64 pages of a held-back pager mapped.
fn scene() -> Scene {
    let machine = Machine::new(1024);
    let pager = machine.pager();
    pager.hold();
    let object = VmObject::new(machine.memory, pager.clone(), PAGES);
    let space = machine.window();
    let start = space.map(&object, page(0), PAGES, Protection::READ_WRITE, Placement::Anywhere).unwrap();
    Scene { machine, pager, object, space, start, tasks: Tasks::default() }
}

impl Scene {
    fn reader(&mut self, index: u64) -> Handle<Result<u64, Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64() + index * PAGE);
        self.tasks.spawn(async move { machine.read(&space, at).await })
    }

    fn writer(&mut self, index: u64, value: u64) -> Handle<Result<(), Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64() + index * PAGE);
        self.tasks.spawn(async move { machine.write(&space, at, value).await })
    }
}

fn io(index: u64, error: PageError) -> Denial {
    Denial::Io { page: page(index), error }
}

#[test]
fn sixty_four_threads_on_one_page_make_one_load() {
    let mut scene = scene();
    let readers: Vec<_> = (0..64).map(|_| scene.reader(7)).collect();
    scene.tasks.run();
    assert_eq!((scene.pager.loads(), scene.pager.held()), (1, 1));
    assert!(readers.iter().all(|reader| !reader.is_done()));
    assert!(scene.pager.release(page(7)));
    scene.tasks.run();
    assert!(readers.iter().all(|reader| reader.take() == Some(Ok(content(7)))));
    assert_eq!(scene.pager.loads(), 1);
    assert_eq!(scene.machine.memory.stats().loads_shared, 63);
}

#[test]
fn sixty_four_threads_on_sixty_four_pages_are_all_in_flight_together() {
    let mut scene = scene();
    let readers: Vec<_> = (0..64).map(|index| scene.reader(index)).collect();
    scene.tasks.run();
    assert_eq!(scene.pager.held(), 64);
    for index in (0..64).rev() {
        scene.pager.release(page(index));
        scene.tasks.run();
        assert_eq!(readers[index as usize].take(), Some(Ok(content(index))));
    }
}

#[test]
fn a_parked_load_holds_no_frame() {
    let mut scene = scene();
    let before = scene.machine.free();
    let readers: Vec<_> = (0..64).map(|index| scene.reader(index)).collect();
    scene.tasks.run();
    assert_eq!(scene.machine.free(), before);
    assert!(readers.iter().all(|reader| !reader.is_done()));
}

#[test]
fn an_error_reaches_every_waiter_and_the_next_touch_tries_again() {
    let mut scene = scene();
    scene.pager.fail(Some(page(3)), 1, PageError::Io);
    let readers: Vec<_> = (0..5).map(|_| scene.reader(3)).collect();
    scene.tasks.run();
    scene.pager.release(page(3));
    scene.tasks.run();
    for reader in readers {
        assert_eq!(reader.take(), Some(Err(io(3, PageError::Io))));
    }
    assert_eq!(scene.object.state(page(3)), PageState::Failed);
    let again = scene.reader(3);
    scene.tasks.run();
    assert_eq!(scene.object.state(page(3)), PageState::Loading);
    scene.pager.release(page(3));
    scene.tasks.run();
    assert_eq!(again.take(), Some(Ok(content(3))));
    assert_eq!(scene.pager.loads(), 2);
}

#[test]
fn a_request_that_is_dropped_is_an_error_for_its_waiters() {
    struct Forgetful;
    impl mm::Pager for Forgetful {
        fn name(&self) -> &str {
            "forgetful"
        }
        fn load(&self, request: mm::PageRequest) {
            drop(request);
        }
    }
    let machine = Machine::new(1024);
    let object = VmObject::new(machine.memory, Arc::new(Forgetful), 1);
    let mut byte = [0];
    let result = common::tasks::block_on(async move { object.read(0, &mut byte).await });
    assert_eq!(result, Err(PageError::Abandoned));
}

#[test]
fn a_waiter_that_is_killed_harms_nobody_and_the_load_goes_on() {
    let mut scene = scene();
    let first = scene.reader(9);
    let second = scene.reader(9);
    scene.tasks.run();
    scene.tasks.kill(&first);
    scene.pager.release(page(9));
    scene.tasks.run();
    assert_eq!(second.take(), Some(Ok(content(9))));
}

#[test]
fn a_load_whose_waiters_are_all_killed_completes_and_leaks_no_frame() {
    let mut scene = scene();
    let before = scene.machine.free();
    let readers: Vec<_> = (0..3).map(|_| scene.reader(9)).collect();
    scene.tasks.run();
    for reader in &readers {
        scene.tasks.kill(reader);
    }
    scene.pager.release(page(9));
    assert!(matches!(scene.object.state(page(9)), PageState::Loaded { .. }));
    assert_eq!(scene.machine.free(), before - 1);
    drop(scene.object.release(page(0)..page(PAGES)));
    assert_eq!(scene.machine.free(), before);
}

#[test]
fn an_invalidated_load_is_loaded_again_for_those_who_wait() {
    let mut scene = scene();
    let reader = scene.reader(5);
    scene.tasks.run();
    drop(scene.object.invalidate(page(5)));
    assert_eq!(scene.object.state(page(5)), PageState::LoadingInvalidated);
    scene.pager.release(page(5));
    scene.tasks.run();
    assert!(!reader.is_done());
    assert_eq!(scene.object.state(page(5)), PageState::Loading);
    assert_eq!(scene.pager.loads(), 2);
    scene.pager.release(page(5));
    scene.tasks.run();
    assert_eq!(reader.take(), Some(Ok(content(5))));
    assert_eq!(scene.machine.memory.stats().loads_invalidated, 1);
}

#[test]
fn an_invalidated_load_without_waiters_leaves_nothing() {
    let mut scene = scene();
    let before = scene.machine.free();
    let reader = scene.reader(5);
    scene.tasks.run();
    scene.tasks.kill(&reader);
    drop(scene.object.release(page(0)..page(PAGES)));
    scene.pager.release(page(5));
    scene.tasks.run();
    assert_eq!(scene.object.state(page(5)), PageState::Absent);
    assert_eq!((scene.pager.loads(), scene.machine.free()), (1, before));
}

#[test]
fn a_touch_of_an_invalidated_load_waits_for_its_end_and_then_loads() {
    let mut scene = scene();
    let first = scene.reader(5);
    scene.tasks.run();
    drop(scene.object.invalidate(page(5)));
    let second = scene.reader(5);
    scene.tasks.run();
    assert_eq!(scene.pager.loads(), 1);
    scene.pager.release(page(5));
    scene.tasks.run();
    scene.pager.release(page(5));
    scene.tasks.run();
    assert_eq!((first.take(), second.take()), (Some(Ok(content(5))), Some(Ok(content(5)))));
    assert_eq!(scene.pager.loads(), 2);
}

#[test]
fn a_page_that_is_unmapped_while_it_loads_is_a_denied_fault_and_a_loaded_page() {
    let mut scene = scene();
    let reader = scene.reader(5);
    scene.tasks.run();
    let (space, all) = (scene.space.clone(), range(scene.start, PAGES));
    let unmap = scene.tasks.spawn(async move { space.unmap(all).await });
    scene.tasks.run();
    assert_eq!(unmap.take(), Some(Ok(())));
    assert!(!reader.is_done());
    scene.pager.release(page(5));
    scene.tasks.run();
    assert_eq!(reader.take(), Some(Err(Denial::NoMapping)));
    assert!(matches!(scene.object.state(page(5)), PageState::Loaded { .. }));
    let tables = scene.space.stats().tables;
    assert_eq!(scene.space.stats(), mm::SpaceStats { tables, ..Default::default() });
}

#[test]
fn a_load_whose_object_is_gone_frees_its_frame() {
    let mut scene = scene();
    let reader = scene.reader(5);
    scene.tasks.run();
    let before = scene.machine.free();
    let (space, all) = (scene.space.clone(), range(scene.start, PAGES));
    let unmap = scene.tasks.spawn(async move { space.unmap(all).await });
    scene.tasks.run();
    assert!(unmap.is_done());
    let gone = Arc::downgrade(&scene.object);
    let Scene { machine, pager, object, mut tasks, .. } = scene;
    drop(object);
    assert!(gone.upgrade().is_none());
    assert!(pager.release(page(5)));
    tasks.run();
    assert_eq!(reader.take(), Some(Err(Denial::NoMapping)));
    assert_eq!(machine.free(), before);
}

#[test]
fn a_write_to_a_loading_page_waits_and_makes_it_dirty() {
    let mut scene = scene();
    let reader = scene.reader(2);
    let writer = scene.writer(2, 42);
    scene.tasks.run();
    scene.pager.release(page(2));
    scene.tasks.run();
    assert_eq!((reader.take(), writer.take()), (Some(Ok(content(2))), Some(Ok(()))));
    assert!(matches!(scene.object.state(page(2)), PageState::Dirty { .. }));
    let reader = scene.reader(2);
    scene.tasks.run();
    assert_eq!(reader.take(), Some(Ok(42)));
}

#[test]
fn success_without_a_frame_is_an_error() {
    struct Empty;
    impl mm::Pager for Empty {
        fn name(&self) -> &str {
            "empty"
        }
        fn load(&self, request: mm::PageRequest) {
            request.complete(Ok(()));
        }
    }
    let machine = Machine::new(1024);
    let object = VmObject::new(machine.memory, Arc::new(Empty), 1);
    let mut byte = [0];
    let result = common::tasks::block_on(async move { object.read(0, &mut byte).await });
    assert_eq!(result, Err(PageError::Abandoned));
}
