//! The memory map as the boot loader gives it: unsorted, neighbours unmerged, ends anywhere.

use core::ops::Range;

use crate::address::PAGE_BYTES;

/// Merged usable memory, in whole frames and ascending order, without frame 0. It keeps no list, because
/// there is no heap yet when it is needed: each step looks at all regions again.
pub(crate) struct Merged<'a> {
    regions: &'a [Range<u64>],
    /// Everything below has been told.
    done: u64,
}

pub(crate) fn merged(regions: &[Range<u64>]) -> Merged<'_> {
    Merged { regions, done: 0 }
}

impl Merged<'_> {
    /// The next merged region in bytes.
    fn next_bytes(&mut self) -> Option<Range<u64>> {
        let rest = |from: u64| {
            self.regions
                .iter()
                .filter(move |region| region.end > from && region.end > region.start)
                .map(move |region| region.start.max(from)..region.end)
        };
        let first = rest(self.done).min_by_key(|region| region.start)?;
        let mut end = first.end;
        while let Some(longer) = rest(end).filter(|region| region.start <= end).map(|r| r.end).max() {
            end = longer;
        }
        self.done = end;
        Some(first.start..end)
    }
}

impl Iterator for Merged<'_> {
    /// Frame numbers.
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        loop {
            let bytes = self.next_bytes()?;
            let first = bytes.start.div_ceil(PAGE_BYTES).max(1);
            let end = bytes.end / PAGE_BYTES;
            if first < end {
                return Some(first..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn regions_are_sorted_merged_and_cut_to_whole_frames() {
        let regions = [0x9000..0xa000, 0x0..0x1800, 0x1800..0x3000, 0x5001..0x7fff, 0x6000..0x6800];
        let found: Vec<_> = merged(&regions).collect();
        assert_eq!(found, [1..3, 6..7, 9..10]);
    }

    #[test]
    fn overlapping_regions_count_once_and_empty_ones_not_at_all() {
        let regions = [0x2000..0x6000, 0x3000..0x4000, 0x4000..0x8000, 0x9000..0x9000];
        let found: Vec<_> = merged(&regions).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], 2..8);
    }
}
