//! Random programs on a machine with several CPUs, against a flat model. Each CPU stands in a poll of its own and remembers
//! what it has seen of page tables, until it passes to the next poll; mappings, forks, stores, marks, discards, evictions,
//! swap and exchanges of given frames go on meanwhile, each polled by any CPU at any time, and CPUs go on writing to what
//! they remember. Nobody sees a word that the model does not, nobody remembers a page that is gone, what is not dirty is on
//! the disk, every wait ends, and nothing is left. In some programs the file is an overlay.
//!
//! One CPU does something at a time, and which one is the program's choice, so a program runs the same way each time.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod model;
mod steps;
mod world;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use common::cpus::Busy;
use common::page;
use common::shown::use_free_frames;
use common::tasks::{Handle, Tasks};
use executor::host::block_on_cpus;
use executor::{current_cpu, yield_now};
use mm::{Access, PageError, reclaimer};
use model::{PAGES, ROOM, WORDS};
use proptest::prelude::*;
use steps::{CPUS, Call, Shown, Step, program};
use world::{Host, Space, World};

const SPACES: usize = 4;

struct Play {
    world: Arc<World>,
    cpus: Vec<Busy>,
    tasks: Arc<Mutex<Tasks>>,
    begun: Vec<Handle<()>>,
}

impl Play {
    async fn new(host: Host, is_overlay: bool) -> Self {
        let machine = host.machine;
        let cpus = Busy::begin_on_all(machine).await;
        assert_eq!(cpus.len(), CPUS);
        let mut tasks = Tasks::default();
        // The background task, which is always there.
        tasks.spawn(async move { reclaimer(machine.memory).await });
        let play = Self {
            world: World::new(host, is_overlay),
            cpus,
            tasks: Arc::new(Mutex::new(tasks)),
            begun: Vec::new(),
        };
        let (own, file) = (Shown::Private { first: 0 }, Shown::File { first: 0 });
        let shown = [Shown::Zeros, own, file, Shown::Shared, Shown::Given];
        let space = play.space(0);
        for (at, shown) in (0..).step_by(PAGES).zip(shown) {
            calls::map(&play.world, &space, at, PAGES, shown);
        }
        (0..CPUS).for_each(|cpu| play.passes(cpu));
        play
    }

    fn space(&self, which: usize) -> Space {
        let alive = self.world.alive.lock().unwrap();
        alive[which % alive.len()].clone()
    }

    /// The CPU's poll ends, and another begins.
    fn passes(&self, cpu: usize) {
        self.cpus[cpu].passes();
        let world = self.world.clone();
        self.cpus[cpu].does(move || {
            let shootdowns = world.host.machine.memory.stats().shootdowns;
            world.model().passed(current_cpu(), shootdowns);
        });
    }

    /// A CPU polls a task. If that has to wait, the CPU goes on with something else.
    fn polls(&self, cpu: usize, task: usize) {
        let tasks = self.tasks.clone();
        let waits = self.cpus[cpu].does(move || {
            let mut tasks = tasks.lock().unwrap();
            tasks.poll(task);
            tasks.is_left(task)
        });
        if waits {
            self.passes(cpu);
        }
    }

    fn begins(&mut self, cpu: usize, future: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.lock().unwrap().spawn(future);
        let number = handle.number();
        self.begun.push(handle);
        self.polls(cpu, number);
    }

    /// The disk answers all that it has held back.
    fn releases(&mut self, cpu: usize) {
        let disk = self.world.disk.clone();
        self.begins(cpu, async move { _ = disk.release_all().await });
    }

    fn woken(&self) -> Vec<usize> {
        self.tasks.lock().unwrap().woken()
    }

    fn step(&mut self, cpu: usize, step: Step) {
        let world = self.world.clone();
        match step {
            Step::Begin { call: Call::Fork, .. } if world.alive.lock().unwrap().len() >= SPACES => {}
            Step::Begin { space, call } => self.begins(cpu, calls::make(world, self.space(space), call)),
            Step::Poll { which } => {
                let woken = self.woken();
                if !woken.is_empty() {
                    self.passes(cpu);
                    self.polls(cpu, woken[which % woken.len()]);
                }
            }
            Step::Rewrite { which, word } => self.cpus[cpu].does(move || world.rewrite(which, word)),
            Step::Pass => self.passes(cpu),
            Step::Forget => self.cpus[cpu].does(move || {
                world.host.machine.forget_translations();
                world.model().forgets(current_cpu());
            }),
            Step::Kill { which } => {
                if !self.begun.is_empty() {
                    let (handle, tasks) = (&self.begun[which % self.begun.len()], self.tasks.clone());
                    let number = handle.number();
                    self.cpus[cpu].does(move || tasks.lock().unwrap().kill_number(number));
                }
            }
            Step::EndSpace { space } => {
                let mut alive = world.alive.lock().unwrap();
                if alive.len() > 1 {
                    let index = space % alive.len();
                    let space = alive.swap_remove(index);
                    self.cpus[cpu].does(move || drop(space));
                }
            }
            Step::Hold => world.disk.hold(),
            Step::Release => self.releases(cpu),
            Step::Load { page: index } => drop(world.disk.release(page(index as u64))),
            Step::Stored { page: index } => {
                world.disk.release_store(page(index as u64));
                world.disk.release_flush();
            }
            Step::FailLoad { page: index } => {
                world.is_troubled.store(true, Relaxed);
                world.disk.fail(Some(page(index as u64)), 1, PageError::Io);
            }
            Step::FailStore { page: index } => {
                world.disk.fail_stores(Some(page(index as u64)), 1, PageError::Io);
            }
            Step::HoldSwap => world.host.swap.hold(),
            Step::ReleaseSwap => world.host.swap.release_all(),
            Step::Use => drop(use_free_frames(world.host.machine, usize::MAX)),
        }
    }

    /// All that is begun comes to its end, but the background task.
    async fn settle(&mut self) {
        for _ in 0..1000 {
            (0..CPUS).for_each(|cpu| self.passes(cpu));
            // This CPU as well.
            yield_now().await;
            for (turn, task) in self.woken().into_iter().enumerate() {
                self.passes(turn % CPUS);
                self.polls(turn % CPUS, task);
                self.world.check();
                yield_now().await;
            }
            if self.tasks.lock().unwrap().left() == 1 {
                return;
            }
        }
        panic!("somebody waits for ever");
    }

    async fn end(mut self) {
        let world = self.world.clone();
        let memory = world.host.machine.memory;
        for index in 0..PAGES as u64 {
            world.disk.fail(Some(page(index)), 0, PageError::Io);
            world.disk.fail_stores(Some(page(index)), 0, PageError::Io);
        }
        world.host.swap.release_all();
        self.releases(0);
        self.settle().await;
        world.is_troubled.store(false, Relaxed);
        let spaces = std::mem::take(&mut *world.alive.lock().unwrap());
        for (cpu, space) in spaces.iter().cycle().take(2 * spaces.len()).enumerate() {
            for at in 0..ROOM {
                for word in 0..WORDS {
                    let call = Call::Access { at, word, access: Access::Read };
                    self.begins(cpu % CPUS, calls::make(world.clone(), space.clone(), call));
                    self.settle().await;
                }
            }
        }
        self.begins(0, calls::make(world.clone(), spaces[0].clone(), Call::Store { first: 0, pages: PAGES }));
        self.settle().await;
        for page in 0..PAGES {
            let words = world.model().in_file(page);
            assert!(words.is_none_or(|words| words == world.on_disk(page)), "page {page} was not stored");
        }
        drop(spaces);
        self.begins(0, async move { memory.settle().await });
        self.settle().await;
        assert_eq!((world.file.stats().mappings, world.other.stats().mappings), (0, 0));
        let (host, before) = (world.host.clone(), world.before);
        drop(world);
        let Self { world, cpus, tasks, .. } = self;
        let world = Arc::into_inner(world).expect("nobody is left");
        cpus[0].does(move || drop(world));
        for cpu in cpus {
            let machine = host.machine;
            cpu.does(move || machine.forget_translations());
            cpu.end().await;
        }
        memory.settle().await;
        drop(tasks);
        let (after, swap) = (memory.frames().stats(), memory.swap_stats().unwrap());
        assert_eq!(
            (after.free, after.quarantined, after.waiting),
            (before.free, 0, 0),
            "frames are left over"
        );
        assert_eq!((after.clean, after.dirty, after.anonymous), (0, 0, 0), "pages are left over");
        assert_eq!((swap.used_slots, swap.writing), (0, 0), "slots are left over");
    }
}

/// One machine until a test fails, and one test at a time: who waits for all CPUs wakes others that do.
static HOST: Mutex<Option<Host>> = Mutex::new(None);

fn play(is_overlay: bool, program: Vec<(usize, Step)>) {
    let mut free = HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let host = free.take().unwrap_or_else(Host::new);
    block_on_cpus(CPUS as u32 + 1, async {
        let mut play = Play::new(host.clone(), is_overlay).await;
        for (cpu, step) in program {
            play.step(cpu, step);
            play.world.check();
            // The CPU that conducts never stands in anybody's way.
            yield_now().await;
        }
        play.end().await;
    });
    *free = Some(host);
}

proptest! {
    #![proptest_config(common::seed::config(100))]

    #[test]
    fn each_cpu_sees_what_the_model_says_while_everything_changes(
        is_overlay in prop::bool::weighted(0.3),
        program in program(),
    ) {
        play(is_overlay, program);
    }
}
