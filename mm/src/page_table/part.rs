//! Which entries of which tables a range of addresses covers.

use core::ops::{Range, RangeInclusive};

use crate::VirtAddr;
use crate::page_entry::{ENTRIES, ROOT_LEVEL, span};

/// Addresses from the first to the last byte: unlike a range it may reach to the end of a half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Part {
    pub(super) const LOWER_HALF: Self = Self { first: 0, last: 0x7fff_ffff_ffff };
    pub(super) const UPPER_HALF: Self = Self { first: 0xffff_8000_0000_0000, last: u64::MAX };

    /// `None` if the range is empty.
    pub(super) fn new(range: &Range<VirtAddr>) -> Option<Self> {
        let (start, end) = (range.start.as_u64(), range.end.as_u64());
        (start < end).then(|| Self { first: start, last: end - 1 })
    }

    /// Whether it lies in the upper half; `None` if it lies in both.
    pub(super) fn is_upper_half(self) -> Option<bool> {
        let half = self.first >> 47 == 0x1ffff;
        (half == (self.last >> 63 == 1)).then_some(half)
    }

    /// What of it lies in another part.
    pub(super) fn within(self, other: Self) -> Option<Self> {
        let part = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (part.first <= part.last).then_some(part)
    }

    /// The indexes of its entries in the one table of this level that it lies in.
    pub(super) fn indexes(self, level: u32) -> RangeInclusive<usize> {
        index(self.first, level)..=index(self.last, level)
    }

    /// How many entries that are.
    pub(super) fn entries(self, level: u32) -> usize {
        index(self.last, level) - index(self.first, level) + 1
    }

    /// The part of it that one of these entries stands for.
    pub(super) fn piece(self, level: u32, index: usize) -> Self {
        let table = if level == ROOT_LEVEL { u64::MAX << 48 } else { !(span(level + 1) - 1) };
        let start = (self.first & table) + index as u64 * span(level);
        Self { first: self.first.max(start), last: self.last.min(start + (span(level) - 1)) }
    }

    /// Where the one entry of this level begins that stands for it.
    pub(super) fn start_of_entry(self, level: u32) -> u64 {
        self.first & !(span(level) - 1)
    }

    /// Whether it is all of what one entry of this level stands for.
    pub(super) fn is_whole(self, level: u32) -> bool {
        self.last - self.first == span(level) - 1
    }
}

/// Which entry of a table of this level an address goes through.
pub(super) fn index(address: u64, level: u32) -> usize {
    (address / span(level)) as usize & (ENTRIES - 1)
}
