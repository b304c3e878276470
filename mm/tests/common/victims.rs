//! Spaces that may be ended for memory, and a machine that has little of it.

use std::sync::{Arc, Mutex};

use executor::yield_now;
use mm::{AddressSpace, Denial, Marks, Placement, Protection, TestStore, Victims};

use super::{Machine, PAGE, address};

pub const BASE: u64 = 0x40_0000;
pub const RW: Protection = Protection::READ_WRITE.for_user();
pub const MARKS: Marks = Marks { reserve: 4, low: 10, high: 20 };

/// Spaces as a kernel knows them, by the threads that run in them.
#[derive(Default)]
pub struct Spaces {
    pub all: Mutex<Vec<Arc<AddressSpace>>>,
    pub ended: Mutex<Vec<(Arc<AddressSpace>, u64)>>,
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

pub struct Scene {
    pub machine: &'static Machine,
    pub spaces: &'static Spaces,
}

impl Scene {
    pub fn new(frames: usize) -> Self {
        let machine = Machine::with_table_frames(frames, 64);
        let spaces: &'static Spaces = Box::leak(Box::default());
        machine.memory.frames().set_marks(MARKS);
        machine.memory.set_victims(spaces);
        Self { machine, spaces }
    }

    /// The same with swap of so many slots.
    pub fn with_swap(frames: usize, slots: u64) -> (Self, Arc<TestStore>) {
        let (scene, store) = (Self::new(frames), TestStore::new(slots));
        scene.machine.memory.swap_on(store.clone()).unwrap();
        (scene, store)
    }

    pub fn ended(&self) -> Vec<Arc<AddressSpace>> {
        self.spaces.ended.lock().unwrap().iter().map(|(space, _)| space.clone()).collect()
    }

    /// A space with so many pages of zeros, none of which is there.
    pub fn space(&self, pages: u64) -> Arc<AddressSpace> {
        let space = self.machine.user_space();
        space.map_anonymous(pages, RW, Placement::Fixed(address(BASE))).unwrap();
        self.spaces.all.lock().unwrap().push(space.clone());
        space
    }

    /// Writes pages of a space, each with its number and a word of the writer's. Ends with the first that is denied.
    pub async fn write(
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

    pub async fn is_intact(&self, space: &Arc<AddressSpace>, pages: u64, word: u64) -> bool {
        for page in 0..pages {
            if self.machine.read(space, BASE + page * PAGE).await != Ok(word + page) {
                return false;
            }
        }
        true
    }
}

/// A space of 60 pages in swap, with so many slots, and two of 50 pages in memory.
pub async fn one_in_swap_and_two_in_memory(scene: &Scene) -> [Arc<AddressSpace>; 3] {
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
