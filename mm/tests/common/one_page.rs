//! One page in the state that a test wants.

use std::sync::Arc;

use mm::{
    AddressSpace, Denial, PageError, PageState, Placement, Protection, StoreError, TestPager, VirtAddr,
    VmObject,
};

use super::tasks::{Handle, Tasks, block_on};
use super::{Machine, page, range};

/// A page of a held-back pager, brought into a state.
pub struct Scene {
    pub machine: &'static Machine,
    pub pager: Arc<TestPager>,
    pub object: Arc<VmObject>,
    pub space: Arc<AddressSpace>,
    pub start: VirtAddr,
    pub tasks: Tasks,
    /// Who waits since the page is loading.
    pub waiter: Option<Handle<Result<u64, Denial>>>,
    /// Free frames before anything happened to the page.
    pub free: usize,
}

/// What a page looks like from outside, without frame numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Absent,
    Loading,
    Invalidated,
    Loaded,
    Dirty,
    /// Dirty, stored, and not written since.
    Stored,
    /// Dirty, stored, and written since.
    Rewritten,
    WritingBack,
    /// Still being stored, and nobody wants it any more.
    Discarded,
    Failed,
}
pub use Seen::*;

pub const PAGED: [Seen; 10] =
    [Absent, Loading, Invalidated, Loaded, Dirty, Stored, Rewritten, WritingBack, Discarded, Failed];

impl Scene {
    pub fn new(state: Seen) -> Self {
        let machine = Machine::with_cpus(200);
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), 1);
        Self::with(machine, pager, object).brought_to(state)
    }

    pub fn zero(state: Seen) -> Self {
        let machine = Machine::with_cpus(200);
        let object = VmObject::zero(machine.memory, 1);
        Self::with(machine, machine.pager(), object).brought_to(state)
    }

    fn with(machine: &'static Machine, pager: Arc<TestPager>, object: Arc<VmObject>) -> Self {
        pager.hold();
        let space = machine.window();
        // The tables exist before the frames are counted.
        let tables = VmObject::zero(machine.memory, 1);
        let start = space.map(&tables, page(0), 1, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let (faulting, all) = (space.clone(), range(start, 1));
        block_on(async move {
            machine.read(&faulting, start.as_u64()).await.unwrap();
            faulting.unmap(all).await.unwrap();
        });
        drop(tables);
        space.map(&object, page(0), 1, Protection::READ_WRITE, Placement::Fixed(start)).unwrap();
        let free = machine.free();
        Self { machine, pager, object, space, start, tasks: Tasks::default(), waiter: None, free }
    }

    fn brought_to(mut self, state: Seen) -> Self {
        match state {
            Absent => {}
            Loading => self.waiter = Some(self.read()),
            Invalidated => {
                self.waiter = Some(self.read());
                drop(self.object.invalidate(page(0)));
            }
            Loaded => {
                let reader = self.read();
                self.pager.release(page(0));
                self.tasks.run();
                assert!(reader.is_done());
            }
            Dirty => {
                let writer = self.write(7);
                self.pager.release(page(0));
                self.tasks.run();
                assert!(writer.is_done());
            }
            Stored => {
                self = self.brought_to(WritingBack);
                self.end_store();
            }
            Rewritten => {
                self = self.brought_to(Stored);
                assert!(self.write(7).is_done());
            }
            WritingBack => {
                self = self.brought_to(Dirty);
                drop(self.store());
            }
            Discarded => {
                self = self.brought_to(WritingBack);
                drop(self.object.discard(page(0)..page(1)));
            }
            Failed => {
                let reader = self.read();
                self.fail_load();
                assert!(matches!(reader.take(), Some(Err(Denial::Io { .. }))));
            }
        }
        assert_eq!(self.seen(), if matches!(state, Stored | Rewritten) { Dirty } else { state });
        self
    }

    /// What is known from outside; all dirty pages are `Dirty`.
    pub fn seen(&self) -> Seen {
        match self.object.state(page(0)) {
            PageState::Absent => Absent,
            PageState::Loading => Loading,
            PageState::LoadingInvalidated => Invalidated,
            PageState::Loaded { .. } => Loaded,
            PageState::Dirty { .. } => Dirty,
            PageState::WritingBack { .. } => WritingBack,
            PageState::WritingBackDiscarded { .. } => Discarded,
            PageState::Failed => Failed,
            PageState::Swapped { .. } | PageState::SwappingOut { .. } | PageState::SwappingIn { .. } => {
                panic!("only private memory is swapped")
            }
        }
    }

    pub fn read(&mut self) -> Handle<Result<u64, Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64());
        let handle = self.tasks.spawn(async move { machine.read(&space, at).await });
        self.tasks.run();
        handle
    }

    pub fn write(&mut self, value: u64) -> Handle<Result<(), Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64());
        let handle = self.tasks.spawn(async move { machine.write(&space, at, value).await });
        self.tasks.run();
        handle
    }

    pub fn end_load(&mut self) {
        assert!(self.pager.release(page(0)), "a load is under way");
        self.tasks.run();
    }

    pub fn fail_load(&mut self) {
        self.pager.fail(None, 1, PageError::Io);
        self.end_load();
    }

    pub fn store(&mut self) -> Handle<Result<(), StoreError>> {
        let object = self.object.clone();
        let handle = self.tasks.spawn(async move { object.store(page(0)..page(1)).await });
        self.tasks.run();
        handle
    }

    pub fn mark(&mut self) -> usize {
        let object = self.object.clone();
        block_on(async move { object.mark(page(0)..page(1)).await })
    }

    pub fn end_store(&mut self) {
        assert!(self.pager.release_store(page(0)), "a store is under way");
        self.tasks.run();
    }

    pub fn fail_store(&mut self) {
        self.pager.fail_stores(None, 1, PageError::Io);
        self.end_store();
    }

    /// The first word of the page in the backing store.
    pub fn backing(&self) -> u64 {
        u64::from_le_bytes(self.pager.backing(page(0))[..8].try_into().unwrap())
    }

    /// What the page table allows: nothing, reading, writing.
    pub fn shown(&self) -> Option<bool> {
        self.space.walk(self.start).map(|walk| walk.protection.write)
    }
}
