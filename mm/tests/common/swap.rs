//! A machine with a few frames and a swap disk.

use std::sync::Arc;

use mm::{AddressSpace, Denial, Placement, SwapStats, TestStore, reclaimer};

use super::shown::RW;
use super::tasks::{Handle, Tasks};
use super::{Machine, PAGE, address};

pub const BASE: u64 = 0x40_0000;

pub struct Swapping {
    pub machine: &'static Machine,
    pub store: Arc<TestStore>,
    pub tasks: Tasks,
    /// Free frames before anything was mapped.
    pub free: usize,
}

impl Swapping {
    /// So many frames and slots, and somebody who reclaims.
    pub fn new(frames: usize, slots: u64) -> Self {
        let mut scene = Self::without_reclaim(frames, slots);
        let machine = scene.machine;
        scene.tasks.spawn(async move { reclaimer(machine.memory).await });
        scene
    }

    pub fn without_reclaim(frames: usize, slots: u64) -> Self {
        let machine = Machine::new(frames);
        let store = TestStore::new(slots);
        machine.memory.swap_on(store.clone()).expect("there is memory for slots");
        let mut scene = Self { machine, store, tasks: Tasks::default(), free: 0 };
        // The page of zeros stays.
        let warm = machine.user_space();
        warm.map_anonymous(1, RW, Placement::Fixed(address(BASE))).unwrap();
        assert_eq!(scene.read(&warm, 0), Ok(0));
        drop(warm);
        scene.settle();
        scene.free = machine.free();
        scene
    }

    /// A space with so many pages of anonymous memory at `BASE`.
    pub fn space(&self, pages: u64) -> Arc<AddressSpace> {
        let space = self.machine.user_space();
        space.map_anonymous(pages, RW, Placement::Fixed(address(BASE))).unwrap();
        space
    }

    pub fn begin_read(&mut self, space: &Arc<AddressSpace>, page: u64) -> Handle<Result<u64, Denial>> {
        let (machine, space) = (self.machine, space.clone());
        let handle = self.tasks.spawn(async move { machine.read(&space, BASE + page * PAGE).await });
        self.tasks.run();
        handle
    }

    pub fn begin_write(
        &mut self,
        space: &Arc<AddressSpace>,
        page: u64,
        value: u64,
    ) -> Handle<Result<(), Denial>> {
        let (machine, space) = (self.machine, space.clone());
        let handle = self.tasks.spawn(async move { machine.write(&space, BASE + page * PAGE, value).await });
        self.tasks.run();
        handle
    }

    pub fn read(&mut self, space: &Arc<AddressSpace>, page: u64) -> Result<u64, Denial> {
        self.begin_read(space, page).take().expect("nothing is held back")
    }

    pub fn write(&mut self, space: &Arc<AddressSpace>, page: u64, value: u64) -> Result<(), Denial> {
        self.begin_write(space, page, value).take().expect("nothing is held back")
    }

    /// The processor forgets what it has seen, so that it notes what is used from now on.
    pub fn swap_out(&mut self, target: usize) -> usize {
        self.machine.forget_translations();
        self.begin_swap_out(target).take().expect("nothing is held back")
    }

    pub fn begin_swap_out(&mut self, target: usize) -> Handle<usize> {
        let memory = self.machine.memory;
        let handle = self.tasks.spawn(async move { mm::swap_out(memory, target).await });
        self.tasks.run();
        handle
    }

    pub fn fork(&mut self, space: &Arc<AddressSpace>) -> Arc<AddressSpace> {
        let (machine, space) = (self.machine, space.clone());
        let handle = self.tasks.spawn(async move { space.fork(machine.empty_table()).await.unwrap() });
        self.tasks.run();
        handle.take().expect("no CPU is busy")
    }

    pub fn settle(&mut self) {
        let memory = self.machine.memory;
        self.tasks.spawn(async move { memory.settle().await });
        self.tasks.run();
    }

    pub fn stats(&self) -> SwapStats {
        self.machine.memory.swap_stats().expect("there is swap")
    }

    /// Nothing is left when all spaces are gone.
    pub fn assert_nothing_is_left(&mut self) {
        self.settle();
        let stats = self.stats();
        assert_eq!((stats.used_slots, stats.writing), (0, 0), "slots are left over");
        let numbers = self.machine.memory.frames().stats();
        assert_eq!((numbers.free, numbers.anonymous), (self.free, 0), "frames are left over");
    }
}
