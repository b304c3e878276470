//! Showing pages of the object below beside the one that was touched; see `vm_object::neighbours`.

use super::{PrivateObject, VersionId};
use crate::Protection;
use crate::address::PAGE_BYTES;
use crate::table::Table;
use crate::vm_object::Around;

impl PrivateObject {
    /// Shows those of the pages that are there and the object's below, wholly, for reading: a write copies. What the version
    /// or a past above it has is left to a touch of its own.
    pub(crate) fn show_around(&self, version: VersionId, around: &Around, table: &Table) {
        let Some(base) = &self.base else { return };
        let whole = base.bytes.start.div_ceil(PAGE_BYTES)..base.bytes.end / PAGE_BYTES;
        let pages = around.pages.start.max(whole.start)..around.pages.end.min(whole.end);
        if pages.is_empty() {
            return;
        }
        // Held to the end, so that none becomes the version's meanwhile.
        let inner = self.inner.lock();
        let Some(without) = inner.versions.which(version, &pages) else { return };
        let below = Around {
            start: around.start.page_add(pages.start - around.pages.start),
            pages: base.first + pages.start..base.first + pages.end,
            protection: Protection { write: false, ..around.protection },
            generation: around.generation,
            without,
        };
        base.object.show_around(&below, table);
    }
}
