//! Random programs against a flat model: threads read and write through faults while mappings come and go,
//! pages are dropped, evicted and loaded, loads fail and complete in any order, threads are killed, and the
//! processor forgets what it likes.
//!
//! An access takes effect in the poll in which it ends, so that is when it is compared with the model.

mod common;

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use common::tasks::{Handle, Tasks};
use common::{Machine, PAGE, address, content, page};
use mm::{
    Access, AddressSpace, Advice, Denial, FrameStats, MapError, PageError, Placement, Protection, TestPager,
    VmObject, reclaim,
};
use proptest::prelude::*;

/// Pages of each object.
const PAGES: usize = 12;
/// Pages that each space has room for.
const ROOM: usize = 24;
const BASE: u64 = 0x40_0000;
/// Two files and lazy memory.
const OBJECTS: usize = 3;
const FILES: usize = 2;
const SPACES: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Map { space: usize, at: usize, object: usize, first: usize, pages: usize, write: bool },
    Unmap { space: usize, at: usize, pages: usize },
    Protect { space: usize, at: usize, pages: usize, rights: u8 },
    Touch { space: usize, at: usize, pages: usize, write: bool },
    Advise { space: usize, at: usize, pages: usize, advice: Advice },
    Remap { space: usize, at: usize, old: usize, pages: usize, to: usize },
    Read { space: usize, at: usize },
    Write { space: usize, at: usize, value: u64 },
    CopyIn { space: usize, at: usize },
    CopyOut { space: usize, at: usize, value: u64 },
    Hold { file: usize },
    Complete { file: usize, page: usize },
    CompleteAll { file: usize },
    Fail { file: usize, page: usize },
    Drop { object: usize, first: usize, pages: usize },
    Reclaim { pages: usize },
    Kill { thread: usize },
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let (space, at, pages) = (0..SPACES, 0..ROOM, 1..8usize);
    let (file, object, index) = (0..FILES, 0..OBJECTS, 0..PAGES);
    let advice = prop::sample::select(vec![Advice::Random, Advice::WillNeed, Advice::DoNotNeed]);
    prop_oneof![
        3 => (space.clone(), at.clone(), object.clone(), index.clone(), pages.clone(), any::<bool>()).prop_map(
            |(space, at, object, first, pages, write)| Step::Map { space, at, object, first, pages, write }
        ),
        2 => (space.clone(), at.clone(), pages.clone())
            .prop_map(|(space, at, pages)| Step::Unmap { space, at, pages }),
        2 => (space.clone(), at.clone(), pages.clone(), 0..4u8)
            .prop_map(|(space, at, pages, rights)| Step::Protect { space, at, pages, rights }),
        1 => (space.clone(), at.clone(), pages.clone(), any::<bool>())
            .prop_map(|(space, at, pages, write)| Step::Touch { space, at, pages, write }),
        2 => (space.clone(), at.clone(), pages.clone(), advice)
            .prop_map(|(space, at, pages, advice)| Step::Advise { space, at, pages, advice }),
        2 => (space.clone(), at.clone(), pages.clone(), pages.clone(), at.clone())
            .prop_map(|(space, at, old, pages, to)| Step::Remap { space, at, old, pages, to }),
        8 => (space.clone(), at.clone()).prop_map(|(space, at)| Step::Read { space, at }),
        8 => (space.clone(), at.clone(), any::<u64>())
            .prop_map(|(space, at, value)| Step::Write { space, at, value }),
        2 => (space.clone(), at.clone()).prop_map(|(space, at)| Step::CopyIn { space, at }),
        2 => (space, at, any::<u64>()).prop_map(|(space, at, value)| Step::CopyOut { space, at, value }),
        1 => file.clone().prop_map(|file| Step::Hold { file }),
        6 => (file.clone(), index.clone()).prop_map(|(file, page)| Step::Complete { file, page }),
        1 => file.clone().prop_map(|file| Step::CompleteAll { file }),
        1 => (file, index.clone()).prop_map(|(file, page)| Step::Fail { file, page }),
        3 => (object, index, pages).prop_map(|(object, first, pages)| Step::Drop { object, first, pages }),
        3 => (1..20usize).prop_map(|pages| Step::Reclaim { pages }),
        1 => (0..64usize).prop_map(|thread| Step::Kill { thread }),
        1 => Just(Step::Forget),
    ]
}

/// What one page of a space shows.
#[derive(Clone, Copy)]
struct Shown {
    object: usize,
    page: usize,
    protection: Protection,
}

/// What the machine should look like to a program.
struct Model {
    spaces: [[Option<Shown>; ROOM]; SPACES],
    objects: [[u64; PAGES]; OBJECTS],
}

fn original(object: usize, page: usize) -> u64 {
    if object < FILES { content(page as u64) } else { 0 }
}

impl Model {
    fn new() -> Self {
        let objects = std::array::from_fn(|object| std::array::from_fn(|page| original(object, page)));
        Self { spaces: [[None; ROOM]; SPACES], objects }
    }

    /// The word that an access reaches, or why it should be denied.
    fn word(&mut self, space: usize, at: usize, access: Access) -> Result<&mut u64, Denial> {
        let shown = self.spaces[space][at].ok_or(Denial::NoMapping)?;
        if !shown.protection.allows(access) {
            return Err(Denial::Protection(access));
        }
        Ok(&mut self.objects[shown.object][shown.page])
    }

    /// Moves what a space shows to another place, longer or shorter; or says why not.
    fn remap(&mut self, space: usize, from: Range<usize>, to: Range<usize>) -> Result<(), MapError> {
        let slots = &mut self.spaces[space];
        let moved: Vec<Shown> =
            slots[from.clone()].iter().copied().collect::<Option<_>>().ok_or(MapError::NotMapped)?;
        let new = if from.start == to.start { from.end.min(to.end)..to.end } else { to.clone() };
        if slots[new].iter().any(Option::is_some) {
            return Err(MapError::Overlap);
        }
        let last = moved[moved.len() - 1];
        let more = to.len().saturating_sub(moved.len());
        if last.page + 1 + more > PAGES && more > 0 {
            return Err(MapError::BeyondObject);
        }
        slots[from].fill(None);
        let longer = (1..=more).map(|offset| Shown { page: last.page + offset, ..last });
        for (slot, shown) in slots[to].iter_mut().zip(moved.into_iter().chain(longer)) {
            *slot = Some(shown);
        }
        Ok(())
    }

    /// Compares what a thread was told at the moment at which it was told.
    fn check<T>(
        &mut self,
        (space, at): (usize, usize),
        access: Access,
        told: Result<T, Denial>,
        use_word: impl FnOnce(&mut u64, T),
    ) {
        match (self.word(space, at, access), told) {
            // A device's error tells nothing about the mapping, which may be gone since.
            (_, Err(Denial::Io { error: PageError::Io, .. })) => {}
            (Ok(word), Ok(value)) => use_word(word, value),
            (Err(expected), Err(denied)) => assert_eq!(expected, denied),
            (expected, told) => panic!("expected {expected:?}, told {:?}", told.map(drop)),
        }
    }
}

struct World {
    machine: &'static Machine,
    model: Arc<Mutex<Model>>,
    pagers: Vec<Arc<TestPager>>,
    objects: Vec<Arc<VmObject>>,
    spaces: Vec<Arc<AddressSpace>>,
    tasks: Tasks,
    threads: Vec<Handle<()>>,
    random: u64,
}

fn rights(bits: u8) -> Protection {
    Protection { read: bits & 1 != 0, write: bits == 3, execute: false, user: true }
}

impl World {
    fn new(machine: &'static Machine, seed: u64) -> Self {
        let pagers: Vec<_> = (0..FILES).map(|_| machine.pager()).collect();
        let mut objects: Vec<_> =
            pagers.iter().map(|pager| VmObject::new(machine.memory, pager.clone(), PAGES as u64)).collect();
        objects.push(VmObject::zero(machine.memory, PAGES as u64));
        Self {
            machine,
            model: Arc::new(Mutex::new(Model::new())),
            pagers,
            objects,
            spaces: (0..SPACES).map(|_| machine.user_space()).collect(),
            tasks: Tasks::default(),
            threads: Vec::new(),
            random: seed | 1,
        }
    }

    /// Runs everything that can run, in a random order.
    fn run(&mut self) {
        loop {
            let random = &mut self.random;
            self.tasks.run_by(|woken| {
                *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                woken[(*random >> 33) as usize % woken.len()]
            });
            // Loads that wait for memory are tasks of the executor.
            if !executor::poll_one() {
                return;
            }
        }
    }

    fn range(at: usize, pages: usize) -> std::ops::Range<mm::VirtAddr> {
        common::range(address(BASE + at as u64 * PAGE), pages as u64)
    }

    fn step(&mut self, step: Step) {
        let machine = self.machine;
        let model = self.model.clone();
        match step {
            Step::Map { space, at, object, first, pages, write } => {
                let fits = at + pages <= ROOM;
                let pages = if fits { pages } else { ROOM - at };
                let protection = if write { rights(3) } else { rights(1) };
                let there = Placement::Fixed(address(BASE + at as u64 * PAGE));
                let told = self.spaces[space].map(
                    &self.objects[object],
                    page(first as u64),
                    pages as u64,
                    protection,
                    there,
                );
                let mut model = model.lock().unwrap();
                let slots = &mut model.spaces[space][at..at + pages];
                if slots.iter().any(Option::is_some) {
                    assert_eq!(told, Err(MapError::Overlap));
                } else if first + pages > PAGES {
                    assert_eq!(told, Err(MapError::BeyondObject));
                } else {
                    assert_eq!(told, Ok(address(BASE + at as u64 * PAGE)));
                    for (offset, slot) in slots.iter_mut().enumerate() {
                        *slot = Some(Shown { object, page: first + offset, protection });
                    }
                }
            }
            Step::Unmap { space, at, pages } => {
                let pages = pages.min(ROOM - at);
                let target = self.spaces[space].clone();
                let told = common::tasks::block_on(async move { target.unmap(Self::range(at, pages)).await });
                assert_eq!(told, Ok(()));
                model.lock().unwrap().spaces[space][at..at + pages].fill(None);
            }
            Step::Protect { space, at, pages, rights: bits } => {
                let (pages, protection) = (pages.min(ROOM - at), rights(bits));
                let target = self.spaces[space].clone();
                let told = common::tasks::block_on(async move {
                    target.protect(Self::range(at, pages), protection).await
                });
                let mut model = model.lock().unwrap();
                let slots = &mut model.spaces[space][at..at + pages];
                if slots.iter().any(Option::is_none) {
                    assert_eq!(told, Err(MapError::NotMapped));
                } else {
                    assert_eq!(told, Ok(()));
                    slots.iter_mut().flatten().for_each(|shown| shown.protection = protection);
                }
            }
            // These two change no byte, and end in any way that others of their time do.
            Step::Touch { space, at, pages, write } => {
                let target = self.spaces[space].clone();
                let access = if write { Access::Write } else { Access::Read };
                self.threads.push(self.tasks.spawn(async move {
                    let _ = target.touch(Self::range(at, pages.min(ROOM - at)), access, None).await;
                }));
            }
            Step::Advise { space, at, pages, advice } => {
                let target = self.spaces[space].clone();
                self.threads.push(self.tasks.spawn(async move {
                    let _ = target.advise(Self::range(at, pages.min(ROOM - at)), advice).await;
                }));
            }
            Step::Remap { space, at, old, pages, to } => {
                let (old, pages) = (old.min(ROOM - at), pages.min(ROOM - to));
                let target = self.spaces[space].clone();
                let there = Placement::Fixed(address(BASE + to as u64 * PAGE));
                let told = common::tasks::block_on(async move {
                    target.remap(Self::range(at, old), pages as u64, there).await
                });
                let expected = model.lock().unwrap().remap(space, at..at + old, to..to + pages);
                assert_eq!(told.map(drop), expected);
            }
            Step::Read { space, at } => {
                let target = self.spaces[space].clone();
                self.threads.push(self.tasks.spawn(async move {
                    let told = machine.read(&target, BASE + at as u64 * PAGE).await;
                    let mut model = model.lock().unwrap();
                    model.check((space, at), Access::Read, told, |word, value| assert_eq!(*word, value));
                }));
            }
            Step::Write { space, at, value } => {
                let target = self.spaces[space].clone();
                self.threads.push(self.tasks.spawn(async move {
                    let told = machine.write(&target, BASE + at as u64 * PAGE, value).await;
                    model.lock().unwrap().check((space, at), Access::Write, told, |word, ()| *word = value);
                }));
            }
            Step::CopyIn { space, at } => {
                let target = self.spaces[space].clone();
                self.threads.push(self.tasks.spawn(async move {
                    let mut bytes = [0; 8];
                    let told = target.copy_in(BASE + at as u64 * PAGE, &mut bytes).await;
                    let mut model = model.lock().unwrap();
                    model.check((space, at), Access::Read, told, |word, ()| {
                        assert_eq!(*word, u64::from_le_bytes(bytes));
                    });
                }));
            }
            Step::CopyOut { space, at, value } => {
                let target = self.spaces[space].clone();
                self.threads.push(self.tasks.spawn(async move {
                    let told = target.copy_out(BASE + at as u64 * PAGE, &value.to_le_bytes()).await;
                    model.lock().unwrap().check((space, at), Access::Write, told, |word, ()| *word = value);
                }));
            }
            Step::Hold { file } => self.pagers[file].hold(),
            Step::Complete { file, page: index } => drop(self.pagers[file].release(page(index as u64))),
            Step::CompleteAll { file } => {
                let pager = self.pagers[file].clone();
                drop(self.tasks.spawn(async move { pager.release_all().await }));
            }
            Step::Fail { file, page: index } => {
                self.pagers[file].fail(Some(page(index as u64)), 1, PageError::Io);
            }
            Step::Drop { object, first, pages } => {
                let end = (first + pages).min(PAGES);
                drop(self.objects[object].release(page(first as u64)..page(end as u64)));
                for index in first..end {
                    model.lock().unwrap().objects[object][index] = original(object, index);
                }
            }
            Step::Reclaim { pages } => drop(self.tasks.spawn(reclaim(machine.memory, pages))),
            Step::Kill { thread } => {
                if let Some(thread) = self.threads.get(thread) {
                    self.tasks.kill(thread);
                }
            }
            Step::Forget => machine.forget_translations(),
        }
    }

    /// Lets everything come to its end: every load completes, memory is freed, and nobody may still wait.
    fn end(mut self) {
        for round in 0.. {
            for file in 0..FILES {
                self.step(Step::CompleteAll { file });
            }
            self.run();
            if self.tasks.all_done() {
                break;
            }
            assert!(round < 500, "somebody waits for ever");
            // Memory is full of dirty pages: they go.
            for object in 0..OBJECTS {
                self.step(Step::Drop { object, first: 0, pages: PAGES });
            }
            self.run();
        }
    }
}

thread_local! {
    /// Arenas are never freed, so one is used until a test fails.
    static MACHINE: Cell<Option<&'static Machine>> = const { Cell::new(None) };
}

fn play(program: Vec<Step>, seed: u64, frames: usize) {
    let machine = MACHINE.take().unwrap_or_else(|| Machine::new(120));
    // Some memory is somebody else's.
    let held: Vec<_> = (0..machine.free().saturating_sub(frames))
        .map(|_| machine.memory.frames().try_alloc().unwrap())
        .collect();
    let before: FrameStats = machine.memory.frames().stats();
    let mut world = World::new(machine, seed);
    for step in program {
        world.step(step);
        world.run();
    }
    world.end();
    let after = machine.memory.frames().stats();
    assert_eq!(
        (after.free, after.clean, after.waiting),
        (before.free, before.clean, 0),
        "frames were leaked, or somebody is counted who does not wait"
    );
    drop(held);
    machine.forget_translations();
    MACHINE.set(Some(machine));
}

proptest! {
    #![proptest_config(common::seed::config(150))]

    #[test]
    fn random_programs_see_what_the_model_says(
        program in prop::collection::vec(step(), 1..200),
        seed in any::<u64>(),
    ) {
        play(program, seed, 120);
    }

    #[test]
    fn the_same_with_hardly_any_memory(
        program in prop::collection::vec(step(), 1..200),
        seed in any::<u64>(),
        frames in 12..30usize,
    ) {
        play(program, seed, frames);
    }
}
