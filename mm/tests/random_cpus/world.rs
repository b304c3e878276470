//! The machine, its memory and disks, and single accesses by its CPUs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executor::current_cpu;
use mm::{
    Access, AddressSpace, Denial, FaultOutcome, FrameStats, ManualObject, PageState, PhysAddr, Placement,
    SharedMemory, TestPager, TestStore, VmObject,
};

use crate::common::shown::RW;
use crate::common::tasks::block_on;
use crate::common::{Machine, PAGE, address, page};
use crate::model::{GIVEN, Model, PAGES, Place, SHARED, Shows, WORDS, Words};

pub(crate) const BASE: u64 = 0x40_0000;
const FRAMES: usize = 300;
const SLOTS: u64 = 200;

/// A machine with swap, which serves one program after the other: its memory is never freed.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) machine: &'static Machine,
    pub(crate) swap: Arc<TestStore>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let machine = Machine::with_cpus(FRAMES);
        let swap = TestStore::new(SLOTS);
        machine.memory.swap_on(swap.clone()).expect("there is memory for slots");
        // The page of zeros stays.
        let warm = machine.user_space();
        warm.map_anonymous(1, RW, placed(0)).unwrap();
        assert_eq!(block_on(async move { machine.read(&warm, BASE).await }), Ok(0));
        block_on(machine.memory.settle());
        machine.forget_translations();
        Self { machine, swap }
    }
}

/// A space, and its number in the model.
#[derive(Clone)]
pub(crate) struct Space {
    pub(crate) number: usize,
    pub(crate) space: Arc<AddressSpace>,
}

pub(crate) struct World {
    pub(crate) host: Host,
    model: Mutex<Model>,
    pub(crate) disk: Arc<TestPager>,
    pub(crate) file: Arc<VmObject>,
    pub(crate) other: Arc<VmObject>,
    pub(crate) shared: SharedMemory,
    pub(crate) given: Arc<ManualObject>,
    pub(crate) alive: Mutex<Vec<Space>>,
    /// The tables of all spaces that there were, the latest last: a root is used again.
    roots: Mutex<Vec<(PhysAddr, usize)>>,
    /// Loads may have been made to fail.
    pub(crate) is_troubled: AtomicBool,
    value: AtomicU64,
    pub(crate) before: FrameStats,
}

/// Where a page of a space is.
pub(crate) fn at(page: usize) -> u64 {
    BASE + page as u64 * PAGE
}

pub(crate) fn placed(page: usize) -> Placement {
    Placement::Fixed(address(at(page)))
}

impl World {
    pub(crate) fn new(host: Host, is_overlay: bool) -> Arc<Self> {
        let machine = host.machine;
        let before = machine.memory.frames().stats();
        let disk = machine.pager();
        let file = VmObject::new(machine.memory, disk.clone(), PAGES as u64);
        let file = if is_overlay { VmObject::overlay(file) } else { file };
        let space = Space { number: 0, space: machine.user_space() };
        let world = Self {
            model: Mutex::new(Model::new(is_overlay)),
            file,
            other: VmObject::new(machine.memory, machine.pager(), PAGES as u64),
            shared: SharedMemory::try_new(machine.memory, SHARED as u64).unwrap(),
            given: ManualObject::try_contiguous(machine.memory, GIVEN, 1).unwrap(),
            disk,
            host,
            alive: Mutex::default(),
            roots: Mutex::default(),
            is_troubled: AtomicBool::new(false),
            value: AtomicU64::new(1_000_000),
            before,
        };
        world.adds(space);
        Arc::new(world)
    }

    /// Whether a page of the file has changes.
    pub(crate) fn is_dirty(&self, index: usize) -> bool {
        let state = self.file.state(page(index as u64));
        matches!(state, PageState::Dirty { .. } | PageState::WritingBack { .. })
    }

    /// There is a space more.
    pub(crate) fn adds(&self, space: Space) {
        self.roots.lock().unwrap().push((space.space.root(), space.number));
        self.alive.lock().unwrap().push(space);
    }

    /// No CPU remembers anything that it should not, and what it would read is what the model says. What is not dirty is what
    /// the disk has.
    pub(crate) fn check(&self) {
        for index in 0..PAGES {
            if !self.is_dirty(index)
                && let Some(words) = self.model().in_file(index)
            {
                assert_eq!(
                    words,
                    self.on_disk(index),
                    "page {index} is clean, and was never stored as it is"
                );
            }
        }
        let (machine, model, roots) = (self.host.machine, self.model(), self.roots.lock().unwrap());
        for known in machine.remembered() {
            if let Some(&(_, space)) = roots.iter().rfind(|(root, _)| *root == known.root) {
                let place = Place { cpu: known.cpu, space, at: ((known.at - BASE) / PAGE) as usize };
                let words = std::array::from_fn(|word| machine.word_of(&known, word as u64));
                model.remembers(place, known.may_write, words);
            }
        }
    }

    /// Also after a panic, which is what is to be told.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A word that was never written.
    pub(crate) fn value(&self) -> u64 {
        self.value.fetch_add(1, Relaxed)
    }

    /// What the disk has of a page of the file.
    pub(crate) fn on_disk(&self, page: usize) -> Words {
        words(&self.disk.backing(crate::common::page(page as u64)))
    }

    /// One access by this CPU, compared with the model. False where it faults.
    fn attempt(&self, space: &Space, page: usize, word: usize, access: Access, value: u64) -> bool {
        let (machine, root) = (self.host.machine, space.space.root());
        let there = |word: usize| at(page) + word as u64 * 8;
        let place = Place { cpu: current_cpu(), space: space.number, at: page };
        let mut model = self.model();
        let try_it = || match access {
            Access::Write => machine.try_write(root, there(word), value).map(|()| value),
            _ => machine.try_read(root, there(word)),
        };
        if machine.remembers(root, there(word), access) {
            let value = try_it().expect("what is remembered does not fault");
            model.by_memory(place, word, access, value);
            return true;
        }
        let file = model.slot(space.number, page, access).ok().and_then(|slot| match slot.shows {
            Shows::File(of) => Some(of),
            _ => None,
        });
        if let Some(of) = file.filter(|&of| !model.is_sure(of)) {
            // What it is now, before it is changed: in the tables, and not by what the CPU remembers of another time.
            machine.forget_translations();
            model.forgets(current_cpu());
            let seen: Vec<u64> = (0..WORDS).map_while(|word| machine.try_read(root, there(word))).collect();
            let Ok(seen) = seen.try_into() else {
                model.faulted(place);
                return false;
            };
            model.learn(of, seen, self.on_disk(of));
        }
        let by_table = machine.remembers_table(root, there(0));
        let Some(value) = try_it() else {
            model.faulted(place);
            return false;
        };
        model.by_tables(place, word, access, value, Some(by_table));
        true
    }

    /// This CPU writes to one of the pages that it remembers the right to write to: no table is looked at, and none notes it.
    pub(crate) fn rewrite(&self, which: usize, word: usize) {
        let alive = self.alive.lock().unwrap().clone();
        let (cpu, mut known) = (current_cpu(), Vec::new());
        for page in self.host.machine.remembered() {
            let space = alive.iter().position(|space| space.space.root() == page.root);
            known.extend(space.filter(|_| page.cpu == cpu && page.may_write).map(|space| (space, page.at)));
        }
        known.sort_unstable();
        if let Some((space, there)) = known.get(which % known.len().max(1)) {
            let page = ((there - BASE) / PAGE) as usize;
            assert!(self.attempt(&alive[*space], page, word, Access::Write, self.value()));
        }
    }

    /// An access by a thread, whose faults are resolved.
    pub(crate) async fn access(&self, space: &Space, page: usize, word: usize, access: Access) {
        let value = self.value();
        let fault = self.host.machine.fault(at(page) + word as u64 * 8, access);
        for _ in 0..200 {
            if self.attempt(space, page, word, access, value) {
                return;
            }
            if let FaultOutcome::Denied(why) = space.space.resolve(fault).await {
                return self.denied(space, page, access, why);
            }
        }
        panic!("it faults for ever");
    }

    pub(crate) async fn copy_in(&self, space: &Space, page: usize) {
        let mut bytes = [0; WORDS * 8];
        if let Err(why) = space.space.copy_in(at(page), &mut bytes).await {
            return self.denied(space, page, Access::Read, why);
        }
        let (seen, mut model) = (words(&bytes), self.model());
        if let Ok(slot) = model.slot(space.number, page, Access::Read)
            && let Shows::File(of) = slot.shows
        {
            model.learn(of, seen, self.on_disk(of));
        }
        self.called(&mut model, space, page, Access::Read, seen);
    }

    pub(crate) async fn copy_out(&self, space: &Space, page: usize) {
        let values: Words = std::array::from_fn(|_| self.value());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if let Err(why) = space.space.copy_out(at(page), &bytes).await {
            return self.denied(space, page, Access::Write, why);
        }
        let mut model = self.model();
        if let Ok(slot) = model.slot(space.number, page, Access::Write)
            && let Shows::File(of) = slot.shows
        {
            model.overwrite(of);
        }
        self.called(&mut model, space, page, Access::Write, values);
    }

    /// What a thread has read or written by a call.
    fn called(&self, model: &mut Model, space: &Space, page: usize, access: Access, values: Words) {
        let place = Place { cpu: current_cpu(), space: space.number, at: page };
        for (word, value) in values.into_iter().enumerate() {
            model.by_tables(place, word, access, value, None);
        }
    }

    fn denied(&self, space: &Space, page: usize, access: Access, why: Denial) {
        if matches!(why, Denial::Io { .. }) && self.is_troubled.load(Relaxed) {
            return;
        }
        assert_eq!(self.model().slot(space.number, page, access).err(), Some(why), "page {page}");
    }
}

pub(crate) fn words(bytes: &[u8]) -> Words {
    std::array::from_fn(|word| u64::from_le_bytes(bytes[word * 8..][..8].try_into().unwrap()))
}
