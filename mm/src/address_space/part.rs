//! Parts of files that begin and end anywhere in a page, as the segments of programs do.

use alloc::sync::Arc;

use super::AddressSpace;
use crate::address::PAGE_BYTES;
use crate::backing::{Backing, check_pages};
use crate::mapping::Mapping;
use crate::private::{Base, PrivateObject};
use crate::{MapError, Placement, Protection, VirtAddr, VmObject};

impl AddressSpace {
    /// Maps `memory_bytes` bytes of private memory, of which the first `file_bytes` are those of `object` from byte `offset`
    /// on, and says where the first is. All else is zero: the bytes that follow, and what is beside them in the first
    /// and last page. Whole pages of the object are shown until they are written; one of which only a part is shown is
    /// copied at the first touch. Nothing is loaded, and nothing waits.
    ///
    /// At a fixed place the first byte is at that address, which lies in its page where `offset` lies in its own. Found
    /// places begin at a page with an unmapped one before it.
    ///
    /// # Errors
    /// `Empty` for no bytes of memory, `BeyondLimit` for more bytes of the file than of memory, `Unaligned` when the address
    /// and `offset` lie differently in their pages; `WrapsAround`, `OutOfRange`, `Overlap` (with the whole of the first and
    /// last page), `BeyondObject`, `NoSpace`, `NoMemory`. Nothing is mapped then.
    pub fn map_part(
        &self,
        object: &Arc<VmObject>,
        offset: u64,
        file_bytes: u64,
        memory_bytes: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        let before = offset % PAGE_BYTES;
        if memory_bytes == 0 {
            return Err(MapError::Empty);
        }
        if file_bytes > memory_bytes {
            return Err(MapError::BeyondLimit);
        }
        let pages = memory_bytes.checked_add(before).ok_or(MapError::WrapsAround)?.div_ceil(PAGE_BYTES);
        let from_file = if file_bytes > 0 { (before + file_bytes).div_ceil(PAGE_BYTES) } else { 0 };
        check_pages(object, offset / PAGE_BYTES, from_file)?;
        self.remove_forgotten();
        let mut mappings = self.mappings.lock();
        let start = match placement {
            Placement::Fixed(at) if at.page_offset() as u64 != before => return Err(MapError::Unaligned),
            Placement::Fixed(at) => {
                mappings.check_free(at.page_start(), pages)?;
                at.page_start()
            }
            Placement::Anywhere => mappings.find(pages)?,
        };
        let mut private = |base, at, pages, number| {
            let (object, version) = PrivateObject::try_new(self.memory, base, pages)?;
            let shows = (Backing::Private(object, version), 0);
            let id = self.memory.number_mapping();
            mappings.prepare(Mapping::new(id, (at, pages), shows, protection), number)
        };
        let bytes = before..before + file_bytes;
        let base = Base { object: object.clone(), first: offset / PAGE_BYTES, bytes };
        let file = (from_file > 0).then(|| private(Some(base), start, from_file, 1)).transpose()?;
        let rest = pages - from_file;
        let zeros = (rest > 0).then(|| private(None, start.page_add(from_file), rest, 2)).transpose()?;
        for mapping in [file, zeros].into_iter().flatten() {
            mapping.enter(&mut mappings, &self.table)?;
        }
        Ok(VirtAddr::truncated(start.as_u64() + before))
    }
}
