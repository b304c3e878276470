//! Advice: loads that are begun, clean pages that are dropped, and bytes that nobody sees changed.

mod common;

use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::overlay::{self, BELOW};
use common::shown::{BASE, RW, Scene};
use common::swap::{self, Swapping};
use common::tasks::block_on;
use common::{Machine, PAGE, USER_RANGE, address, content, page, range};
use executor::host::block_on_cpus;
use mm::{
    AddressSpace, Advice, MapError, PageState, Placement, ReclaimPolicy, SecondChance, SecondUse, TestPager,
    VirtAddr, VmObject,
};

fn at(index: u64) -> VirtAddr {
    address(BASE + index * PAGE)
}

struct File {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
}

/// Eight pages of a file, and behind them eight private ones over it, and eight anonymous ones.
fn file() -> File {
    let machine = Machine::new(200);
    let (space, pager) = (machine.user_space(), machine.pager());
    let object = VmObject::new(machine.memory, pager.clone(), 16);
    space.map(&object, page(0), 8, RW, Placement::Fixed(at(0))).unwrap();
    space.map_private(&object, page(8), 8, RW, Placement::Fixed(at(8))).unwrap();
    space.map_anonymous(8, RW, Placement::Fixed(at(16))).unwrap();
    File { machine, space, pager, object }
}

impl File {
    fn advise(&self, first: u64, pages: u64, advice: Advice) -> Result<(), MapError> {
        let space = self.space.clone();
        block_on(async move { space.advise(range(at(first), pages), advice).await })
    }

    fn write(&self, index: u64, value: u64) {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.write(&space, at(index).as_u64(), value).await }).unwrap();
    }

    fn read(&self, index: u64) -> u64 {
        let (machine, space) = (self.machine, self.space.clone());
        block_on(async move { machine.read(&space, at(index).as_u64()).await }).unwrap()
    }

    fn loads(&self) -> u64 {
        self.machine.memory.stats().loads_started
    }
}

#[test]
fn what_will_be_needed_is_loaded_and_nobody_waits_for_it() {
    let file = file();
    file.pager.hold();
    assert_eq!(file.advise(6, 12, Advice::WillNeed), Ok(()));
    assert_eq!(file.loads(), 10);
    assert!((6..16).all(|index| file.object.state(page(index)) == PageState::Loading));
    assert_eq!((file.object.state(page(5)), file.space.stats().resident_pages), (PageState::Absent, 0));
    let pager = file.pager.clone();
    block_on(async move { pager.release_all().await });
    assert_eq!([file.read(6), file.read(15)], [content(6), content(15)]);
    assert_eq!(file.loads(), 10);
    // Nothing is made that has no pager.
    let free = file.machine.free();
    file.advise(16, 8, Advice::WillNeed).unwrap();
    let zero = VmObject::zero(file.machine.memory, 4);
    file.space.map(&zero, page(0), 4, RW, Placement::Fixed(at(64))).unwrap();
    file.advise(64, 4, Advice::WillNeed).unwrap();
    assert_eq!((zero.stats().resident, file.machine.free()), (0, free));
}

#[test]
fn what_will_be_needed_takes_no_frame_that_others_need_and_is_begun_as_far_as_that_goes() {
    let machine = Machine::new(200);
    let (space, pager) = (machine.user_space(), machine.pager());
    let object = VmObject::new(machine.memory, pager.clone(), 4096);
    space.map(&object, page(0), 4096, RW, Placement::Fixed(at(0))).unwrap();
    pager.hold();
    let advised = space.clone();
    block_on(async move { advised.advise(range(at(0), 4096), Advice::WillNeed).await }).unwrap();
    let begun = machine.memory.stats().loads_started;
    assert!((32..=256).contains(&begun), "{begun} are under way");
    let (freed, others) = (pager.clone(), machine.memory.frames().stats().high);
    block_on(async move { freed.release_all().await });
    assert!(machine.free() + 1 >= others, "{} of {others} are left for who needs them", machine.free());
    assert!(object.stats().resident > 0 && object.stats().transfers == 0);
    // With none to spare, nothing is begun.
    let mut taken = Vec::new();
    while machine.free() > 2 {
        taken.extend(machine.memory.frames().try_alloc());
    }
    let before = machine.memory.stats().loads_started;
    block_on(async move { space.advise(range(at(2048), 64), Advice::WillNeed).await }).unwrap();
    assert_eq!(machine.memory.stats().loads_started, before);
}

#[test]
fn what_will_be_needed_is_asked_for_in_ranges() {
    let file = file();
    file.pager.set_pages_at_once(4);
    file.read(2);
    file.pager.take_asked();
    assert_eq!(file.advise(1, 14, Advice::WillNeed), Ok(()));
    assert_eq!(file.pager.take_asked(), [(1, 1), (3, 2), (5, 4), (9, 4), (13, 2)]);
}

#[test]
fn advice_is_taken_for_private_memory_over_an_object_as_well() {
    let file = file();
    file.pager.set_pages_at_once(8);
    assert_eq!(file.advise(8, 8, Advice::Sequential), Ok(()));
    file.read(8);
    assert_eq!(file.pager.take_asked(), [(8, 8)], "all at once");
    assert_eq!(file.advise(8, 8, Advice::DoNotNeed), Ok(()));
    assert_eq!(file.advise(8, 8, Advice::Random), Ok(()));
    (8..16).for_each(|index| assert_eq!(file.read(index), content(index)));
    assert!(file.pager.take_asked().iter().all(|&(_, pages)| pages == 1), "one by one");
}

#[test]
fn what_an_overlay_shows_of_its_base_is_loaded_known_and_dropped() {
    block_on_cpus(2, async {
        let scene = overlay::Scene::new().await;
        let all = || range(at(0), 4);
        let resident = || {
            let mut told = [false; 4];
            scene.space.resident(at(0), &mut told).unwrap();
            told
        };
        scene.write(BASE, 7).await;
        assert_eq!(resident(), [true, false, false, false]);
        scene.space.advise(all(), Advice::WillNeed).await.unwrap();
        assert_eq!((resident(), scene.pager.loads()), ([true; 4], 4));
        assert!(scene.overlay.evict(page(1)).await, "the base's page");
        assert!(!scene.overlay.evict(page(0)).await, "nobody else has it");
        assert_eq!(resident(), [true, false, true, true]);
        scene.space.advise(all(), Advice::DoNotNeed).await.unwrap();
        assert_eq!(resident(), [true, false, false, false]);
        assert!(scene.base.state(page(0)).frame().is_some(), "the overlay does not show it");
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(content(0))));
        assert_eq!(scene.read(BASE + PAGE).await, Ok(content(1)));
    });
}

#[test]
fn clean_pages_that_are_not_needed_go_and_changed_and_private_ones_stay() {
    let file = file();
    for index in 0..16 {
        file.read(index);
    }
    file.write(1, 11);
    file.write(9, 19);
    file.write(17, 27);
    let evicted = file.machine.memory.stats().evictions;
    assert_eq!(file.advise(1, 22, Advice::DoNotNeed), Ok(()));
    let present = |index| file.object.state(page(index)).frame().is_some();
    assert_eq!(
        (0..16).filter(|&index| present(index)).collect::<Vec<_>>(),
        [0, 1, 9],
        "9 is under a private page"
    );
    assert_eq!(file.machine.memory.stats().evictions - evicted, 13);
    assert_eq!(file.loads(), 16);
    for (index, value) in [(0, content(0)), (1, 11), (2, content(2)), (9, 19), (10, content(10)), (17, 27)] {
        assert_eq!(file.read(index), value);
    }
    assert_eq!(file.loads(), 18);
}

#[test]
fn other_advice_splits_what_it_is_for_and_changes_nothing_else() {
    let file = file();
    file.write(3, 1);
    for advice in [Advice::Sequential, Advice::Random, Advice::Normal] {
        assert_eq!(file.advise(2, 3, advice), Ok(()));
        assert_eq!((file.space.stats().mappings, file.read(3)), (5, 1));
    }
    assert_eq!(file.loads(), 1);
}

#[test]
fn wrong_ranges_are_refused_by_name() {
    let file = file();
    for advice in [Advice::Normal, Advice::WillNeed, Advice::DoNotNeed] {
        assert_eq!(file.advise(0, 0, advice), Err(MapError::Empty));
        assert_eq!(file.advise(23, 2, advice), Err(MapError::NotMapped));
        for (range, why) in [
            (at(1)..at(0), MapError::WrapsAround),
            (address(BASE + 1)..at(1), MapError::Unaligned),
            (address(USER_RANGE.start - PAGE)..at(1), MapError::OutOfRange),
        ] {
            let space = file.space.clone();
            assert_eq!(block_on(async move { space.advise(range, advice).await }), Err(why));
        }
    }
    assert_eq!((file.loads(), file.space.stats().mappings), (0, 3));
}

#[test]
fn a_page_that_a_cpu_remembers_keeps_its_frame_until_that_has_forgotten_it() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let space = scene.space.clone();
        let busy = scene.seen_by_another(content(0)).await;
        let all = scene.all();
        let mut advise = Box::pin(async move { space.advise(all, Advice::DoNotNeed).await });
        assert!(poll_once(advise.as_mut()).is_pending());
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(content(0)), "it uses what it remembers");
        drop(taken);
        busy.end().await;
        advise.await.unwrap();
        assert_eq!(scene.object.state(page(0)), PageState::Absent);
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(scene.space.root(), BASE), None);
        busy.end().await;
    });
}

#[test]
fn a_page_that_is_touched_on_its_way_out_stays() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let busy = scene.seen_by_another(content(0)).await;
        let (space, all) = (scene.space.clone(), scene.all());
        let mut advise = Box::pin(async move { space.advise(all, Advice::DoNotNeed).await });
        assert!(poll_once(advise.as_mut()).is_pending());
        scene.machine.write(&scene.space, BASE, 5).await.unwrap();
        busy.end().await;
        advise.await.unwrap();
        assert!(matches!(scene.object.state(page(0)), PageState::Dirty { .. }));
        assert_eq!(scene.machine.read(&scene.space, BASE).await, Ok(5));
    });
}

#[test]
fn cold_pages_go_before_others_though_they_were_used_last_and_keep_what_is_in_them() {
    for policy in [&SecondChance as &'static dyn ReclaimPolicy, &SecondUse] {
        let file = file();
        file.machine.memory.set_policy(policy);
        let reclaim = |pages| {
            let memory = file.machine.memory;
            block_on(async move { mm::reclaim(memory, pages).await })
        };
        (0..8).for_each(|index| assert_eq!(file.read(index), content(index)));
        // All of them have had their first look.
        assert_eq!(reclaim(0), 0);
        [5, 6].into_iter().for_each(|index| assert_eq!(file.read(index), content(index)));
        let loads = file.loads();
        assert_eq!(file.advise(5, 2, Advice::Cold), Ok(()));
        assert_eq!((0..8).filter(|&index| file.object.state(page(index)) == PageState::Absent).count(), 0);
        file.machine.forget_translations();
        assert_eq!(reclaim(2), 2, "{}", policy.name());
        let gone = |&index: &u64| file.object.state(page(index)) == PageState::Absent;
        assert_eq!((0..8).filter(gone).collect::<Vec<_>>(), [5, 6], "{}", policy.name());
        assert_eq!((file.read(5), file.loads()), (content(5), loads + 1));
    }
}

#[test]
fn a_cold_page_that_is_used_again_stays() {
    let file = file();
    (0..8).for_each(|index| assert_eq!(file.read(index), content(index)));
    assert_eq!(file.advise(0, 8, Advice::Cold), Ok(()));
    file.machine.forget_translations();
    [1, 2].into_iter().for_each(|index| assert_eq!(file.read(index), content(index)));
    let memory = file.machine.memory;
    assert_eq!(block_on(async move { mm::reclaim(memory, 6).await }), 6);
    let stays = |&index: &u64| file.object.state(page(index)) != PageState::Absent;
    assert_eq!((0..8).filter(stays).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn cold_private_pages_are_the_first_that_leave_for_swap() {
    // As many as leave together.
    const COLD: std::ops::Range<u64> = 20..52;
    let mut scene = Swapping::without_reclaim(200, 100);
    let space = scene.space(80);
    (0..80).for_each(|page| assert_eq!(scene.write(&space, page, page + 1), Ok(())));
    let cold = space.clone();
    block_on(async move {
        let pages = range(address(swap::BASE + COLD.start * PAGE), COLD.end - COLD.start);
        cold.advise(pages, Advice::Cold).await.unwrap();
    });
    assert_eq!(scene.swap_out(32), 32);
    for page in 0..80 {
        let is_shown = space.walk(address(swap::BASE + page * PAGE)).is_some();
        assert_eq!(is_shown, !COLD.contains(&page), "{page}");
    }
    (0..80).for_each(|page| assert_eq!(scene.read(&space, page), Ok(page + 1)));
}
