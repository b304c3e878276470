//! Memory that is out, of which several spaces have something: the largest gives way, and only it.

mod common;

use std::sync::{Arc, Mutex};

use common::cpus::Busy;
use common::{Machine, PAGE, address};
use executor::{host, spawn, yield_now};
use mm::{Access, AddressSpace, Denial, FaultOutcome, Marks, Placement, Protection, Victims, reclaimer};

const BASE: u64 = 0x40_0000;
const RW: Protection = Protection::READ_WRITE.for_user();
const MARKS: Marks = Marks { reserve: 4, low: 10, high: 20 };

/// Spaces as a kernel knows them, by the threads that run in them.
#[derive(Default)]
struct Spaces {
    all: Mutex<Vec<Arc<AddressSpace>>>,
    ended: Mutex<Vec<(Arc<AddressSpace>, u64)>>,
}

impl Victims for Spaces {
    fn each_space(&self, told: &mut dyn FnMut(&Arc<AddressSpace>)) {
        // As often as there are threads.
        for _ in 0..2 {
            self.all.lock().unwrap().iter().for_each(&mut *told);
        }
    }

    fn end(&self, space: &Arc<AddressSpace>, pages: u64) {
        self.all.lock().unwrap().retain(|other| !Arc::ptr_eq(space, other));
        self.ended.lock().unwrap().push((space.clone(), pages));
    }
}

struct Scene {
    machine: &'static Machine,
    spaces: &'static Spaces,
}

impl Scene {
    fn new(frames: usize) -> Self {
        let machine = Machine::with_table_frames(frames, 64);
        let spaces: &'static Spaces = Box::leak(Box::default());
        machine.memory.frames().set_marks(MARKS);
        machine.memory.set_victims(spaces);
        Self { machine, spaces }
    }

    /// A space with so many pages of zeros, none of which is there.
    fn space(&self, pages: u64) -> Arc<AddressSpace> {
        let space = self.machine.user_space();
        space.map_anonymous(pages, RW, Placement::Fixed(address(BASE))).unwrap();
        self.spaces.all.lock().unwrap().push(space.clone());
        space
    }

    /// Writes pages of a space, each with its number and a word of the writer's. Ends with the first that is denied.
    async fn write(
        &self,
        space: &Arc<AddressSpace>,
        pages: core::ops::Range<u64>,
        word: u64,
    ) -> Result<(), Denial> {
        for page in pages {
            self.machine.write(space, BASE + page * PAGE, word + page).await?;
            yield_now().await;
        }
        Ok(())
    }

    async fn is_intact(&self, space: &Arc<AddressSpace>, pages: u64, word: u64) -> bool {
        for page in 0..pages {
            if self.machine.read(space, BASE + page * PAGE).await != Ok(word + page) {
                return false;
            }
        }
        true
    }
}

#[test]
fn the_largest_space_gives_way_and_the_others_keep_what_they_have() {
    let scene: &'static Scene = Box::leak(Box::new(Scene::new(200)));
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small: Vec<_> = (0..3).map(|_| scene.space(20)).collect();
        let hog = scene.space(1000);
        for (space, word) in small.iter().zip(1..) {
            scene.write(space, 0..12, word * 1000).await.unwrap();
        }
        // Others go on writing while it takes all there is, and wait behind it.
        let writers: Vec<_> = small
            .iter()
            .zip(1..)
            .map(|(space, word)| {
                let space = space.clone();
                spawn(async move {
                    while scene.machine.free() > MARKS.low {
                        yield_now().await;
                    }
                    scene.write(&space, 12..20, word * 1000).await
                })
            })
            .collect();
        let kept = hog.clone();
        let denied = scene.write(&kept, 0..1000, 0).await;
        assert_eq!(denied, Err(Denial::NoMapping), "its memory was taken");
        for writer in writers {
            assert_eq!(writer.await.unwrap(), Ok(()));
        }
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert_eq!(ended.len(), 1, "one victim");
        let (victim, pages) = &ended[0];
        assert!(Arc::ptr_eq(victim, &hog) && *pages > 100, "it had {pages} pages");
        assert_eq!(hog.stats().resident_pages, 0);
        for (space, word) in small.iter().zip(1..) {
            assert!(scene.is_intact(space, 20, word * 1000).await);
        }
        background.abort();
    });
}

#[test]
fn spaces_that_would_end_for_nothing_are_spared_and_who_asks_is_refused() {
    let scene = Scene::new(100);
    let frames = scene.machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small = scene.space(20);
        scene.write(&small, 0..MARKS.low as u64 - 1, 1000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        assert!(frames.alloc().await.is_err());
        assert!(scene.spaces.ended.lock().unwrap().is_empty());
        assert!(scene.is_intact(&small, MARKS.low as u64 - 1, 1000).await);
        // With one page more it is worth it.
        let page = small.resolve(scene.machine.fault(BASE + 19 * PAGE, Access::Write)).await;
        assert_eq!(page, FaultOutcome::Denied(Denial::OutOfMemory));
        background.abort();
    });
}

#[test]
fn the_next_victim_is_chosen_when_the_frames_of_the_last_are_back() {
    host::block_on_cpus(2, async {
        let scene = Scene::new(100);
        let frames = scene.machine.memory.frames();
        let (first, second) = (scene.space(40), scene.space(40));
        scene.write(&first, 0..30, 1000).await.unwrap();
        scene.write(&second, 0..20, 2000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        // Another CPU stands in the middle of a poll, and may still use the pages of the first.
        let busy = Busy::begin(scene.machine).await;
        let waiting: Vec<_> = (0..20).map(|_| spawn(frames.alloc())).collect();
        while scene.spaces.ended.lock().unwrap().is_empty() {
            yield_now().await;
        }
        // Long enough for grace periods to pass, if one could.
        for _ in 0..10_000 {
            yield_now().await;
        }
        assert_eq!(scene.spaces.ended.lock().unwrap().len(), 1);
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        busy.end().await;
        for waiter in waiting {
            assert!(waiter.await.unwrap().is_ok());
        }
        assert_eq!(scene.spaces.ended.lock().unwrap().len(), 1);
        assert!(scene.is_intact(&second, 20, 2000).await);
        background.abort();
    });
}
