//! Several CPUs, each of which remembers translations: nothing that was taken away is used for something else
//! while one of them may still use it.
//!
//! The other CPU stands in the middle of a poll, in which it has read a page and remembers where it is.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::cpus::{Busy, poll_once, polls};
use common::{Machine, PAGE, address, content, page, range};
use executor::host::block_on_cpus;
use executor::{spawn, yield_now};
use mm::{
    Access, AddressSpace, Denial, FaultOutcome, Frame, MapError, PageState, Placement, Protection, VmObject,
    reclaim, reclaimer,
};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 4;
const RW: Protection = Protection::READ_WRITE.for_user();
const JUNK: u8 = 0xde;
/// For what should come soon.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    machine: &'static Machine,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    /// Free frames when nothing but the space was there.
    free: usize,
}

impl Scene {
    /// A space that shows an object's pages at `BASE`, with all tables.
    async fn new(make: impl FnOnce(&'static Machine) -> Arc<VmObject>) -> Self {
        let machine = Machine::with_cpus(100);
        let space = machine.user_space();
        let tables = VmObject::zero(machine.memory, 1);
        space.map(&tables, page(0), 1, RW, at_base()).unwrap();
        machine.write(&space, BASE, 0).await.unwrap();
        space.unmap(range(address(BASE), 1)).await.unwrap();
        drop(tables);
        machine.memory.settle().await;
        let free = machine.free();
        let object = make(machine);
        space.map(&object, page(0), PAGES, RW, at_base()).unwrap();
        Self { machine, object, space, free }
    }

    /// Zero memory with a 7 in its first page.
    async fn zero() -> Self {
        let scene = Self::new(|machine| VmObject::zero(machine.memory, PAGES)).await;
        scene.machine.write(&scene.space, BASE, 7).await.unwrap();
        scene
    }

    /// A file whose first page was read.
    async fn file() -> Self {
        let scene = Self::new(|machine| VmObject::new(machine.memory, machine.pager(), PAGES)).await;
        assert_eq!(scene.machine.read(&scene.space, BASE).await, Ok(content(0)));
        scene
    }

    /// Another CPU remembers the first page.
    async fn seen_by_another(&self, value: u64) -> Busy {
        let busy = Busy::begin(self.machine).await;
        assert_eq!(busy.reads(self.space.root(), BASE), Some(value));
        busy
    }

    fn all(&self) -> std::ops::Range<mm::VirtAddr> {
        range(address(BASE), PAGES)
    }

    /// Uses all frames that are free for something else.
    fn use_free_frames(&self) -> Vec<Frame> {
        use_free_frames(self.machine, usize::MAX)
    }

    fn quarantined(&self) -> usize {
        self.machine.memory.frames().stats().quarantined
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < PATIENCE, "it does not come");
            yield_now().await;
        }
    }
}

/// Takes up to `most` free frames and fills them with something else.
fn use_free_frames(machine: &Machine, most: usize) -> Vec<Frame> {
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).take(most).collect();
    taken.iter_mut().for_each(|frame| frame.as_bytes_mut().fill(JUNK));
    taken
}

fn at_base() -> Placement {
    Placement::Fixed(address(BASE))
}

#[test]
fn an_unmapping_ends_when_no_cpu_reaches_the_pages() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, space, root) = (scene.machine, scene.space.clone(), scene.space.root());
        let busy = scene.seen_by_another(7).await;
        let mut unmap = pin!(space.unmap(scene.all()));
        assert!(poll_once(unmap.as_mut()).is_pending());
        // For faults the mapping is gone, but its range is not free.
        assert_eq!(machine.try_read(root, BASE), None);
        let denied = space.resolve(machine.fault(BASE, Access::Read)).await;
        assert_eq!(denied, FaultOutcome::Denied(Denial::NoMapping));
        assert_eq!(space.map(&scene.object, page(0), 1, RW, at_base()), Err(MapError::Overlap));
        // Nor is the frame, though nobody but the mapping has the object.
        let object = Arc::downgrade(&scene.object);
        let mut scene = scene;
        scene.object = VmObject::zero(machine.memory, 1);
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
        assert!(object.upgrade().is_some());
        drop(taken);
        busy.end().await;
        unmap.await.unwrap();
        assert!(object.upgrade().is_none());
        assert_eq!((space.stats().mappings, machine.free()), (0, scene.free));
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), None);
        assert!(space.map(&scene.object, page(0), 1, RW, at_base()).is_ok());
        busy.end().await;
    });
}

#[test]
fn an_unmapping_that_is_not_awaited_is_ended_by_the_next_who_looks() {
    block_on_cpus(2, async {
        for look in 0..4 {
            let scene = Scene::zero().await;
            let space = &scene.space;
            let busy = scene.seen_by_another(7).await;
            {
                let mut unmap = pin!(space.unmap(scene.all()));
                assert!(poll_once(unmap.as_mut()).is_pending());
            }
            assert_eq!(space.stats().mappings, 1);
            let object = VmObject::zero(scene.machine.memory, PAGES);
            assert_eq!(space.map(&object, page(0), PAGES, RW, at_base()), Err(MapError::Overlap));
            let unmapped = space.clone();
            let mut other = Box::pin(async move { unmapped.unmap(range(address(BASE), 1)).await });
            assert!(poll_once(other.as_mut()).is_pending(), "a CPU still reaches the page");
            assert_eq!(busy.reads(space.root(), BASE), Some(7));
            busy.end().await;
            match look {
                0 => other.await.unwrap(),
                1 => {
                    scene.machine.memory.settle().await;
                    assert_eq!(space.map(&object, page(0), PAGES, RW, at_base()), Ok(address(BASE)));
                    continue;
                }
                2 => {
                    // The background task was told.
                    let background = spawn(reclaimer(scene.machine.memory));
                    scene.until(|| space.stats().mappings == 0).await;
                    background.abort();
                }
                _ => {
                    let (machine, free) = (scene.machine, scene.free);
                    let Scene { space, object, .. } = scene;
                    drop((other, space, object));
                    machine.memory.settle().await;
                    assert_eq!(machine.free(), free + 4, "a root and three tables are free, too");
                    continue;
                }
            }
            assert_eq!(space.stats().mappings, 0);
        }
    });
}

#[test]
fn protecting_ends_when_no_cpu_can_do_more() {
    block_on_cpus(2, async {
        for rights in [Protection::READ.for_user(), Protection::default().for_user()] {
            let scene = Scene::zero().await;
            let root = scene.space.root();
            let busy = Busy::begin(scene.machine).await;
            assert!(busy.writes(root, BASE, 8));
            // One that is not awaited changes nothing for the next.
            assert!(poll_once(pin!(scene.space.protect(scene.all(), rights))).is_pending());
            let mut protect = pin!(scene.space.protect(scene.all(), rights));
            assert!(poll_once(protect.as_mut()).is_pending());
            assert!(scene.machine.try_write(root, BASE, 1).is_none(), "this CPU has forgotten at once");
            assert!(busy.writes(root, BASE, 9), "it uses what it remembers");
            busy.end().await;
            protect.await.unwrap();
            let busy = Busy::begin(scene.machine).await;
            assert!(!busy.writes(root, BASE, 10));
            assert_eq!(busy.reads(root, BASE), rights.read.then_some(9));
            busy.end().await;
        }
    });
}

#[test]
fn an_evicted_page_keeps_its_frame_until_no_cpu_reads_it() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let (machine, space, root) = (scene.machine, &scene.space, scene.space.root());
        let before = scene.object.state(page(0));
        let busy = scene.seen_by_another(content(0)).await;
        let mut evict = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(evict.as_mut()).is_pending());
        assert!(space.walk(address(BASE)).is_none());
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(root, BASE), Some(content(0)), "it uses what it remembers");
        drop(taken);
        assert_eq!((scene.object.state(page(0)), machine.free()), (before, scene.free - 1));
        busy.end().await;
        assert_eq!(evict.await, 1);
        assert_eq!((scene.object.state(page(0)), machine.free()), (PageState::Absent, scene.free));
        // In another frame, for all CPUs.
        let other_use = machine.memory.frames().try_alloc();
        machine.write(space, BASE, 5).await.unwrap();
        let busy = scene.seen_by_another(5).await;
        machine.write(space, BASE, 6).await.unwrap();
        assert_eq!(busy.reads(root, BASE), Some(6));
        busy.end().await;
        drop(other_use);
    });
}

#[test]
fn a_page_that_is_touched_while_it_leaves_stays_where_it_is() {
    block_on_cpus(2, async {
        for write in [false, true] {
            let scene = Scene::file().await;
            let (machine, space) = (scene.machine, &scene.space);
            let frame = scene.object.state(page(0)).frame();
            let busy = scene.seen_by_another(content(0)).await;
            let mut evict = pin!(reclaim(machine.memory, 1));
            assert!(poll_once(evict.as_mut()).is_pending());
            let value = if write {
                machine.write(space, BASE, 9).await.unwrap();
                9
            } else {
                machine.read(space, BASE).await.unwrap()
            };
            // Both CPUs use the same frame.
            assert_eq!(busy.reads(space.root(), BASE), Some(value));
            assert_eq!(scene.object.state(page(0)).frame(), frame);
            busy.end().await;
            assert_eq!(evict.await, 0);
            assert_eq!(scene.object.state(page(0)).frame(), frame);
            assert_eq!(machine.read(space, BASE).await, Ok(value));
            assert_eq!(machine.memory.stats().loads_started, 1);
        }
    });
}

#[test]
fn evictions_take_turns_so_that_each_waits_for_what_it_has_marked() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let (machine, space) = (scene.machine, &scene.space);
        let busy = scene.seen_by_another(content(0)).await;
        let mut first = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(first.as_mut()).is_pending());
        let mut second = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(machine.read(space, BASE).await, Ok(content(0)));
        let frame = scene.object.state(page(0)).frame();
        assert!(poll_once(second.as_mut()).is_pending());
        busy.end().await;
        // Another CPU sees the page again before the second begins.
        assert_eq!(first.await, 0);
        let busy = scene.seen_by_another(content(0)).await;
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(scene.object.state(page(0)).frame(), frame);
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(space.root(), BASE), Some(content(0)));
        drop(taken);
        busy.end().await;
        assert_eq!(second.await, 1);
        assert_eq!(machine.free(), scene.free);
    });
}

#[test]
fn a_dropped_page_is_made_anew_when_no_cpu_uses_the_old_one() {
    block_on_cpus(2, async {
        for awaited in [true, false] {
            let scene = Scene::zero().await;
            let (machine, space, root) = (scene.machine, &scene.space, scene.space.root());
            let busy = scene.seen_by_another(7).await;
            let mut release = Some(Box::pin(scene.object.release(page(0)..page(PAGES))));
            assert!(poll_once(release.as_mut().unwrap().as_mut()).is_pending());
            if !awaited {
                release = None;
            }
            assert_eq!((scene.object.state(page(0)), scene.quarantined()), (PageState::Absent, 1));
            let mut read = pin!(machine.read(space, BASE));
            assert!(poll_once(read.as_mut()).is_pending(), "a CPU still uses the old page");
            let taken = scene.use_free_frames();
            assert_eq!(taken.len(), scene.free - 1);
            assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
            drop(taken);
            busy.end().await;
            assert_eq!(read.await, Ok(0));
            if let Some(release) = release {
                release.await;
            }
            assert_eq!((machine.free(), scene.quarantined()), (scene.free - 1, 0));
            let busy = scene.seen_by_another(0).await;
            busy.end().await;
        }
    });
}

#[test]
fn pages_that_nobody_waits_for_are_freed_by_the_background_task() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let background = spawn(reclaimer(scene.machine.memory));
        let busy = scene.seen_by_another(7).await;
        drop(scene.object.release(page(0)..page(PAGES)));
        yield_now().await;
        assert_eq!((scene.machine.free(), scene.quarantined()), (scene.free - 1, 1));
        busy.end().await;
        scene.until(|| scene.machine.free() == scene.free).await;
        assert_eq!(scene.quarantined(), 0);
        background.abort();
    });
}

#[test]
fn a_space_that_ends_leaves_its_tables_and_pages_to_those_who_use_them() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, root) = (scene.machine, scene.space.root());
        machine.write(&scene.space, BASE + PAGE, 8).await.unwrap();
        let before = machine.free();
        let busy = scene.seen_by_another(7).await;
        let Scene { space, object, .. } = scene;
        drop((space, object));
        // Two pages, a root and three tables.
        let stats = machine.memory.frames().stats();
        assert_eq!((stats.free, stats.quarantined), (before, 6));
        let taken = use_free_frames(machine, usize::MAX);
        assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
        assert_eq!(busy.reads(root, BASE + PAGE), None, "and goes through the tables that are loaded");
        drop(taken);
        busy.end().await;
        machine.memory.settle().await;
        let stats = machine.memory.frames().stats();
        assert_eq!((stats.free, stats.quarantined), (before + 6, 0));
    });
}

#[test]
fn frames_in_quarantine_are_waited_for_before_somebody_is_told_that_there_is_none() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let busy = scene.seen_by_another(7).await;
        drop(scene.object.release(page(0)..page(PAGES)));
        let taken = scene.use_free_frames();
        let waiter = spawn(scene.machine.memory.frames().alloc());
        let background = spawn(reclaimer(scene.machine.memory));
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!waiter.is_finished());
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(7));
        busy.end().await;
        scene.until(|| waiter.is_finished()).await;
        assert!(waiter.await.unwrap().is_ok());
        background.abort();
        drop(taken);
    });
}

#[test]
fn a_wait_that_moves_to_a_busy_cpu_waits_for_that_one_too() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, root) = (scene.machine, scene.space.root());
        let busy = scene.seen_by_another(7).await;
        let space = scene.space.clone();
        let mut unmap = Box::pin(async move { space.unmap(range(address(BASE), PAGES)).await });
        assert!(poll_once(unmap.as_mut()).is_pending());
        // This CPU, which asked, comes between two polls. The other takes over the wait in the middle of its own.
        yield_now().await;
        let looked = busy.does(move || {
            let pending = poll_once(unmap.as_mut()).is_pending();
            (pending, machine.try_read(root, BASE), unmap)
        });
        let (pending, seen, unmap) = looked;
        assert!(pending, "that CPU is in the middle of its poll");
        assert_eq!(seen, Some(7), "it uses what it remembers");
        assert_eq!(scene.space.stats().mappings, 1);
        busy.end().await;
        unmap.await.unwrap();
        assert_eq!(scene.space.stats().mappings, 0);
        assert_eq!(machine.try_read(root, BASE), None);
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), None);
        busy.end().await;
    });
}

/// Reads the file's pages and counts in a page of its own, in long polls. False when it found something wrong.
async fn read_and_count(machine: &'static Machine, space: &AddressSpace, number: u64, over: &Storm) -> bool {
    const STEPS: u64 = 1000;
    let own = BASE + (PAGES + number) * PAGE;
    let mut counted = 0;
    while !over.over.load(Ordering::Relaxed) {
        for index in 0..PAGES {
            match machine.read(space, BASE + index * PAGE).await {
                Ok(value) if value == content(index) => {}
                Err(Denial::NoMapping | Denial::Protection(_)) => {}
                _ => return false,
            }
        }
        if machine.read(space, own).await != Ok(counted) {
            return false;
        }
        over.seen.fetch_add(1, Ordering::Relaxed);
        // A poll that is long enough for the others to do something meanwhile.
        yield_now().await;
        for step in 0..STEPS {
            let index = (step + number) % PAGES;
            let found = machine.try_read(space.root(), BASE + index * PAGE);
            if found.is_some_and(|value| value != content(index)) {
                return false;
            }
            counted += u64::from(machine.try_write(space.root(), own, counted + 1).is_some());
        }
    }
    true
}

#[derive(Default)]
struct Storm {
    over: AtomicBool,
    /// Rounds of all readers.
    seen: AtomicU64,
    /// Readers that found something wrong.
    wrong: AtomicU64,
}

#[test]
fn readers_on_all_cpus_never_see_what_is_not_theirs() {
    const READERS: u64 = 3;
    const ROUNDS: u64 = 60;
    block_on_cpus(4, async {
        let machine = Machine::with_cpus(100);
        let file = VmObject::new(machine.memory, machine.pager(), PAGES);
        let lazy = VmObject::zero(machine.memory, READERS);
        let space = machine.user_space();
        let background = spawn(reclaimer(machine.memory));
        space.map(&lazy, page(0), READERS, RW, Placement::Fixed(address(BASE + PAGES * PAGE))).unwrap();
        let storm = Arc::new(Storm::default());
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (space, storm) = (space.clone(), storm.clone());
                spawn(polls(machine, async move {
                    if !read_and_count(machine, &space, number, &storm).await {
                        storm.wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }))
            })
            .collect();
        let all = range(address(BASE), PAGES);
        for round in 0..ROUNDS {
            space.map(&file, page(0), PAGES, RW, at_base()).unwrap();
            let before = storm.seen.load(Ordering::Relaxed);
            while storm.seen.load(Ordering::Relaxed) < before + READERS {
                assert_eq!(storm.wrong.load(Ordering::Relaxed), 0, "in round {round}");
                yield_now().await;
            }
            let evicting = spawn(reclaim(machine.memory, 3));
            match round % 4 {
                0 => yield_now().await,
                1 => file.release(page(0)..page(PAGES)).await,
                2 => drop(file.release(page(1)..page(3))),
                _ => space.protect(all.clone(), Protection::default().for_user()).await.unwrap(),
            }
            // What is free is somebody else's.
            for _ in 0..20 {
                drop(use_free_frames(machine, 80));
            }
            space.unmap(all.clone()).await.unwrap();
            drop(use_free_frames(machine, 80));
            evicting.await.unwrap();
        }
        storm.over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(storm.wrong.load(Ordering::Relaxed), 0);
        background.abort();
    });
}
