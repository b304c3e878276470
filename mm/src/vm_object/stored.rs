//! Which pages were ever stored. A mark asks: it counts as clean what was never stored, and what was not written since its
//! last store. So the answer must be the same whether a page was given back and loaded again in between or not.
//!
//! Who has a frame has a bit in its entry (see `page_state`); here is what that is set by when a page comes back: a bit a page,
//! for pages that were stored only. An overlay's pages are its base's in this, as they have one pager.

use super::VmObject;
use crate::OutOfMemory;
use crate::ordered_map::{OrderedMap, Room};
use crate::page_state::PageEntry;

/// Pages of one entry.
const PAGES: u64 = 64;

/// A bit for each page that was stored.
#[derive(Default)]
pub(super) struct StoredPages {
    bits: OrderedMap<u64, u64>,
}

impl StoredPages {
    /// Makes room for a page, which is about to be stored.
    pub(super) fn make_room(&mut self, index: u64) -> Result<(), OutOfMemory> {
        if self.bits.get(&(index / PAGES)).is_none() {
            self.bits.insert(Room::try_new()?, index / PAGES, 0);
        }
        Ok(())
    }

    /// A page was stored. There is room for it.
    pub(super) fn note(&mut self, index: u64) {
        if let Some(bits) = self.bits.get_mut(&(index / PAGES)) {
            *bits |= 1 << (index % PAGES);
        }
    }

    /// Whether a page was ever stored.
    pub(super) fn contain(&self, index: u64) -> bool {
        self.bits.get(&(index / PAGES)).is_some_and(|bits| bits >> (index % PAGES) & 1 != 0)
    }
}

impl VmObject {
    /// The entry of a clean page that has just got its frame.
    pub(super) fn entered(&self, index: u64, entry: PageEntry) -> PageEntry {
        if self.family().stored.lock().contain(index) { entry.with_stored() } else { entry }
    }
}
