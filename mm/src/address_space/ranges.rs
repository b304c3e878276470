//! Ranges that programs name: any numbers, until they are checked.

use core::ops::Range;

use super::AddressSpace;
use crate::address::PAGE_BYTES;
use crate::{MapError, VirtAddr};

impl AddressSpace {
    /// The pages that `bytes` bytes at `start` lie in, for the calls that take a range of pages. Any numbers may stand there.
    ///
    /// # Errors
    /// By name, the first that is true: `Unaligned` (the start), `Empty`, `WrapsAround`, `NonCanonical` (an address that no
    /// processor has; also the end, if the range goes across the gap between the halves), `OutOfRange`.
    pub fn range_of(&self, start: u64, bytes: u64) -> Result<Range<VirtAddr>, MapError> {
        if !start.is_multiple_of(PAGE_BYTES) {
            return Err(MapError::Unaligned);
        }
        if bytes == 0 {
            return Err(MapError::Empty);
        }
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES).ok_or(MapError::WrapsAround)?;
        let end = start.checked_add(bytes).ok_or(MapError::WrapsAround)?;
        let canonical = |address| VirtAddr::new(address).ok_or(MapError::NonCanonical);
        let range = canonical(start)?..canonical(end)?;
        if range.start < self.range.start || range.end > self.range.end {
            return Err(MapError::OutOfRange);
        }
        Ok(range)
    }
}
