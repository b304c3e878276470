//! Mapping: what an address space shows from now on. Nothing is loaded or made: pages come by faults.

use alloc::sync::Arc;

use super::AddressSpace;
use crate::backing::{Backing, check_pages};
use crate::mapping::Mapping;
use crate::private::{Base, PrivateObject};
use crate::{MapError, PageIndex, Placement, Protection, SharedMemory, VirtAddr, VmObject};

impl AddressSpace {
    /// Maps `pages` pages of `object` from `first` on, and says where. Changes are the object's, and seen by all who
    /// map it; a fork shows the same object. Never waits.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `Overlap`, `BeyondObject`, `NoSpace`, `NoMemory`; nothing
    /// is mapped then.
    pub fn map(
        &self,
        object: &Arc<VmObject>,
        first: PageIndex,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        self.enter(Backing::Shared(object.clone()), first.as_u64(), pages, protection, placement)
    }

    /// The same, but changes are this space's own: a page that is written is copied first, and the object never sees
    /// it. A fork shows what was changed so far, and each side goes on for itself. Never waits.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn map_private(
        &self,
        object: &Arc<VmObject>,
        first: PageIndex,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        check_pages(object, first.as_u64(), pages)?;
        let base = Base::whole(object.clone(), first.as_u64());
        self.enter_private(Some(base), pages, protection, placement)
    }

    /// Maps `pages` pages of memory that is zero until it is written, and private as above. Never waits.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `Overlap`, `NoSpace`, `NoMemory`; nothing is mapped then.
    pub fn map_anonymous(
        &self,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        self.enter_private(None, pages, protection, placement)
    }

    /// Maps `pages` pages of memory that is shared, from `first` on. Changes are seen by all who map it; a fork shows the
    /// same. It has no pages of 2 MiB. Never waits.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn map_shared(
        &self,
        memory: &SharedMemory,
        first: PageIndex,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        let (object, version) = memory.shown();
        self.enter(Backing::Private(object, version), first.as_u64(), pages, protection, placement)
    }

    fn enter_private(
        &self,
        base: Option<Base>,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        let (object, version) = PrivateObject::try_new(self.memory, base, pages)?;
        self.enter(Backing::Private(object, version), 0, pages, protection, placement)
    }

    pub(super) fn enter(
        &self,
        shows: Backing,
        first: u64,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        if pages == 0 {
            return Err(MapError::Empty);
        }
        self.remove_forgotten();
        let mut mappings = self.mappings.lock();
        let start = match placement {
            Placement::Fixed(start) => {
                mappings.check_free(start, pages)?;
                start
            }
            Placement::Anywhere => mappings.find(pages)?,
        };
        let id = self.memory.number_mapping();
        let mapping = Mapping::new(id, (start, pages), (shows, first), protection);
        mappings.prepare(mapping, 1)?.enter(&mut mappings, &self.table)?;
        Ok(start)
    }
}
