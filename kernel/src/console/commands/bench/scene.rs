//! A space of the benchmark's own, and what is mapped in it.

use alloc::{string::ToString, sync::Arc, vec::Vec};

use mm::{
    Access, AddressSpace, Advice, OutOfMemory, PageError, PageIndex, PageRequest, PageTable, Pager,
    Placement, Protection, VirtAddr, VmObject,
};

use super::super::super::CommandError;
use super::touches::{Touches, touch};
use crate::{arch::registers::time_stamp, memory};

/// Where the first mapping begins: with no table that another mapping would need.
const START: u64 = 1 << 40;
/// Addresses that a mapping begins after the one before it.
const APART: u64 = 1 << 39;

pub(super) struct Scene {
    space: Arc<AddressSpace>,
    mapped: u64,
}

pub(super) fn failed(why: impl ToString) -> CommandError {
    CommandError::Failed(why.to_string())
}

/// So many pages after an address.
pub(super) fn after(start: VirtAddr, pages: u64) -> VirtAddr {
    VirtAddr::truncated(start.as_u64() + pages * mm::PAGE_SIZE as u64)
}

impl Scene {
    pub(super) fn new() -> Result<Self, CommandError> {
        let space = memory::new_user_space().ok_or_else(|| failed(OutOfMemory))?;
        Ok(Self { space, mapped: 0 })
    }

    /// The space, for threads that run in it.
    pub(super) fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    /// Where the next mapping begins.
    fn next(&mut self) -> Placement {
        self.mapped += 1;
        Placement::Fixed(VirtAddr::truncated(START + self.mapped * APART))
    }

    /// Memory that is zero until it is written, and private, of small pages.
    pub(super) async fn anonymous(&mut self, pages: u64) -> Result<VirtAddr, CommandError> {
        let place = self.next();
        self.small_pages(pages, place).await
    }

    /// The same where large pages are wanted.
    pub(super) fn anonymous_large(&mut self, pages: u64) -> Result<VirtAddr, CommandError> {
        let place = self.next();
        self.space.map_anonymous(pages, Protection::READ_WRITE, place).map_err(failed)
    }

    async fn small_pages(&self, pages: u64, place: Placement) -> Result<VirtAddr, CommandError> {
        let start = self.space.map_anonymous(pages, Protection::READ_WRITE, place).map_err(failed)?;
        self.space.advise(start..after(start, pages), Advice::Random).await.map_err(failed)?;
        Ok(start)
    }

    /// The same at a place so many pages after another mapping.
    pub(super) async fn anonymous_at(
        &self,
        start: VirtAddr,
        distance: u64,
        pages: u64,
    ) -> Result<VirtAddr, CommandError> {
        self.small_pages(pages, Placement::Fixed(after(start, distance))).await
    }

    /// A whole object, shared.
    pub(super) fn shared(&mut self, object: &Arc<VmObject>) -> Result<VirtAddr, CommandError> {
        let place = self.next();
        let first = PageIndex::new(0);
        self.space.map(object, first, object.pages(), Protection::READ_WRITE, place).map_err(failed)
    }

    /// What it takes to touch pages one after the other.
    pub(super) async fn touch(
        &self,
        start: VirtAddr,
        pages: u64,
        access: Access,
    ) -> Result<Vec<u64>, CommandError> {
        touch(&self.space, Touches { start, pages: pages as usize, access }).await
    }

    /// What it takes to unmap pages.
    pub(super) async fn unmap(&self, start: VirtAddr, pages: u64) -> Result<u64, CommandError> {
        let before = time_stamp();
        self.space.unmap(start..after(start, pages)).await.map_err(failed)?;
        Ok(time_stamp() - before)
    }

    /// A second space like this one, and what it took, its root table included.
    pub(super) async fn fork(&self) -> Result<(u64, Arc<AddressSpace>), CommandError> {
        let before = time_stamp();
        let root = memory::kernel_space().root();
        let table = PageTable::new_user(memory::memory(), root).map_err(failed)?;
        let twin = self.space.fork(table).await.map_err(failed)?;
        Ok((time_stamp() - before, twin))
    }
}

/// A pager that answers at once, with what is in the frame.
pub(super) struct AtOnce;

impl Pager for AtOnce {
    fn name(&self) -> &str {
        "at once"
    }

    fn load(&self, mut request: PageRequest) {
        let result = match request.memory().frames().try_alloc() {
            Some(frame) => {
                request.attach(frame);
                Ok(())
            }
            None => Err(PageError::OutOfMemory),
        };
        request.complete(result);
    }
}
