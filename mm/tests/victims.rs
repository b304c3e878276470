//! Memory that is out, of which several spaces have something: the largest gives way, and only it.

mod common;

use std::sync::{Arc, Mutex};

use common::cpus::Busy;
use common::{Machine, PAGE, address};
use std::time::Duration;

use executor::{host, spawn, time, yield_now};
use mm::{
    Access, AddressSpace, Denial, FaultOutcome, Marks, PageError, PageRequest, Pager, Placement, Protection,
    TestStore, Victims, VmObject, reclaimer,
};

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

    /// The same with swap of so many slots.
    fn with_swap(frames: usize, slots: u64) -> (Self, Arc<TestStore>) {
        let (scene, store) = (Self::new(frames), TestStore::new(slots));
        scene.machine.memory.swap_on(store.clone()).unwrap();
        (scene, store)
    }

    fn ended(&self) -> Vec<Arc<AddressSpace>> {
        self.spaces.ended.lock().unwrap().iter().map(|(space, _)| space.clone()).collect()
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

#[test]
fn a_space_whose_pages_cannot_be_written_to_swap_is_the_largest_all_the_same() {
    let (scene, store) = Scene::with_swap(200, 1000);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small = scene.space(40);
        scene.write(&small, 0..40, 1000).await.unwrap();
        let hog = scene.space(1000);
        assert_eq!(scene.write(&hog, 0..1000, 0).await, Err(Denial::NoMapping));
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &hog));
        assert!(scene.is_intact(&small, 40, 1000).await);
        background.abort();
    });
}

#[test]
fn what_a_space_has_in_swap_counts() {
    let (scene, _store) = Scene::with_swap(150, 60);
    let _clock = host::simulate_time();
    host::block_on(async {
        let hog = scene.space(60);
        scene.write(&hog, 0..60, 1000).await.unwrap();
        while scene.machine.memory.frames().stats().anonymous > 0 {
            scene.machine.forget_translations();
            mm::swap_out(scene.machine.memory, usize::MAX).await;
        }
        assert_eq!(
            (hog.stats().resident_pages, scene.machine.memory.swap_stats().unwrap().free_slots),
            (0, 0)
        );
        // Two that have less, but all of it in memory.
        let spaces = [scene.space(50), scene.space(50)];
        let background = spawn(reclaimer(scene.machine.memory));
        let _taken: Vec<_> = (0..70).map(|_| scene.machine.memory.frames().try_alloc().unwrap()).collect();
        for space in &spaces {
            scene.write(space, 0..50, 2000).await.unwrap();
        }
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &hog), "its slots are what the others need");
        for space in &spaces {
            assert!(scene.is_intact(space, 50, 2000).await);
        }
        background.abort();
    });
}

#[test]
fn pages_that_are_not_shown_are_counted_wherever_they_are() {
    let (scene, store) = Scene::with_swap(3000, 100);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [sparse, dense] = [scene.space(100_000), scene.space(100_000)];
        for pages in [0..600, 1000..1200, 70_000..70_400] {
            scene.write(&sparse, pages, 1000).await.unwrap();
        }
        scene.write(&dense, 0..1199, 2000).await.unwrap();
        for space in [&sparse, &dense] {
            let all = common::range(address(BASE), 100_000);
            space.protect(all, Protection::default()).await.unwrap();
        }
        let background = spawn(reclaimer(scene.machine.memory));
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert!(Arc::ptr_eq(&ended[0].0, &sparse));
        assert_eq!(ended[0].1, 1200);
        background.abort();
    });
}

#[test]
fn halves_of_pages_that_lie_far_apart_add_up() {
    let (scene, store) = Scene::with_swap(300, 100);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [sparse, dense] = [scene.space(100_000), scene.space(100_000)];
        let machine = scene.machine;
        for page in (0..40).map(|number| number * 1024) {
            scene.write(&sparse, page..page + 1, 1000).await.unwrap();
        }
        let _twin = sparse.fork(machine.empty_table()).await.unwrap();
        scene.write(&dense, 0..15, 2000).await.unwrap();
        for space in [&sparse, &dense] {
            let all = common::range(address(BASE), 100_000);
            space.protect(all, Protection::default()).await.unwrap();
        }
        let background = spawn(reclaimer(machine.memory));
        let _taken: Vec<_> = std::iter::from_fn(|| machine.memory.frames().try_alloc()).collect();
        assert!(machine.memory.frames().alloc().await.is_ok());
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert!(Arc::ptr_eq(&ended[0].0, &sparse));
        assert_eq!(ended[0].1, 20);
        background.abort();
    });
}

/// A space of 60 pages in swap, with so many slots, and two of 50 pages in memory.
async fn one_in_swap_and_two_in_memory(scene: &Scene) -> [Arc<AddressSpace>; 3] {
    let in_swap = scene.space(60);
    scene.write(&in_swap, 0..60, 1000).await.unwrap();
    while scene.machine.memory.frames().stats().anonymous > 0 {
        scene.machine.forget_translations();
        mm::swap_out(scene.machine.memory, usize::MAX).await;
    }
    let [one, other] = [scene.space(50), scene.space(50)];
    scene.write(&one, 0..49, 2000).await.unwrap();
    scene.write(&other, 0..50, 3000).await.unwrap();
    [in_swap, one, other]
}

#[test]
fn what_a_space_has_in_swap_does_not_count_where_the_disk_fails() {
    let (scene, store) = Scene::with_swap(150, 1000);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        store.fail_writes(usize::MAX);
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &other), "its frames are what is wanted");
        assert!(scene.is_intact(&in_swap, 30, 1000).await);
        assert!(scene.is_intact(&one, 49, 2000).await);
        background.abort();
    });
}

#[test]
fn where_the_disk_is_silent_each_victim_brings_frames_and_the_silence_is_waited_for_once() {
    let (scene, store) = Scene::with_swap(150, 61);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        // There is room for one page or two, which are under way for ever.
        scene.machine.forget_translations();
        in_swap.unmap(common::range(address(BASE), 1)).await.unwrap();
        store.hold();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let begun = time::now();
        let waiting: Vec<_> = (0..60).map(|_| spawn(scene.machine.memory.frames().alloc())).collect();
        let mut given = Vec::new();
        for waiter in waiting {
            given.push(waiter.await.unwrap().unwrap());
        }
        let took = time::now() - begun;
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(8), "it took {took:?}");
        let ended = scene.ended();
        assert_eq!(ended.len(), 2);
        assert!(!ended.iter().any(|space| Arc::ptr_eq(space, &in_swap)), "it has no frame");
        assert!(store.held() > 0);
        drop((one, other));
        background.abort();
    });
}

#[test]
fn a_store_that_is_stuck_takes_no_time_from_a_swap_disk_that_is_asked_later() {
    let (scene, store) = Scene::with_swap(150, 61);
    let pager = scene.machine.pager();
    let object = VmObject::new(scene.machine.memory, pager.clone(), 10);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        // The last slot is taken as well.
        scene.machine.forget_translations();
        mm::swap_out(scene.machine.memory, 1).await;
        object.write(0, &[1]).await.unwrap();
        pager.hold();
        store.hold();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let waiting = spawn(scene.machine.memory.frames().alloc());
        time::sleep(Duration::from_secs(4)).await;
        assert!(!waiting.is_finished() && store.held() == 0, "swap is full");
        // There is room in swap now; the disk takes three seconds for the first page.
        scene.machine.forget_translations();
        in_swap.unmap(common::range(address(BASE), 20)).await.unwrap();
        time::sleep(Duration::from_secs(3)).await;
        assert!(store.held() > 0 && scene.ended().is_empty(), "the disk has five seconds");
        store.release_all();
        assert!(waiting.await.unwrap().is_ok());
        assert!(scene.ended().is_empty());
        pager.release_all().await;
        background.abort();
        drop((one, other));
    });
}

#[test]
fn what_both_sides_of_a_fork_see_counts_half_for_each() {
    let scene = Scene::new(300);
    let _clock = host::simulate_time();
    host::block_on(async {
        let parent = scene.space(1000);
        scene.write(&parent, 0..100, 1000).await.unwrap();
        let twin = parent.fork(scene.machine.empty_table()).await.unwrap();
        scene.spaces.all.lock().unwrap().push(twin.clone());
        // Neither shows what it has, but for this.
        parent.protect(common::range(address(BASE), 1000), Protection::default()).await.unwrap();
        let other = scene.space(1000);
        let background = spawn(reclaimer(scene.machine.memory));
        scene.write(&other, 0..60, 2000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        assert!(Arc::ptr_eq(&scene.ended()[0], &other), "it has 60, the others 50 each");
        background.abort();
    });
}

/// Fills memory with what a device has, and asks for more: who has the most gives way, though the device never answers.
async fn gives_way_though_no_device_answers(scene: &Scene) {
    let background = spawn(reclaimer(scene.machine.memory));
    let small = scene.space(20);
    scene.write(&small, 0..12, 1000).await.unwrap();
    let hog = scene.space(1000);
    let begun = time::now();
    assert_eq!(scene.write(&hog, 0..1000, 0).await, Err(Denial::NoMapping));
    assert!(time::now() - begun < Duration::from_secs(20), "it took {:?}", time::now() - begun);
    assert!(time::now() - begun >= Duration::from_secs(5), "the device had no time to answer");
    assert!(scene.ended().iter().any(|space| Arc::ptr_eq(space, &hog)));
    scene.write(&small, 12..20, 1000).await.unwrap();
    background.abort();
}

#[test]
fn a_swap_disk_that_never_answers_spares_nobody() {
    let (scene, store) = Scene::with_swap(200, 1000);
    store.hold();
    let _clock = host::simulate_time();
    host::block_on(gives_way_though_no_device_answers(&scene));
    assert!(store.held() > 0);
}

/// Takes frames for what it is asked to load, and keeps them.
#[derive(Default)]
struct Silent(Mutex<Vec<PageRequest>>);

impl Pager for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn load(&self, mut request: PageRequest) {
        assert!(request.try_attach());
        self.0.lock().unwrap().push(request);
    }
}

#[test]
fn a_pager_that_never_answers_a_load_spares_nobody() {
    let scene = Scene::new(200);
    let pager = Arc::new(Silent::default());
    let object = VmObject::new(scene.machine.memory, pager.clone(), 50);
    let _clock = host::simulate_time();
    host::block_on(async {
        let readers: Vec<_> = (0..50)
            .map(|page| {
                let object = object.clone();
                spawn(async move { object.read(page * PAGE, &mut [0; 8]).await })
            })
            .collect();
        yield_now().await;
        gives_way_though_no_device_answers(&scene).await;
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        pager.0.lock().unwrap().clear();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), Err(PageError::Abandoned));
        }
    });
}

#[test]
fn a_pager_that_never_answers_a_store_spares_nobody() {
    let scene = Scene::new(200);
    let pager = scene.machine.pager();
    let object = VmObject::new(scene.machine.memory, pager.clone(), 50);
    let _clock = host::simulate_time();
    host::block_on(async {
        for page in 0..50 {
            object.write(page * PAGE, &[1]).await.unwrap();
        }
        pager.hold();
        gives_way_though_no_device_answers(&scene).await;
    });
}
