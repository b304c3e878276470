//! The way to the page that was entered last: the next one mostly lies beside it, and then needs no walk.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | way, table that goes | who frees tables forgets the way: `free_if_empty` is the only place, beside the end of all tables |
//! | way, rights taken at upper levels | who takes them forgets the way: `write_protect` |
//! | way, rights pushed down | that gives them to an entry which lacked them, so the way does not go through it with them |
//! | way, large page | one is only entered where no table is, and the table that it is split into is found by a walk |

use core::sync::atomic::{AtomicU64, Ordering};

use super::PageTable;
use super::part::index;
use crate::VirtAddr;
use crate::page_entry::{ENTRIES, LARGE, PRESENT, ROOT_LEVEL, WRITABLE, span, target};

/// The level of an entry that points to a table of pages.
const LEVEL: u32 = 2;

/// All tables on the way to a page are there and allow as much as was asked for.
#[derive(Clone, Copy)]
pub(super) struct Near {
    /// Which entry of level 2, counted from address 0.
    region: u64,
    /// Whether all levels above the page allow writing.
    writable: bool,
    /// That entry.
    above: &'static AtomicU64,
    /// The table that it points to.
    table: &'static [AtomicU64; ENTRIES],
}

impl PageTable {
    /// The leaf entry of a page where `wanted` is to be entered, and the one above it, if all tables on the way are
    /// there and allow what it allows. The way of nearly all faults.
    #[inline]
    pub(super) fn leaf_if_open(
        &mut self,
        page: VirtAddr,
        wanted: u64,
    ) -> Option<(&'static AtomicU64, &'static AtomicU64)> {
        let page = page.as_u64();
        let is_near =
            |near: &Near| near.region == page / span(LEVEL) && near.writable | (wanted & WRITABLE == 0);
        let Near { above, table, .. } = match self.near {
            Some(near) if is_near(&near) => near,
            _ => self.approach(page, wanted)?,
        };
        Some((above, &table[index(page, 1)]))
    }

    /// Walks to a page, and remembers the way.
    #[cold]
    #[inline(never)]
    fn approach(&mut self, page: u64, wanted: u64) -> Option<Near> {
        let open = PRESENT | wanted & WRITABLE;
        let mut writable = WRITABLE;
        let mut entry = &self.entries(self.root)[index(page, ROOT_LEVEL)];
        let mut above = entry;
        let mut table = self.root;
        for level in [3, 2, 1] {
            let value = entry.load(Ordering::Relaxed);
            if value & (open | LARGE) != open {
                return None;
            }
            writable &= value;
            above = entry;
            table = target(value);
            entry = &self.entries(table)[index(page, level)];
        }
        let table = self.entries(table);
        self.near = Some(Near { region: page / span(LEVEL), writable: writable != 0, above, table });
        self.near
    }

    /// Forgets the way: a table goes, or something is taken from an entry that points to one.
    pub(super) fn leave(&mut self) {
        self.near = None;
    }
}
