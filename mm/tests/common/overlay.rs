//! A space that shows an overlay, and its base.

use std::ops::Range;
use std::sync::Arc;

use mm::{AddressSpace, Denial, PageIndex, PageState, Placement, TestPager, VmObject};

use super::shown::{BASE, PAGES, RW, at_base};
use super::{Machine, PAGE, address, page};

/// Where the base itself is mapped.
pub const BELOW: u64 = BASE + 0x10_0000;

pub struct Scene {
    pub machine: &'static Machine,
    pub pager: Arc<TestPager>,
    pub base: Arc<VmObject>,
    pub overlay: Arc<VmObject>,
    pub space: Arc<AddressSpace>,
    /// Free frames when there were the tables and nothing else.
    pub free: usize,
}

impl Scene {
    /// A space that shows an overlay at `BASE` and its base at `BELOW`.
    pub async fn new() -> Self {
        let machine = Machine::with_cpus(200);
        let space = machine.user_space();
        let tables = VmObject::zero(machine.memory, 1);
        let beside = BASE + 2 * PAGES * PAGE;
        space.map(&tables, page(0), 1, RW, Placement::Fixed(address(beside))).unwrap();
        machine.write(&space, beside, 0).await.unwrap();
        let pager = machine.pager();
        let base = VmObject::new(machine.memory, pager.clone(), PAGES);
        let overlay = VmObject::overlay(base.clone());
        let free = machine.free();
        space.map(&overlay, page(0), PAGES, RW, at_base()).unwrap();
        space.map(&base, page(0), PAGES, RW, Placement::Fixed(address(BELOW))).unwrap();
        Self { machine, pager, base, overlay, space, free }
    }

    pub async fn read(&self, at: u64) -> Result<u64, Denial> {
        self.machine.read(&self.space, at).await
    }

    pub async fn write(&self, at: u64, value: u64) {
        self.machine.write(&self.space, at, value).await.unwrap();
    }

    /// What the pages are: the overlay's, then the base's.
    pub fn states(&self) -> (PageState, PageState) {
        (self.overlay.state(page(0)), self.base.state(page(0)))
    }

    pub fn all(&self) -> Range<PageIndex> {
        page(0)..page(PAGES)
    }

    /// The first word of a page in the backing store.
    pub fn stored(&self, index: u64) -> u64 {
        u64::from_le_bytes(self.pager.backing(page(index))[..8].try_into().unwrap())
    }

    pub fn writable(&self, at: u64) -> Option<bool> {
        self.space.walk(address(at)).map(|walk| walk.protection.write)
    }
}
