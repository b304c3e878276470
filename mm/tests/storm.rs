//! Real threads at once: faults against unmapping, protecting, dropping and eviction. What they do is the
//! same in every run, how it meets is not; the models of the small protocols are elsewhere.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Machine, PAGE, address, content, page, range};
use executor::host::block_on;
use mm::{AddressSpace, Denial, Placement, Protection, VmObject, reclaim};

const PAGES: u64 = 16;
const BASE: u64 = 0x40_0000;
const ROUNDS: u64 = 6000;
const RW: Protection = Protection::READ_WRITE.for_user();

struct Storm {
    machine: &'static Machine,
    /// Clean pages of a pager, at `BASE`; lazy memory after it.
    file: Arc<VmObject>,
    lazy: Arc<VmObject>,
    space: Arc<AddressSpace>,
    over: AtomicBool,
}

impl Storm {
    fn new() -> (Self, usize) {
        let machine = Machine::new(200);
        let free = machine.free();
        let file = VmObject::new(machine.memory, machine.pager(), PAGES);
        let lazy = VmObject::zero(machine.memory, PAGES);
        let space = machine.user_space();
        let storm = Self { machine, file, lazy, space, over: AtomicBool::new(false) };
        storm.map_file();
        let after = Placement::Fixed(address(BASE + PAGES * PAGE));
        storm.space.map(&storm.lazy, page(0), PAGES, RW, after).unwrap();
        (storm, free)
    }

    fn map_file(&self) {
        self.space.map(&self.file, page(0), PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    }

    /// Reads file pages, which must be there or not be mapped.
    fn read_file(&self, seed: u64) {
        for round in 0..ROUNDS {
            let index = (round * seed) % PAGES;
            match block_on(self.machine.read(&self.space, BASE + index * PAGE)) {
                Ok(value) => assert_eq!(value, content(index)),
                Err(why) => assert!(matches!(why, Denial::NoMapping | Denial::Protection(_)), "{why}"),
            }
        }
    }

    /// Counts in a page of its own, which must never forget.
    fn count_in_lazy(&self, index: u64) {
        let at = BASE + (PAGES + index) * PAGE;
        for round in 0..ROUNDS {
            assert_eq!(block_on(self.machine.read(&self.space, at)), Ok(round));
            assert_eq!(block_on(self.machine.write(&self.space, at, round + 1)), Ok(()));
        }
    }

    fn until_over(&self, mut stir: impl FnMut()) {
        while !self.over.load(Ordering::Relaxed) {
            stir();
            std::thread::yield_now();
        }
    }

    /// Runs the threads with something that stirs, and checks that nothing is left.
    fn run(self, free: usize, stir: impl Fn(&Self) + Sync) {
        std::thread::scope(|scope| {
            let stirring = scope.spawn(|| self.until_over(|| stir(&self)));
            let threads = [
                scope.spawn(|| self.read_file(7)),
                scope.spawn(|| self.read_file(1)),
                scope.spawn(|| self.count_in_lazy(3)),
            ];
            let results = threads.map(std::thread::ScopedJoinHandle::join);
            self.over.store(true, Ordering::Relaxed);
            stirring.join().unwrap();
            results.into_iter().for_each(|result| result.unwrap());
        });
        let machine = self.machine;
        drop(self);
        assert_eq!((machine.free(), machine.memory.frames().stats().clean), (free, 0));
    }
}

#[test]
fn unmapping_and_mapping_again_among_faults() {
    let (storm, free) = Storm::new();
    storm.run(free, |storm| {
        block_on(storm.space.unmap(range(address(BASE), PAGES))).unwrap();
        assert_eq!(storm.space.stats().mapped_pages, PAGES);
        // What is left in the tables now would be another mapping's.
        assert!((0..PAGES).all(|index| storm.space.walk(address(BASE + index * PAGE)).is_none()));
        storm.map_file();
    });
}

#[test]
fn protecting_among_faults() {
    let (storm, free) = Storm::new();
    storm.run(free, |storm| {
        let all = range(address(BASE), PAGES);
        block_on(storm.space.protect(all.clone(), Protection::default().for_user())).unwrap();
        assert!((0..PAGES).all(|index| storm.space.walk(address(BASE + index * PAGE)).is_none()));
        block_on(storm.space.protect(all, RW)).unwrap();
    });
}

#[test]
fn dropping_pages_among_faults() {
    let (storm, free) = Storm::new();
    storm.run(free, |storm| block_on(storm.file.release(page(0)..page(PAGES))));
}

#[test]
fn eviction_among_faults() {
    let (storm, free) = Storm::new();
    storm.run(free, |storm| {
        block_on(reclaim(storm.machine.memory, 5));
    });
}

#[test]
fn everything_among_faults() {
    let (storm, free) = Storm::new();
    let half = PAGES / 2;
    storm.run(free, |storm| {
        block_on(reclaim(storm.machine.memory, 3));
        block_on(storm.space.unmap(range(address(BASE + half * PAGE), half))).unwrap();
        block_on(storm.file.release(page(2)..page(half)));
        let upper = Placement::Fixed(address(BASE + half * PAGE));
        storm.space.map(&storm.file, page(half), half, Protection::READ.for_user(), upper).unwrap();
        block_on(storm.space.protect(range(address(BASE), PAGES), RW)).unwrap();
    });
}
