//! Where private memory is shown: noting and forgetting mappings, taking pages out of page tables.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::versions::Ended;
use super::{Ending, Inner, PrivateObject, VersionId};
use crate::mapping::Mapping;
use crate::page_table::LOOKS;
use crate::reverse_map::{NoteRoom, ReverseMap, Shown};
use crate::table::Table;
use crate::{MapError, VirtAddr};

impl PrivateObject {
    /// Notes that a mapping shows a version, from page `first` on.
    pub(crate) fn note_mapping(
        &self,
        room: NoteRoom<VersionId>,
        id: u64,
        first: u64,
        shown: Shown<VersionId>,
    ) -> Result<(), MapError> {
        if first.checked_add(shown.pages).is_none_or(|end| end > self.pages) {
            return Err(MapError::BeyondObject);
        }
        let mut inner = self.inner.lock();
        inner.versions.add_user(shown.of);
        inner.mappings.insert(room, id, first, shown);
        Ok(())
    }

    /// Forgets a mapping whose pages are no longer shown. What only it had is freed, if it was not forked, and is not
    /// shared: that may be mapped again. Answers that end, which is the caller's to come to.
    pub(crate) fn forget_mapping(self: &Arc<Self>, id: u64, first: u64, pages: u64) -> Option<Ending> {
        let (version, ended) = self.forget_note(id, first, pages)?;
        match ended {
            Some(ended) => Some(Ending::new(self, ended)),
            None if self.is_shared => None,
            None => Some(Ending::of_pages(self, version, first..first + pages)),
        }
    }

    /// Forgets a mapping all of whose pages another shows as well: what grew. Takes the same time whatever there is.
    pub(crate) fn forget_covered(self: &Arc<Self>, id: u64, first: u64, pages: u64) {
        let forgotten = self.forget_note(id, first, pages);
        drop(forgotten.and_then(|(_, ended)| ended.map(|ended| Ending::new(self, ended))));
    }

    /// Takes a mapping off the list. Answers the version that it showed, with what that had if it has ended.
    fn forget_note(&self, id: u64, first: u64, pages: u64) -> Option<(VersionId, Option<Ended>)> {
        let (shown, ended) = {
            let mut inner = self.inner.lock();
            let shown = inner.mappings.remove(id, first, pages)?;
            let ended = inner.versions.remove_user(shown.of);
            (shown, ended)
        };
        Some((shown.of, ended))
    }

    /// Replaces a mapping by its two parts: the first `pages_before` pages keep the number.
    pub(crate) fn split_mapping(
        &self,
        rooms: [NoteRoom<VersionId>; 2],
        id: u64,
        first: u64,
        pages: u64,
        pages_before: u64,
        second: u64,
    ) {
        let mut inner = self.inner.lock();
        if let Some(version) = inner.mappings.split(rooms, id, first, pages, pages_before, second) {
            inner.versions.add_user(version);
        }
    }

    /// Takes pages of a mapping out of its page table; as `VmObject::hide_some`.
    pub(crate) fn hide_some(&self, mapping: &Mapping, rest: &mut Range<VirtAddr>, table: &Table) -> bool {
        let inner = self.inner.lock();
        if !inner.mappings.contains(mapping.id, mapping.first, mapping.pages) {
            return false;
        }
        let mut tables = table.tables.lock();
        let mut looks = LOOKS;
        let hardware = self.memory.hardware();
        tables.unmap_some(rest, &mut looks, |page, _| hardware.invalidate(table.root(), page));
        self.left.store(self.memory.frames().moment().number(), Ordering::Release);
        true
    }

    /// Shows a frame, read-only, wherever another is shown as a page of a version; this CPU forgets that one.
    pub(super) fn exchange(&self, inner: &Inner, version: VersionId, index: u64, old: u64, new: u64) {
        inner.mappings.for_each(index, |mapping, page| {
            if mapping.of == version {
                mapping.table.tables.lock().exchange(page, old, new);
            }
        });
    }

    /// Takes a frame out of the page tables that show it as a page of a version; this CPU forgets it. True if any
    /// did.
    pub(super) fn hide(
        &self,
        mappings: &ReverseMap<VersionId>,
        version: VersionId,
        index: u64,
        frame: u64,
    ) -> bool {
        let mut shown = false;
        mappings.for_each(index, |mapping, page| {
            let mut tables = mapping.table.tables.lock();
            if mapping.of == version && tables.shows(page, frame) {
                tables.unmap(page);
                self.memory.hardware().invalidate(mapping.table.root(), page);
                shown = true;
            }
        });
        shown
    }
}
