//! Whole ranges: faulting their pages in, with a deadline, and asking which are in memory.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use common::cpus::poll_once;
use common::shown::RW;
use common::tasks::{Tasks, block_on};
use common::{KERNEL_RANGE, Machine, PAGE, USER_RANGE, address, content, page, range};
use executor::host::block_on_cpus;
use mm::{
    Access, AddressSpace, Denial, MapError, PageError, PageState, Placement, Protection, TestPager,
    TouchError, VirtAddr, VmObject,
};

const BASE: u64 = 0x40_0000;
const READ: Protection = Protection::READ.for_user();

fn at(index: u64) -> VirtAddr {
    address(BASE + index * PAGE)
}

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    pager: Arc<TestPager>,
    file: Arc<VmObject>,
}

/// Eight pages of a file that may be read, and behind them eight private ones over it, and eight anonymous ones.
fn scene() -> Scene {
    let machine = Machine::new(200);
    let (space, pager) = (machine.user_space(), machine.pager());
    let file = VmObject::new(machine.memory, pager.clone(), 16);
    space.map(&file, page(0), 8, READ, Placement::Fixed(at(0))).unwrap();
    space.map_private(&file, page(8), 8, RW, Placement::Fixed(at(8))).unwrap();
    space.map_anonymous(8, RW, Placement::Fixed(at(16))).unwrap();
    Scene { machine, space, pager, file }
}

impl Scene {
    fn touch(&self, first: u64, pages: u64, access: Access) -> Result<(), TouchError> {
        let space = self.space.clone();
        block_on(async move { space.touch(range(at(first), pages), access, None).await })
    }

    fn resident(&self, first: u64, pages: usize) -> Vec<bool> {
        let mut told = vec![false; pages];
        self.space.resident(at(first), &mut told).unwrap();
        told
    }

    fn loads(&self) -> u64 {
        self.machine.memory.stats().loads_started
    }
}

#[test]
fn all_pages_of_a_range_are_there_after_a_touch() {
    let scene = scene();
    assert_eq!(scene.touch(2, 16, Access::Read), Ok(()));
    assert_eq!((scene.loads(), scene.space.stats().resident_pages), (14, 16));
    for index in 2..16 {
        assert_eq!(scene.machine.try_read(scene.space.root(), BASE + index * PAGE), Some(content(index)));
    }
    let faults = scene.machine.memory.stats().minor_faults;
    assert_eq!(scene.touch(8, 10, Access::Write), Ok(()));
    for index in 8..18 {
        assert!(scene.machine.try_write(scene.space.root(), BASE + index * PAGE, 1).is_some());
    }
    let stats = scene.machine.memory.stats();
    assert_eq!((stats.minor_faults - faults, stats.loads_started), (10, 14));
}

#[test]
fn the_first_page_that_cannot_be_had_is_named_and_those_before_it_are_there() {
    let scene = scene();
    scene.pager.fail(Some(page(5)), 1, PageError::Io);
    let why = Denial::Io { page: page(5), error: PageError::Io };
    assert_eq!(scene.touch(0, 8, Access::Read), Err(TouchError::Denied { page: at(5), why }));
    assert_eq!((scene.loads(), scene.space.stats().resident_pages), (6, 5));
    let why = Denial::Protection(Access::Write);
    assert_eq!(scene.touch(0, 8, Access::Write), Err(TouchError::Denied { page: at(0), why }));
    let why = Denial::NoMapping;
    assert_eq!(scene.touch(23, 3, Access::Read), Err(TouchError::Denied { page: at(24), why }));
}

#[test]
fn a_touch_is_a_programs() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    space.map_anonymous(1, Protection::READ_WRITE, Placement::Fixed(at(0))).unwrap();
    let target = space.clone();
    let touched = block_on(async move { target.touch(range(at(0), 1), Access::Read, None).await });
    assert_eq!(touched, Err(TouchError::Denied { page: at(0), why: Denial::UserTouchesKernel }));
}

#[test]
fn a_touch_that_is_dropped_leaves_pages_as_they_are_and_loads_to_themselves() {
    let scene = scene();
    scene.pager.hold();
    let mut tasks = Tasks::default();
    let space = scene.space.clone();
    let touch = tasks.spawn(async move { space.touch(range(at(0), 4), Access::Read, None).await });
    tasks.run();
    scene.pager.release(page(0));
    tasks.run();
    assert_eq!(scene.loads(), 2);
    tasks.kill(&touch);
    scene.pager.release(page(1));
    tasks.run();
    assert_eq!((scene.loads(), scene.resident(0, 4)), (2, vec![true, true, false, false]));
    assert_eq!(scene.space.stats().resident_pages, 1);
}

#[test]
fn a_page_that_does_not_come_until_the_deadline_is_named() {
    let scene = scene();
    block_on_cpus(1, async move {
        let deadline = executor::time::now() + Duration::from_millis(1);
        scene.pager.hold();
        let touched = scene.space.touch(range(at(0), 4), Access::Read, Some(deadline)).await;
        assert_eq!(touched, Err(TouchError::TimeIsOver { page: at(0) }));
        scene.pager.release_all().await;
        scene.pager.hold();
        let touched = scene.space.touch(range(at(0), 4), Access::Read, Some(deadline)).await;
        assert_eq!(touched, Err(TouchError::TimeIsOver { page: at(1) }), "what needs no wait is touched");
        // What was begun goes on.
        scene.pager.release_all().await;
        assert_eq!(scene.resident(0, 3), [true, true, false]);
        let later = executor::time::now() + Duration::from_secs(100);
        assert_eq!(scene.space.touch(range(at(0), 2), Access::Read, Some(later)).await, Ok(()));
    });
}

#[test]
fn others_get_a_turn_while_a_large_range_is_touched() {
    let machine = Machine::new(300);
    let space = machine.user_space();
    space.map_anonymous(200, RW, Placement::Fixed(at(0))).unwrap();
    let mut touch = pin!(space.touch(range(at(0), 200), Access::Write, None));
    assert!(poll_once(touch.as_mut()).is_pending());
    assert_eq!(space.stats().resident_pages, 64);
    let target = space.clone();
    block_on(async move { target.touch(range(at(0), 200), Access::Write, None).await }).unwrap();
    assert_eq!(space.stats().resident_pages, 200);
}

#[test]
fn populated_memory_needs_no_fault_any_more_and_a_file_is_not_written() {
    let scene = scene();
    let space = scene.space.clone();
    block_on(async move { space.populate(range(at(0), 24), None).await }).unwrap();
    let root = scene.space.root();
    for index in 0..24 {
        let at = BASE + index * PAGE;
        assert!(scene.machine.try_read(root, at).is_some());
        assert_eq!(scene.machine.try_write(root, at, 1).is_some(), index >= 8);
    }
    for index in 0..16 {
        assert!(matches!(scene.file.state(page(index)), PageState::Loaded { .. }), "{index}");
    }
    // What may be written by all is only read: the file stays clean.
    scene.space.map(&scene.file, page(0), 8, RW, Placement::Fixed(at(32))).unwrap();
    let space = scene.space.clone();
    block_on(async move { space.populate(range(at(32), 8), None).await }).unwrap();
    assert!(matches!(scene.file.state(page(0)), PageState::Loaded { .. }));
    // Memory without a pager can be written at once.
    let zero = VmObject::zero(scene.machine.memory, 1);
    scene.space.map(&zero, page(0), 1, RW, Placement::Fixed(at(64))).unwrap();
    let space = scene.space.clone();
    block_on(async move { space.populate(range(at(64), 1), None).await }).unwrap();
    assert!(scene.machine.try_write(root, at(64).as_u64(), 1).is_some());
}

#[test]
fn what_could_not_be_populated_stays_mapped() {
    let scene = scene();
    scene.pager.fail(Some(page(3)), 1, PageError::Io);
    let space = scene.space.clone();
    let told = block_on(async move { space.populate(range(at(0), 8), None).await });
    let why = Denial::Io { page: page(3), error: PageError::Io };
    assert_eq!(told, Err(TouchError::Denied { page: at(3), why }));
    assert_eq!((scene.space.stats().mapped_pages, scene.space.stats().resident_pages), (24, 3));
    let space = scene.space.clone();
    assert_eq!(block_on(async move { space.populate(range(at(0), 8), None).await }), Ok(()));
}

#[test]
fn a_page_is_resident_while_it_has_a_frame_of_its_own() {
    let scene = scene();
    assert_eq!(scene.resident(0, 24), [false; 24]);
    scene.touch(1, 2, Access::Read).unwrap();
    scene.touch(9, 1, Access::Read).unwrap();
    scene.touch(10, 1, Access::Write).unwrap();
    scene.touch(16, 1, Access::Read).unwrap();
    scene.touch(17, 1, Access::Write).unwrap();
    let told = |scene: &Scene| {
        let told = scene.resident(0, 24);
        (0..24).filter(|&index| told[index]).collect::<Vec<_>>()
    };
    assert_eq!(told(&scene), [1, 2, 9, 10, 17], "the page of zeros is not its own");
    // Also what is not shown, or only the past has.
    let (original, table) = (scene.space.clone(), scene.machine.empty_table());
    let _twin = block_on(async move { original.fork(table).await }).unwrap();
    let target = scene.space.clone();
    block_on(async move { target.protect(range(at(0), 24), Protection::default().for_user()).await })
        .unwrap();
    assert_eq!((told(&scene), scene.space.stats().resident_pages), (vec![1, 2, 9, 10, 17], 0));
    let file = scene.file.clone();
    block_on(async move { file.release(page(0)..page(16)).await });
    assert_eq!(told(&scene), [10, 17]);
}

#[test]
fn pages_are_counted_by_what_they_show() {
    let scene = scene();
    let counts = |space: &AddressSpace| {
        let stats = space.stats();
        (stats.mapped_pages, stats.shared_pages, stats.private_pages)
    };
    assert_eq!(counts(&scene.space), (24, 8, 16));
    let space = scene.space.clone();
    block_on(async move {
        space.unmap(range(at(6), 4)).await.unwrap();
        space.remap(range(at(16), 8), 10, Placement::Anywhere).await.unwrap();
        space.set_stack(range(at(100), 4), 2, RW).unwrap();
        space.touch(range(at(101), 1), Access::Write, None).await.unwrap();
    });
    assert_eq!(counts(&scene.space), (6 + 6 + 10 + 3, 6, 6 + 10 + 3));
}

#[test]
fn wrong_ranges_are_refused_by_name() {
    let scene = scene();
    let mut none = [];
    let mut two = [false; 2];
    assert_eq!(scene.space.resident(at(0), &mut none), Err(MapError::Empty));
    assert_eq!(scene.space.resident(address(BASE + 1), &mut two), Err(MapError::Unaligned));
    assert_eq!(scene.space.resident(at(23), &mut two), Err(MapError::NotMapped));
    assert_eq!(scene.space.resident(address(USER_RANGE.end - PAGE), &mut two), Err(MapError::OutOfRange));
    assert_eq!(scene.space.resident(address(KERNEL_RANGE.start), &mut two), Err(MapError::OutOfRange));
    let last = VirtAddr::truncated(u64::MAX).page_start();
    assert_eq!(scene.space.resident(last, &mut two), Err(MapError::WrapsAround));
    for (range, why) in [
        (at(0)..at(0), MapError::Empty),
        (at(1)..at(0), MapError::WrapsAround),
        (address(BASE + 8)..at(1), MapError::Unaligned),
        (address(0)..at(1), MapError::OutOfRange),
    ] {
        let space = scene.space.clone();
        let told = block_on(async move { space.touch(range, Access::Read, None).await });
        assert_eq!(told, Err(TouchError::Range(why)));
    }
}

#[test]
fn any_numbers_become_a_range_or_an_error_by_name() {
    let machine = Machine::new(64);
    let space = machine.user_space();
    for (start, bytes, expected) in [
        (BASE, 1, Ok(at(0)..at(1))),
        (BASE, PAGE, Ok(at(0)..at(1))),
        (BASE, PAGE + 1, Ok(at(0)..at(2))),
        (USER_RANGE.start, USER_RANGE.end - USER_RANGE.start, Ok(space.range())),
        (BASE + 1, 1, Err(MapError::Unaligned)),
        (BASE, 0, Err(MapError::Empty)),
        (BASE, u64::MAX, Err(MapError::WrapsAround)),
        (u64::MAX - (PAGE - 1), 1, Err(MapError::WrapsAround)),
        (1 << 47, 1, Err(MapError::NonCanonical)),
        (1 << 63, 1, Err(MapError::NonCanonical)),
        (USER_RANGE.end, 1, Err(MapError::NonCanonical)),
        (0, 1, Err(MapError::OutOfRange)),
        (KERNEL_RANGE.start, 1, Err(MapError::OutOfRange)),
    ] {
        assert_eq!(space.range_of(start, bytes), expected, "{start:#x} {bytes:#x}");
    }
}
