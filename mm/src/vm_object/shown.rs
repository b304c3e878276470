//! Where an object's pages are shown: noting and forgetting mappings, taking pages out of page tables.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::{Inner, VmObject};
use crate::address::PAGE_BYTES;
use crate::frame::Moment;
use crate::mapping::Mapping;
use crate::page_state::PageState;
use crate::page_table::LOOKS;
use crate::reverse_map::{NoteRoom, ReverseMap, Shown};
use crate::table::Table;
use crate::{MapError, OutOfMemory, PageEvent, PageTable, VirtAddr};

/// Memory to note one mapping with an object, and with its base if it is an overlay.
pub(crate) struct ObjectRoom {
    own: NoteRoom,
    base: Option<NoteRoom>,
}

impl VmObject {
    /// Memory to note one mapping.
    pub(crate) fn room(&self) -> Result<ObjectRoom, OutOfMemory> {
        let base = self.base.as_ref().map(|_| ReverseMap::room()).transpose()?;
        Ok(ObjectRoom { own: ReverseMap::room()?, base })
    }

    /// Notes that a mapping shows pages from `first` on.
    pub(crate) fn note_mapping(
        &self,
        room: ObjectRoom,
        id: u64,
        first: u64,
        shown: Shown<()>,
    ) -> Result<(), MapError> {
        if first.checked_add(shown.pages).is_none_or(|end| end > self.pages) {
            return Err(MapError::BeyondObject);
        }
        if let (Some(base), Some(room)) = (&self.base, room.base) {
            let below = Shown::new(shown.pages, shown.start, shown.table.clone(), ());
            base.inner.lock().mappings.insert(room, id, first, below);
        }
        self.inner.lock().mappings.insert(room.own, id, first, shown);
        Ok(())
    }

    /// Forgets a mapping whose pages are no longer shown.
    pub(crate) fn forget_mapping(&self, id: u64, first: u64, pages: u64) {
        if let Some(base) = &self.base {
            base.forget_mapping(id, first, pages);
        }
        let shown = self.inner.lock().mappings.remove(id, first, pages);
        drop(shown);
    }

    /// Replaces a mapping by its two parts: the first `pages_before` pages keep the number.
    pub(crate) fn split_mapping(
        &self,
        rooms: [ObjectRoom; 2],
        id: u64,
        first: u64,
        pages: u64,
        pages_before: u64,
        second: u64,
    ) {
        let [one, two] = rooms;
        if let (Some(base), Some(one), Some(two)) = (&self.base, one.base, two.base) {
            base.inner.lock().mappings.split([one, two], id, first, pages, pages_before, second);
        }
        let own = [one.own, two.own];
        self.inner.lock().mappings.split(own, id, first, pages, pages_before, second);
    }

    /// Takes pages of a mapping out of its page table, as many as is done without giving up the locks; this CPU
    /// forgets them. What is done is taken off the front of `rest`. The caller has seen to it that no fault enters them
    /// again.
    ///
    /// False if the mapping is not one of this object, or not any more: then nothing is taken out, because the
    /// range may show something else already.
    pub(crate) fn hide_some(&self, mapping: &Mapping, rest: &mut Range<VirtAddr>, table: &Table) -> bool {
        let mut inner = self.inner.lock();
        if !inner.mappings.contains(mapping.id, mapping.first, mapping.pages) {
            return false;
        }
        let mut tables = table.tables.lock();
        let (mut looks, mut written) = (LOOKS, false);
        tables.unmap_some(rest, &mut looks, |page, leaf| {
            self.memory.hardware().invalidate(table.root(), page);
            // Without a pager it is dirty for good.
            if leaf.dirty && self.pager.is_some() {
                let index = mapping.first + (page.as_u64() - mapping.start.as_u64()) / PAGE_BYTES;
                self.note_written(&mut inner, index);
                written = true;
            }
        });
        if written {
            inner.hidden = Some(self.memory.frames().moment());
        }
        true
    }

    /// Takes a page out of every page table that shows it; this CPU forgets it. True when one of them says that it
    /// was written.
    pub(super) fn hide(&self, inner: &Inner, index: u64) -> bool {
        let mut written = false;
        self.for_each_place(inner, index, |tables, page, frame| {
            if let Some(leaf) = tables.unmap_shown(page, frame) {
                written |= leaf.dirty;
                self.memory.hardware().invalidate(tables.root(), page);
            }
        });
        written
    }

    /// Tells each page that shows a page of the object now, with its tables. A mapping of private memory over this
    /// object may show something else there.
    pub(super) fn for_each_shown(
        &self,
        inner: &Inner,
        index: u64,
        mut told: impl FnMut(&mut PageTable, VirtAddr),
    ) {
        self.for_each_place(inner, index, |tables, page, frame| {
            if tables.shows(page, frame) {
                told(tables, page);
            }
        });
    }

    /// Tells each page that would show a page of the object if it showed its frame.
    pub(super) fn for_each_place(
        &self,
        inner: &Inner,
        index: u64,
        mut told: impl FnMut(&mut PageTable, VirtAddr, u64),
    ) {
        let Some(frame) = inner.pages.get(index).frame() else { return };
        inner.mappings.for_each(index, |mapping, page| {
            told(&mut mapping.table.tables.lock(), page, frame);
        });
    }

    /// A page table says that a page was written.
    pub(super) fn note_written(&self, inner: &mut Inner, index: u64) {
        let entry = inner.pages.get(index);
        match entry.state() {
            PageState::Loaded { frame } => inner.make_dirty(self, index, frame, PageEvent::Noted),
            PageState::Dirty { .. } | PageState::WritingBack { .. } => {
                inner.pages.set(index, PageEvent::Noted, entry.written());
            }
            _ => {}
        }
    }

    /// A page was taken out of all page tables, and stays what it is.
    pub(super) fn note_left(&self) {
        self.left.store(self.memory.frames().moment().number(), Ordering::Release);
    }

    /// Whether a CPU may still remember a page that no page table shows, because it was about to be given back; of an
    /// overlay, also one of what it lies over.
    pub(crate) fn may_be_remembered(&self) -> bool {
        let left = Moment::from_number(self.left.load(Ordering::Acquire));
        !self.memory.frames().is_over(left) || self.base.as_ref().is_some_and(|base| base.may_be_remembered())
    }
}
