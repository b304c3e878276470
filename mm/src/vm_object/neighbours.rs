//! Showing pages that are there beside the one that was touched, so that they make no faults of their own.
//!
//! A page is shown with the rights that a touch for reading would give it, and only where nothing is shown. Nothing
//! is made for it: no frame, no table, no memory. It does not count as used: only the processor's bit says so then. A
//! page that is between two steps is left out, because whoever takes the second believes that it is not shown. Of an
//! overlay, only pages of its own are shown along.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | unmap, protect | the generation number, compared under the table's lock, as for the fault itself |
//! | anything on one of the pages | the object's lock |
//! | a page that becomes private memory's own | the private object's lock, which is held around the object's |

use core::ops::Range;

use super::VmObject;
use crate::page_state::PageState;
use crate::table::Table;
use crate::{Protection, VirtAddr};

/// Where the pages around a fault are, and how they may be shown.
pub(crate) struct Around {
    /// The object's pages that may be shown: those of one mapping and one table.
    pub(crate) pages: Range<u64>,
    /// Where the first of them stands.
    pub(crate) start: VirtAddr,
    /// What the mapping allows.
    pub(crate) protection: Protection,
    /// What the mapping's table said when that was so.
    pub(crate) generation: u64,
    /// Pages that are left out, because a version of private memory has its own: a bit each, from the first on.
    pub(crate) without: u64,
}

impl VmObject {
    /// Shows those of the pages that are there.
    pub(crate) fn show_around(&self, around: &Around, table: &Table) {
        let inner = self.inner.lock();
        let mut tables = table.tables.lock();
        if table.generation() != around.generation || inner.closers > 0 {
            return;
        }
        inner.pages.for_each_in(around.pages.clone(), |index, entry| {
            let place = index - around.pages.start;
            let (frame, writable) = match entry.state() {
                _ if around.without & 1 << place != 0 => return,
                _ if entry.is_between() || entry.copied_at().is_some() => return,
                PageState::Loaded { frame } => (frame, false),
                PageState::Dirty { frame } | PageState::WritingBack { frame } => (frame, true),
                _ => return,
            };
            let page = around.start.page_add(place);
            let protection = Protection { write: around.protection.write && writable, ..around.protection };
            if tables.map_beside(page, frame, protection) && self.memory.is_recorded() {
                self.memory.tell_map(table.root(), page, frame, protection.write);
            }
        });
    }
}
