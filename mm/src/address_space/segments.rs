//! What the tables of a space show beside its mappings: devices' registers, framebuffers, stacks that are there for good.

use core::fmt;
use core::ops::Range;

use super::AddressSpace;
use crate::{MapError, MemoryType, PhysAddr, Protection, VirtAddr};

impl AddressSpace {
    /// Shows physical memory, for good, in a range of the space's half that lies beside the range of its mappings. As
    /// [`PageTable::map_segment`](crate::PageTable::map_segment) and then
    /// [`PageTable::make_permanent`](crate::PageTable::make_permanent). Not from interrupt handlers.
    ///
    /// # Errors
    /// As there; `Overlap` also if the range reaches into that of the mappings.
    pub fn map_for_good(
        &self,
        range: Range<VirtAddr>,
        physical: PhysAddr,
        protection: Protection,
        memory_type: MemoryType,
    ) -> Result<(), MapError> {
        if range.start < self.range.end && self.range.start < range.end {
            return Err(MapError::Overlap);
        }
        let mut tables = self.table.tables.lock();
        tables.map_segment(range.clone(), physical, protection, memory_type)?;
        tables.make_permanent(range)
    }

    /// Writes what the page tables show, a line for each run of pages that are alike. For reports: the tables are locked
    /// meanwhile. Not from interrupt handlers.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_tables(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        write!(to, "{}", *self.table.tables.lock())
    }
}
