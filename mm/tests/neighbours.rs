//! Pages that are there are shown beside the one that is touched.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::poll_once;
use common::tasks::block_on;
use common::{Machine, PAGE, content, page, range, shown};
use executor::host::block_on_cpus;
use mm::{AddressSpace, PageState, Placement, Protection, TestPager, VirtAddr, VmObject};

const PAGES: u64 = 64;

struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    start: VirtAddr,
}

impl Scene {
    /// The pages of an object are there, and nothing shows them. The mapping begins at a multiple of 16 pages.
    fn new() -> Self {
        let machine = Machine::new(1024);
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        let reader = object.clone();
        block_on(async move { reader.read(0, &mut vec![0; (PAGES * PAGE) as usize]).await.unwrap() });
        pager.set_pages_at_once(32);
        let space = machine.window();
        let start = common::address(common::KERNEL_RANGE.start + 64 * PAGE);
        Self { machine, pager, object, space, start }
    }

    fn map(&self, first: u64, pages: u64) {
        let at = Placement::Fixed(common::address(self.start.as_u64() + first * PAGE));
        self.space.map(&self.object, page(first), pages, Protection::READ_WRITE, at).unwrap();
    }

    fn at(&self, index: u64) -> u64 {
        self.start.as_u64() + index * PAGE
    }

    fn read(&self, index: u64) {
        let (machine, space, at) = (self.machine, self.space.clone(), self.at(index));
        assert_eq!(block_on(async move { machine.read(&space, at).await }), Ok(content(index)));
    }

    fn write(&self, index: u64) {
        let (machine, space, at) = (self.machine, self.space.clone(), self.at(index));
        assert_eq!(block_on(async move { machine.write(&space, at, content(index)).await }), Ok(()));
    }

    /// Where there is something, and whether it may be written.
    fn shown(&self) -> Vec<(u64, bool)> {
        let walk = |index| self.space.walk(common::address(self.at(index)));
        (0..PAGES).filter_map(|index| Some((index, walk(index)?.protection.write))).collect()
    }
}

fn read_only(pages: std::ops::Range<u64>) -> Vec<(u64, bool)> {
    pages.map(|index| (index, false)).collect()
}

#[test]
fn the_sixteen_pages_that_the_touched_one_is_among_are_shown_with_one_fault() {
    let scene = Scene::new();
    scene.map(0, PAGES);
    scene.read(21);
    assert_eq!(scene.shown(), read_only(16..32));
    (16..32).for_each(|index| scene.read(index));
    assert_eq!(scene.machine.memory.stats().minor_faults, 1);
}

#[test]
fn pages_beside_the_mapping_are_not_shown() {
    let scene = Scene::new();
    scene.map(18, 5);
    scene.map(24, 2);
    scene.read(21);
    assert_eq!(scene.shown(), read_only(18..23));
}

#[test]
fn a_clean_page_beside_one_that_is_written_is_read_only_and_a_dirty_one_writable() {
    let scene = Scene::new();
    scene.map(0, PAGES);
    let object = scene.object.clone();
    block_on(async move { object.write(5 * PAGE, &content(5).to_le_bytes()).await.unwrap() });
    scene.write(3);
    let mut expected = read_only(0..16);
    (expected[3].1, expected[5].1) = (true, true);
    assert_eq!(scene.shown(), expected);
    let state = |index| scene.object.state(page(index));
    assert!(matches!(state(4), PageState::Loaded { .. }));
    scene.write(4);
    assert!(matches!(state(4), PageState::Dirty { .. }));
}

#[test]
fn a_mapping_for_reading_shows_a_dirty_neighbour_read_only() {
    let scene = Scene::new();
    let object = scene.object.clone();
    block_on(async move { object.write(5 * PAGE, &content(5).to_le_bytes()).await.unwrap() });
    let at = Placement::Fixed(scene.start);
    scene.space.map(&scene.object, page(0), PAGES, Protection::READ, at).unwrap();
    scene.read(3);
    assert_eq!(scene.shown(), read_only(0..16));
}

#[test]
fn a_page_that_is_not_there_is_neither_shown_nor_loaded() {
    let scene = Scene::new();
    scene.map(0, PAGES);
    block_on(scene.object.clone().release_all(7));
    let loads = scene.pager.loads();
    scene.read(3);
    let mut expected = read_only(0..16);
    expected.remove(7);
    assert_eq!(scene.shown(), expected);
    assert_eq!(scene.pager.loads(), loads);
}

/// As a future of its own that borrows nothing.
trait ReleaseAll {
    fn release_all(self, index: u64) -> impl Future<Output = ()> + Send + 'static;
}

impl ReleaseAll for Arc<VmObject> {
    async fn release_all(self, index: u64) {
        self.invalidate(page(index)).await;
    }
}

#[test]
fn a_pager_that_takes_one_page_at_once_has_no_neighbours_shown() {
    let scene = Scene::new();
    scene.pager.set_pages_at_once(1);
    scene.map(0, PAGES);
    scene.read(21);
    assert_eq!(scene.shown(), read_only(21..22));
}

#[test]
fn neighbours_do_not_count_as_used() {
    let scene = Scene::new();
    scene.map(0, PAGES);
    // All were used by being loaded; the first look takes that away.
    let memory = scene.machine.memory;
    assert_eq!(block_on(mm::reclaim(memory, 1)), 1);
    scene.read(21);
    let before = memory.stats().evictions;
    assert_eq!(block_on(mm::reclaim(memory, PAGES as usize - 2)), PAGES as usize - 2);
    assert_eq!(memory.stats().evictions - before, PAGES - 2);
    assert_eq!(scene.shown(), read_only(21..22));
}

#[test]
fn an_unmapping_takes_the_neighbours_as_well() {
    let scene = Scene::new();
    scene.map(0, PAGES);
    scene.read(21);
    let (space, all) = (scene.space.clone(), range(scene.start, PAGES));
    block_on(async move { space.unmap(all).await.unwrap() });
    assert_eq!(scene.shown(), []);
    assert_eq!(scene.space.stats().resident_pages, 0);
}

#[test]
fn a_page_that_leaves_is_not_shown_beside_another() {
    block_on_cpus(2, async {
        let scene = shown::Scene::new(|machine| {
            let pager = machine.pager();
            pager.set_pages_at_once(32);
            VmObject::new(machine.memory, pager, shown::PAGES)
        });
        let scene = scene.await;
        let (machine, space) = (scene.machine, &scene.space);
        assert_eq!(machine.read(space, shown::BASE).await, Ok(content(0)));
        let busy = scene.seen_by_another(content(0)).await;
        let mut evict = pin!(mm::reclaim(machine.memory, 1));
        assert!(poll_once(evict.as_mut()).is_pending());
        assert_eq!(machine.read(space, shown::BASE + PAGE).await, Ok(content(1)));
        assert!(space.walk(common::address(shown::BASE)).is_none());
        busy.end().await;
        assert_eq!(evict.await, 1);
    });
}

#[test]
fn pages_that_may_not_be_read_are_not_shown_along() {
    let scene = Scene::new();
    let write_only = Protection { read: false, write: true, execute: false, user: false };
    let at = Placement::Fixed(scene.start);
    scene.space.map(&scene.object, page(0), PAGES, write_only, at).unwrap();
    scene.write(20);
    assert_eq!(scene.shown(), [(20, true)]);
}
