//! What a one-pass scan of a file costs those who use some pages all the time, under each policy.

mod common;

use std::sync::Arc;

use common::{Machine, PAGE, content, page};
use executor::host;
use mm::{
    AddressSpace, Age, Ages, Marks, PageKind, PageState, Placement, Protection, ReclaimPolicy, SecondChance,
    SecondUse, VirtAddr, VmObject, reclaimer,
};

/// Frames for pages.
const MEMORY: u64 = 400;
/// A quarter of them.
const HOT: u64 = MEMORY / 4;
/// Four times as much as them.
const SCANNED: u64 = 4 * MEMORY;
/// Pages that are touched before the processor has forgotten the first.
const REMEMBERED: u64 = 50;

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    touched: u64,
}

impl Scene {
    fn new(policy: &'static dyn ReclaimPolicy) -> Self {
        let machine = Machine::with_table_frames(MEMORY as usize, 64);
        machine.memory.frames().set_marks(Marks { reserve: 4, low: 8, high: 24 });
        machine.memory.set_policy(policy);
        Self { machine, space: machine.window(), touched: 0 }
    }

    fn file(&self, pages: u64) -> (Arc<VmObject>, VirtAddr) {
        let object = VmObject::new(self.machine.memory, self.machine.pager(), pages);
        let start = self.space.map(&object, page(0), pages, Protection::READ, Placement::Anywhere).unwrap();
        (object, start)
    }

    async fn touch(&mut self, start: VirtAddr, index: u64) {
        let read = self.machine.read(&self.space, start.as_u64() + index * PAGE).await;
        assert_eq!(read, Ok(content(index)));
        self.touched += 1;
        if self.touched.is_multiple_of(REMEMBERED) {
            self.machine.forget_translations();
        }
        executor::yield_now().await;
    }
}

/// How many pages of a hundred that were in use are gone after a scan.
fn lost_by_a_scan(policy: &'static dyn ReclaimPolicy) -> usize {
    let mut scene = Scene::new(policy);
    let (hot, hot_at) = scene.file(HOT);
    let (_others, others_at) = scene.file(SCANNED);
    let (_scanned, scanned_at) = scene.file(SCANNED);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(scene.machine.memory));
        // While others read as much, each hot page is used once in a hundred steps.
        for index in 0..SCANNED {
            scene.touch(others_at, index).await;
            scene.touch(hot_at, index % HOT).await;
        }
        assert_eq!(hot.stats().resident, HOT, "what is used all the time stays");
        for index in 0..SCANNED {
            scene.touch(scanned_at, index).await;
        }
        background.abort();
    });
    (0..HOT).filter(|&index| hot.state(page(index)) == PageState::Absent).count()
}

#[test]
fn a_scan_of_four_times_the_memory_costs_a_working_set_at_most_5_percent() {
    let lost = lost_by_a_scan(&SecondUse);
    assert!(lost * 100 <= 5 * HOT as usize, "{lost} of {HOT} pages are gone");
}

#[test]
fn by_second_chance_a_scan_drives_out_what_others_use() {
    let lost = lost_by_a_scan(&SecondChance);
    assert!(lost * 100 > 50 * HOT as usize, "{lost} of {HOT} pages are gone");
}

#[test]
fn a_working_set_that_nobody_uses_any_more_makes_room_for_another() {
    let mut scene = Scene::new(&SecondUse);
    // Each is more than half of memory.
    let (first, first_at) = scene.file(250);
    let (second, second_at) = scene.file(250);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(scene.machine.memory));
        for at in [first_at, second_at] {
            for _ in 0..20 {
                for index in 0..250 {
                    scene.touch(at, index).await;
                }
            }
        }
        background.abort();
    });
    let (first, second) = (first.stats().resident, second.stats().resident);
    assert!(second == 250 && first < 150, "{first} pages of the first set are there, {second} of the second");
}

#[test]
fn a_policy_that_keeps_everything_ends_in_a_refusal() {
    struct Keeper;
    impl ReclaimPolicy for Keeper {
        fn name(&self) -> &'static str {
            "keeper"
        }
        fn judge(&self, page: mm::Observation) -> mm::Verdict {
            assert_eq!(page.kind, PageKind::Clean);
            mm::Verdict::Keep(Age::Young)
        }
    }
    let scene = Scene::new(&Keeper);
    let (_file, at) = scene.file(SCANNED);
    assert_eq!(scene.machine.memory.policy().name(), "keeper");
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(scene.machine.memory));
        let mut refused = None;
        for index in 0..SCANNED {
            if let Err(why) = scene.machine.read(&scene.space, at.as_u64() + index * PAGE).await {
                refused = Some((index, why));
                break;
            }
        }
        background.abort();
        let (index, why) = refused.expect("there is not so much memory");
        assert_eq!(why, mm::Denial::OutOfMemory);
        // All was filled but the reserve and half of what is above it, and each page is young.
        assert!(index >= MEMORY - 6, "{index} pages were read");
        let ages = scene.machine.memory.frames().ages(PageKind::Clean);
        assert_eq!(ages, Ages { new: 0, old: 0, young: index as usize });
    });
}
