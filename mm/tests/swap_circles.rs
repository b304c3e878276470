//! Touches that need two frames, one for a page that comes back from swap and one for its copy, or one for a page and one
//! for its table, where there is one frame: whoever waits for the second loses the first, and gets it as the second. That
//! ends.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::shown::RW;
use common::{Machine, PAGE, address};
use executor::{host, spawn, time, yield_now};
use mm::{
    AddressSpace, Denial, Frame, Marks, Observation, Placement, ReclaimPolicy, SwapRead, SwapStore,
    SwapWrite, TestStore, Verdict, Victims, reclaimer, swap_out,
};

const BASE: u64 = 0x40_0000;
const MARKS: Marks = Marks { reserve: 4, low: 10, high: 20 };
/// Nobody needs so many reads.
const ROUND_AND_ROUND: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers later, and not any more when it is clear that this goes on for ever.
struct Counted {
    store: Arc<TestStore>,
    reads: AtomicUsize,
}

impl SwapStore for Counted {
    fn slots(&self) -> u64 {
        self.store.slots()
    }
    fn slots_at_once(&self) -> usize {
        self.store.slots_at_once()
    }
    fn read(&self, read: SwapRead) {
        if self.reads.fetch_add(1, Relaxed) < ROUND_AND_ROUND {
            let store = self.store.clone();
            let _detached = spawn(async move {
                time::sleep(Duration::from_millis(1)).await;
                store.read(read);
            });
        }
    }
    fn write(&self, write: SwapWrite) {
        self.store.write(write);
    }
}

/// Spaces that may give way, and those that have.
#[derive(Default)]
struct Spaces {
    all: Mutex<Vec<Arc<AddressSpace>>>,
    ended: Mutex<Vec<Arc<AddressSpace>>>,
}

impl Victims for Spaces {
    fn each_space(&self, told: &mut dyn FnMut(&Arc<AddressSpace>)) {
        self.all.lock().unwrap().iter().for_each(told);
    }

    fn end(&self, space: &Arc<AddressSpace>, _pages: u64) {
        self.all.lock().unwrap().retain(|other| !Arc::ptr_eq(space, other));
        self.ended.lock().unwrap().push(space.clone());
    }
}

struct Scene {
    machine: &'static Machine,
    spaces: &'static Spaces,
}

impl Scene {
    fn new(frames: usize, slots: u64) -> Self {
        Self::of(Machine::with_table_frames(frames, 64), slots)
    }

    fn of(machine: &'static Machine, slots: u64) -> Self {
        let spaces: &'static Spaces = Box::leak(Box::default());
        machine.memory.frames().set_marks(MARKS);
        machine.memory.set_victims(spaces);
        let swap = Counted { store: TestStore::new(slots), reads: AtomicUsize::new(0) };
        machine.memory.swap_on(Arc::new(swap)).unwrap();
        Self { machine, spaces }
    }

    fn space(&self, pages: u64) -> Arc<AddressSpace> {
        let space = self.machine.user_space();
        space.map_anonymous(pages, RW, Placement::Fixed(address(BASE))).unwrap();
        space
    }

    /// All frames but so many.
    fn take_all_but(&self, left: usize) -> Vec<Frame> {
        let frames = self.machine.memory.frames();
        std::iter::from_fn(|| (frames.stats().free > left).then(|| frames.try_alloc().unwrap())).collect()
    }

    /// A page that was written, and that two spaces see, in swap; as zeros it needs no slot.
    async fn shared_page_in_swap(&self, word: u64) -> [Arc<AddressSpace>; 3] {
        let space = self.space(1);
        self.machine.write(&space, BASE, 1).await.unwrap();
        let first = space.fork(self.machine.empty_table()).await.unwrap();
        self.machine.write(&space, BASE, word).await.unwrap();
        let twin = space.fork(self.machine.empty_table()).await.unwrap();
        while self.machine.memory.frames().stats().anonymous > 0 {
            self.machine.forget_translations();
            swap_out(self.machine.memory, usize::MAX).await;
        }
        [space, twin, first]
    }
}

#[test]
fn a_write_that_gets_one_frame_of_two_is_refused_where_nobody_gives_way() {
    for word in [7, 0] {
        let scene = Scene::new(100, 10);
        let _clock = host::simulate_time();
        host::block_on(async {
            let [space, twin, _first] = scene.shared_page_in_swap(word).await;
            let taken = scene.take_all_but(MARKS.reserve + 1);
            let background = spawn(reclaimer(scene.machine.memory));
            let denied = time::timeout(PATIENCE, scene.machine.write(&space, BASE, 8)).await;
            assert_eq!(denied, Ok(Err(Denial::OutOfMemory)));
            drop(taken);
            // Nothing has happened.
            assert_eq!(scene.machine.write(&space, BASE, 9).await, Ok(()));
            assert_eq!(scene.machine.read(&twin, BASE).await, Ok(word));
            background.abort();
        });
    }
}

/// Gives everything, and does not go on when it is clear that this is for ever.
#[derive(Default)]
struct CountedLooks(AtomicUsize);

impl ReclaimPolicy for CountedLooks {
    fn name(&self) -> &'static str {
        "counted looks"
    }

    fn judge(&self, _: Observation) -> Verdict {
        assert!(self.0.fetch_add(1, Relaxed) < ROUND_AND_ROUND, "the page leaves again and again");
        Verdict::Evict
    }
}

#[test]
fn a_first_write_that_gets_a_frame_for_its_page_and_none_for_a_table_is_refused() {
    let scene = Scene::of(Machine::new(100), 10);
    scene.machine.memory.set_policy(Box::leak(Box::<CountedLooks>::default()));
    let _clock = host::simulate_time();
    host::block_on(async {
        let space = scene.space(1);
        let taken = scene.take_all_but(MARKS.reserve + 1);
        let background = spawn(reclaimer(scene.machine.memory));
        let denied = time::timeout(PATIENCE, scene.machine.write(&space, BASE, 8)).await;
        assert_eq!(denied, Ok(Err(Denial::OutOfMemory)));
        drop(taken);
        assert_eq!(scene.machine.write(&space, BASE, 9).await, Ok(()));
        assert_eq!(scene.machine.read(&space, BASE).await, Ok(9));
        background.abort();
    });
}

#[test]
fn a_write_that_gets_one_frame_of_two_is_done_when_somebody_gives_way() {
    // All slots are taken.
    let scene = Scene::new(100, 3);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [space, twin, _first] = scene.shared_page_in_swap(7).await;
        let hog = scene.space(40);
        for page in 0..40 {
            scene.machine.write(&hog, BASE + page * PAGE, page).await.unwrap();
        }
        scene.spaces.all.lock().unwrap().push(hog);
        let _taken = scene.take_all_but(MARKS.reserve + 1);
        let background = spawn(reclaimer(scene.machine.memory));
        let done = time::timeout(PATIENCE, scene.machine.write(&space, BASE, 8)).await;
        assert_eq!(done, Ok(Ok(())));
        assert_eq!(scene.machine.read(&space, BASE).await, Ok(8));
        assert_eq!(scene.machine.read(&twin, BASE).await, Ok(7));
        assert_eq!(scene.spaces.ended.lock().unwrap().len(), 1);
        background.abort();
    });
}

#[test]
fn what_the_kernel_copies_is_progress_so_nobody_gives_way_while_swap_goes_on() {
    const PAGES: u64 = 6000;
    let scene = Scene::new(100, PAGES + 100);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let space = scene.space(PAGES);
        scene.spaces.all.lock().unwrap().push(space.clone());
        for page in 0..PAGES {
            space.copy_out(BASE + page * PAGE, &page.to_le_bytes()).await.unwrap();
            yield_now().await;
        }
        for page in 0..PAGES {
            let mut word = [0; 8];
            space.copy_in(BASE + page * PAGE, &mut word).await.unwrap();
            assert_eq!(word, page.to_le_bytes());
        }
        assert!(scene.spaces.ended.lock().unwrap().is_empty());
        background.abort();
    });
}

#[test]
fn frames_that_are_used_without_a_touch_are_no_circle() {
    const PAGES: u64 = 6000;
    let scene = Scene::new(PAGES as usize + 100, 2 * PAGES);
    let frames = scene.machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        let space = scene.space(PAGES);
        for page in 0..PAGES {
            scene.machine.write(&space, BASE + page * PAGE, page).await.unwrap();
        }
        scene.spaces.all.lock().unwrap().push(space.clone());
        let background = spawn(reclaimer(scene.machine.memory));
        let mut taken = Vec::new();
        for _ in 0..PAGES {
            taken.push(frames.alloc().await.unwrap());
        }
        assert!(scene.spaces.ended.lock().unwrap().is_empty());
        assert!(scene.machine.memory.swap_stats().unwrap().pages_out > PAGES / 2);
        background.abort();
    });
}
