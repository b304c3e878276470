//! A space that shows pages of an object, which another CPU may have seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::yield_now;
use mm::{AddressSpace, Frame, Placement, Protection, VmObject};

use super::cpus::Busy;
use super::{Machine, PAGE, address, content, page, range};

pub const BASE: u64 = 0x40_0000;
pub const PAGES: u64 = 4;
pub const RW: Protection = Protection::READ_WRITE.for_user();
pub const JUNK: u8 = 0xde;
/// For what should come soon.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Scene {
    pub machine: &'static Machine,
    pub object: Arc<VmObject>,
    pub space: Arc<AddressSpace>,
    /// Free frames when nothing but the space, its tables and the page that keeps them was there.
    pub free: usize,
}

impl Scene {
    /// A space that shows an object's pages at `BASE`, with all tables.
    pub async fn new(make: impl FnOnce(&'static Machine) -> Arc<VmObject>) -> Self {
        let machine = Machine::with_cpus(100);
        let space = machine.user_space();
        // A page beside the others keeps the tables.
        let tables = VmObject::zero(machine.memory, 1);
        let beside = BASE + 2 * PAGES * PAGE;
        space.map(&tables, page(0), 1, RW, Placement::Fixed(address(beside))).unwrap();
        machine.write(&space, beside, 0).await.unwrap();
        let free = machine.free();
        let object = make(machine);
        space.map(&object, page(0), PAGES, RW, at_base()).unwrap();
        Self { machine, object, space, free }
    }

    /// Zero memory with a 7 in its first page.
    pub async fn zero() -> Self {
        let scene = Self::new(|machine| VmObject::zero(machine.memory, PAGES)).await;
        scene.machine.write(&scene.space, BASE, 7).await.unwrap();
        scene
    }

    /// A file whose first page was read.
    pub async fn file() -> Self {
        let scene = Self::new(|machine| VmObject::new(machine.memory, machine.pager(), PAGES)).await;
        assert_eq!(scene.machine.read(&scene.space, BASE).await, Ok(content(0)));
        scene
    }

    /// Another CPU remembers the first page.
    pub async fn seen_by_another(&self, value: u64) -> Busy {
        let busy = Busy::begin(self.machine).await;
        assert_eq!(busy.reads(self.space.root(), BASE), Some(value));
        busy
    }

    pub fn all(&self) -> std::ops::Range<mm::VirtAddr> {
        range(address(BASE), PAGES)
    }

    /// Uses all frames that are free for something else.
    pub fn use_free_frames(&self) -> Vec<Frame> {
        use_free_frames(self.machine, usize::MAX)
    }

    /// Mappings beside the one that keeps the tables.
    pub fn mappings(&self) -> usize {
        self.space.stats().mappings - 1
    }

    pub fn quarantined(&self) -> usize {
        self.machine.memory.frames().stats().quarantined
    }

    pub async fn until(&self, what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < PATIENCE, "it does not come");
            yield_now().await;
        }
    }
}

/// Takes up to `most` free frames and fills them with something else.
pub fn use_free_frames(machine: &Machine, most: usize) -> Vec<Frame> {
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).take(most).collect();
    taken.iter_mut().for_each(|frame| frame.as_bytes_mut().fill(JUNK));
    taken
}

pub fn at_base() -> Placement {
    Placement::Fixed(address(BASE))
}
