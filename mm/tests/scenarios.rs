//! Small meetings of several CPUs over one page: shuttle runs each in some hundreds of random orders of its steps, where
//! a step ends at each lock and each atomic of the executor.
//!
//! Run by `RUSTFLAGS="--cfg loom --cfg shuttle" cargo test -p mm --release --test scenarios`. Each shuttle thread is a
//! CPU with translations of its own. A lost wake shows as a deadlock. A failure prints the schedule that leads to it, for
//! `shuttle::replay`.
#![cfg(shuttle)]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::cpus::polls;
use common::shown::{BASE, RW, at_base, use_free_frames};
use common::{Machine, PAGE, content, page, range};
use executor::host::{bury, run_ready, run_until};
use executor::{JoinHandle, spawn, yield_now};
use mm::{AddressSpace, Denial, TestPager, VmObject};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

/// How many orders of each kind are tried.
const ORDERS: usize = 100;
/// CPUs beside the first one.
const OTHERS: usize = 2;
const PAGES: u64 = 2;

/// A file of two pages that a space shows.
struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    file: Arc<VmObject>,
    space: Arc<AddressSpace>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::with_cpus(24);
        let pager = machine.pager();
        let file = VmObject::new(machine.memory, pager.clone(), PAGES);
        let space = machine.user_space();
        space.map(&file, page(0), PAGES, RW, at_base()).unwrap();
        Self { machine, pager, file, space, tasks: Vec::new() }
    }

    /// Private memory in the file's place.
    fn private() -> Self {
        let scene = Self::new();
        scene.space.map_anonymous(PAGES, RW, after()).unwrap();
        scene
    }

    /// One task more.
    fn does(&mut self, what: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(spawn(polls(self.machine, what)));
    }

    /// Runs all CPUs until the tasks are done.
    fn finish(&mut self) {
        let tasks = Arc::new(std::mem::take(&mut self.tasks));
        let done = |tasks: &Vec<JoinHandle<()>>| tasks.iter().all(JoinHandle::is_finished);
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let tasks = Arc::clone(&tasks);
                shuttle::thread::spawn(move || run_until(|| done(&tasks)))
            })
            .collect();
        run_until(|| done(&tasks));
        for other in others {
            other.join().unwrap();
        }
    }

    /// What is read by a future that is run alone.
    fn reads(&mut self, at: u64) -> u64 {
        let (machine, space) = (self.machine, self.space.clone());
        let found = Arc::new(AtomicU64::new(0));
        let noted = found.clone();
        self.does(async move { noted.store(machine.read(&space, at).await.unwrap(), Ordering::SeqCst) });
        self.finish();
        found.load(Ordering::SeqCst)
    }
}

/// Behind the file's pages.
const AFTER: u64 = BASE + PAGES * PAGE;

fn after() -> mm::Placement {
    mm::Placement::Fixed(common::address(AFTER))
}

fn scenario(f: fn()) {
    run(RandomScheduler::new(ORDERS), f);
    // Few switches, at unlikely places.
    run(PctScheduler::new(4, ORDERS), f);
}

fn run(scheduler: impl Scheduler + 'static, f: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(scheduler, config).run(move || {
        run_ready();
        f();
        run_ready();
        bury();
    });
}

/// What the CPU finds later in the same poll, by what it remembers: while others do something, it may be that only.
fn remembered(machine: &Machine, space: &AddressSpace, index: u64) -> Option<u64> {
    shuttle::thread::yield_now();
    machine.try_read(space.root(), BASE + index * PAGE)
}

/// Reads a page of the file, and again without a fault: nothing else is ever seen.
async fn read_twice(machine: &'static Machine, space: Arc<AddressSpace>, index: u64) {
    for _ in 0..2 {
        assert_eq!(machine.read(&space, BASE + index * PAGE).await, Ok(content(index)));
        assert!(remembered(machine, &space, index).is_none_or(|value| value == content(index)));
        yield_now().await;
    }
}

#[test]
fn two_faulters_meet_an_eviction() {
    scenario(|| {
        let mut scene = Scene::new();
        let (machine, file) = (scene.machine, scene.file.clone());
        for _ in 0..2 {
            let space = scene.space.clone();
            scene.does(read_twice(machine, space, 0));
        }
        scene.does(async move {
            for _ in 0..2 {
                file.evict(page(0)).await;
                // What is free is somebody else's.
                drop(use_free_frames(machine, 8));
                yield_now().await;
            }
        });
        scene.finish();
    });
}

#[test]
fn a_shootdown_meets_the_reuse_of_the_frame() {
    scenario(|| {
        let mut scene = Scene::new();
        let (machine, file) = (scene.machine, scene.file.clone());
        for _ in 0..2 {
            let space = scene.space.clone();
            scene.does(async move {
                for _ in 0..2 {
                    let found = machine.read(&space, BASE).await;
                    assert!(
                        matches!(found, Ok(value) if value == content(0)) || found == Err(Denial::NoMapping)
                    );
                    assert!(remembered(machine, &space, 0).is_none_or(|value| value == content(0)));
                    yield_now().await;
                }
            });
        }
        let space = scene.space.clone();
        scene.does(async move {
            yield_now().await;
            space.unmap(range(common::address(BASE), PAGES)).await.unwrap();
            file.release(page(0)..page(PAGES)).await;
            drop(use_free_frames(machine, 8));
        });
        scene.finish();
    });
}

#[test]
fn a_store_meets_writes_and_a_mark() {
    scenario(|| {
        let mut scene = Scene::new();
        let (machine, file) = (scene.machine, scene.file.clone());
        let (space, stored) = (scene.space.clone(), scene.file.clone());
        scene.does(async move {
            // A mark forgets what was written to a page that was never stored.
            machine.write(&space, BASE, 1).await.unwrap();
            stored.store(page(0)..page(1)).await.unwrap();
        });
        scene.finish();
        let space = scene.space.clone();
        scene.does(async move {
            for value in 2..=4 {
                machine.write(&space, BASE, value).await.unwrap();
                assert_eq!(machine.read(&space, BASE).await, Ok(value));
                yield_now().await;
            }
        });
        let storing = file.clone();
        scene.does(async move {
            storing.store(page(0)..page(1)).await.unwrap();
            storing.mark(page(0)..page(1)).await;
            storing.evict(page(0)).await;
        });
        scene.does(async move {
            file.store_and_mark(page(0)..page(1)).await.unwrap();
            file.evict(page(0)).await;
            drop(use_free_frames(machine, 8));
        });
        scene.finish();
        assert_eq!(scene.reads(BASE), 4);
    });
}

#[test]
fn a_load_meets_an_invalidation_and_a_waiter_that_gives_up() {
    scenario(|| {
        let mut scene = Scene::new();
        let (machine, file, pager) = (scene.machine, scene.file.clone(), scene.pager.clone());
        pager.hold();
        let space = scene.space.clone();
        scene.does(read_twice(machine, space, 1));
        let space = scene.space.clone();
        let gives_up = spawn(polls(machine, async move {
            assert_eq!(machine.read(&space, BASE + PAGE).await, Ok(content(1)));
        }));
        scene.does(async move {
            drop(file.invalidate(page(1)));
            yield_now().await;
            gives_up.abort();
            drop(gives_up.await);
        });
        scene.does(async move {
            yield_now().await;
            pager.release_all().await;
        });
        scene.finish();
        assert_eq!(scene.file.stats().transfers, 0);
    });
}

#[test]
fn a_write_meets_a_fork() {
    scenario(|| {
        let mut scene = Scene::private();
        let machine = scene.machine;
        let space = scene.space.clone();
        scene.does(async move {
            for value in 1..=3 {
                machine.write(&space, AFTER, value).await.unwrap();
                // The second word is written later, so it is never ahead in a copy.
                machine.write(&space, AFTER + 8, value).await.unwrap();
            }
        });
        let space = scene.space.clone();
        scene.does(async move {
            let child = space.fork(machine.empty_table()).await.unwrap();
            let first = machine.read(&child, AFTER).await.unwrap();
            let second = machine.read(&child, AFTER + 8).await.unwrap();
            assert!(first == second || first == second + 1, "{first} before {second}");
            machine.write(&child, AFTER, 100).await.unwrap();
            assert_eq!(machine.read(&child, AFTER + 8).await, Ok(second), "nobody else writes there");
        });
        scene.finish();
        assert_eq!((scene.reads(AFTER), scene.reads(AFTER + 8)), (3, 3));
    });
}
