//! Address spaces: what is mapped where, and what happens at a fault.

use alloc::sync::Arc;
use core::future::Future;
use core::ops::Range;

use crate::{
    Denial, Fault, FaultOutcome, MapError, Memory, PageIndex, PageTable, PhysAddr, Placement, Protection,
    VirtAddr, VmObject,
};

/// A range of addresses, the mappings in it, and the page tables that show them to the processor.
pub struct AddressSpace {}

/// Numbers of an address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Mappings.
    pub mappings: usize,
    /// Pages that all mappings span.
    pub mapped_pages: u64,
    /// Pages that the page tables show now.
    pub resident_pages: u64,
}

impl AddressSpace {
    /// An empty address space over `range`, which lies in one half and starts and ends at page boundaries.
    pub fn new(memory: &'static Memory, table: PageTable, range: Range<VirtAddr>) -> Arc<Self> {
        let _ = (memory, table, range);
        todo!()
    }

    /// Maps `pages` pages of `object` from `first` on, and says where.
    pub fn map(
        &self,
        object: &Arc<VmObject>,
        first: PageIndex,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        let _ = (object, first, pages, protection, placement);
        todo!()
    }

    /// Removes all mappings in `range`, or the parts of them that lie in it.
    pub async fn unmap(&self, range: Range<VirtAddr>) -> Result<(), MapError> {
        let _ = range;
        todo!()
    }

    /// Changes what may be done in `range`, all of which is mapped.
    pub async fn protect(&self, range: Range<VirtAddr>, protection: Protection) -> Result<(), MapError> {
        let _ = (range, protection);
        todo!()
    }

    /// Makes the touched page accessible, or says why not.
    pub fn resolve(&self, fault: Fault) -> impl Future<Output = FaultOutcome> + Send + use<'_> {
        let _ = fault;
        async move { todo!() }
    }

    /// Copies from this space into `to`, faulting pages in as needed.
    pub async fn copy_in(&self, from: u64, to: &mut [u8]) -> Result<(), Denial> {
        let _ = (from, to);
        todo!()
    }

    /// Copies `from` into this space.
    pub async fn copy_out(&self, to: u64, from: &[u8]) -> Result<(), Denial> {
        let _ = (to, from);
        todo!()
    }

    /// The address that goes into CR3.
    pub fn root(&self) -> PhysAddr {
        todo!()
    }

    /// The range that mappings may lie in.
    pub fn range(&self) -> Range<VirtAddr> {
        todo!()
    }

    /// The space's numbers now.
    pub fn stats(&self) -> SpaceStats {
        todo!()
    }
}
