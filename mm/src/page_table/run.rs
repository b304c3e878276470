//! Pages that are looked at one after the other under one hold of the tables' lock. Most lie near the one before, and
//! then the way to them is known.

use core::sync::atomic::{AtomicU64, Ordering};

use executor::lock::SpinGuard;

use super::page::{Above, leaf_of};
use super::part::index;
use super::{Leaf, PageTable};
use crate::VirtAddr;
use crate::page_entry::{ACCESSED, ENTRIES, PRESENT, span, target};

/// The level of an entry that points to a table of pages.
const LEVEL: u32 = 2;

/// The tables of one space, held for pages in a row.
pub(crate) struct Run<'a> {
    tables: SpinGuard<'a, PageTable>,
    near: Option<Near>,
}

/// The way to the page before.
#[derive(Clone, Copy)]
struct Near {
    /// The page's address without the bits that choose among the pages of a table.
    region: u64,
    above: Above,
    table: &'static [AtomicU64; ENTRIES],
}

impl<'a> Run<'a> {
    pub(crate) fn new(tables: SpinGuard<'a, PageTable>) -> Self {
        Self { tables, near: None }
    }

    /// As [`PageTable::take_accessed`].
    #[inline]
    pub(crate) fn take_accessed(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (_, leaf) = self.leaf(page, frame)?;
        let seen = leaf_of(leaf.load(Ordering::Relaxed));
        // What is not set need not be cleared: then the entry is not written to.
        if !seen.accessed {
            return Some(seen);
        }
        Some(leaf_of(leaf.fetch_and(!ACCESSED, Ordering::AcqRel)))
    }

    /// As [`PageTable::unmap_shown`].
    #[inline]
    pub(crate) fn unmap_shown(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (above, leaf) = self.leaf(page, frame)?;
        let old = leaf.swap(0, Ordering::AcqRel);
        self.tables.uncount(above, 1);
        if above[0].load(Ordering::Relaxed) & PRESENT == 0 {
            // The table went with its last page.
            self.near = None;
        }
        Some(leaf_of(old))
    }

    /// The entry of a page that shows this frame, and those above it.
    #[inline]
    fn leaf(&mut self, page: VirtAddr, frame: u64) -> Option<(Above, &'static AtomicU64)> {
        let region = page.as_u64() & !(span(LEVEL) - 1);
        let near = match self.near {
            Some(near) if near.region == region => near,
            _ => {
                let (above, _) = self.tables.leaf(page)?;
                let table = self.tables.entries(target(above[0].load(Ordering::Relaxed)));
                *self.near.insert(Near { region, above, table })
            }
        };
        let leaf = &near.table[index(page.as_u64(), 1)];
        let value = leaf.load(Ordering::Relaxed);
        (value & PRESENT != 0 && leaf_of(value).frame == frame).then_some((near.above, leaf))
    }
}
