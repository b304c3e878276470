//! Pages that are looked at one after the other under one hold of the tables' lock. Most lie near the one before, and
//! then the way to them is known.

use core::sync::atomic::{AtomicU64, Ordering};

use executor::lock::SpinGuard;

use super::page::{Above, leaf_of};
use super::part::index;
use super::{Leaf, PageTable};
use crate::VirtAddr;
use crate::frame::address_of;
use crate::page_entry::{ACCESSED, ADDRESS, ENTRIES, PRESENT, span, target};

/// The level of an entry that points to a table of pages.
const LEVEL: u32 = 2;

/// The tables of one space, held for pages in a row.
pub(crate) struct Run<'a> {
    tables: SpinGuard<'a, PageTable>,
    near: Option<Near>,
    /// Pages of the table near by that were taken out and are counted still.
    gone: usize,
}

/// The way to the page before.
struct Near {
    /// The page's address without the bits that choose among the pages of a table.
    region: u64,
    above: Above,
    table: &'static [AtomicU64; ENTRIES],
}

impl<'a> Run<'a> {
    pub(crate) fn new(tables: SpinGuard<'a, PageTable>) -> Self {
        Self { tables, near: None, gone: 0 }
    }

    /// As [`PageTable::take_accessed`].
    #[inline]
    pub(crate) fn take_accessed(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (leaf, seen) = self.leaf(page, frame)?;
        let seen = leaf_of(seen);
        // What is not set need not be cleared: then the entry is not written to.
        if !seen.accessed {
            return Some(seen);
        }
        Some(leaf_of(leaf.fetch_and(!ACCESSED, Ordering::AcqRel)))
    }

    /// As [`PageTable::unmap_shown`].
    #[inline]
    pub(crate) fn unmap_shown(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (leaf, _) = self.leaf(page, frame)?;
        self.gone += 1;
        Some(leaf_of(leaf.swap(0, Ordering::AcqRel)))
    }

    /// The entry of a page that shows this frame, and what it holds.
    #[inline]
    fn leaf(&mut self, page: VirtAddr, frame: u64) -> Option<(&'static AtomicU64, u64)> {
        let region = page.as_u64() & !(span(LEVEL) - 1);
        let table = match &self.near {
            Some(near) if near.region == region => near.table,
            _ => self.find(page, region)?,
        };
        let leaf = &table[index(page.as_u64(), 1)];
        let value = leaf.load(Ordering::Relaxed);
        (value & (ADDRESS | PRESENT) == address_of(frame).as_u64() | PRESENT).then_some((leaf, value))
    }

    /// The table with the entry of a page that is present.
    fn find(&mut self, page: VirtAddr, region: u64) -> Option<&'static [AtomicU64; ENTRIES]> {
        self.count_out();
        let (above, _) = self.tables.leaf(page)?;
        let table = self.tables.entries(target(above[0].load(Ordering::Relaxed)));
        self.near = Some(Near { region, above, table });
        Some(table)
    }

    /// Notes that pages are gone from the table near by, which goes with the last one.
    fn count_out(&mut self) {
        let gone = core::mem::take(&mut self.gone);
        if let Some(near) = self.near.take()
            && gone > 0
        {
            self.tables.uncount(near.above, gone);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count_out();
    }
}
