//! Overlays: objects that show the pages of another object, their base, until they are written.
//!
//! A page of an overlay's own is a dirty page like any other: it is stored by the base's pager, discarded, counted. What
//! is not its own it does not have: reads are served by the base, which loads, and gives back, and tells its errors to
//! who asked. A mark folds an own page into the base: the frame is the base's clean page from then on, for all who show
//! either, and the overlay lets it go.
//!
//! | page of the overlay | read | write | store | mark | discard | release, invalidate | evict |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | none | the base's page, read-only | a copy of the base's page, `Dirty` | nothing | nothing | nothing | the base's page is dropped | as for the base's page |
//! | `Dirty`, never stored | shown writable | the same | `WritingBack` | none; the base has it, `Loaded` | none: the base's page is seen again | none, and the base's page is dropped | no change |
//! | `Dirty`, stored, not written since | shown writable | the same | `WritingBack` | none; the base has it, `Loaded` | none: the base loads what was stored | the same | no change |
//! | `Dirty`, stored, written since | shown writable | the same | `WritingBack` | no change | the same | the same | no change |
//! | `WritingBack` | shown writable | written since | waits, then stores again | no change | `WritingBackDiscarded` | the same, and the base's page is dropped | no change |
//!
//! A page is copied in two steps, and so is one folded, because CPUs remember what was shown before:
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | write, reads by other CPUs | the base's page is taken out of all that show the overlay, and the copy is shown when no CPU remembers the old one: every touch of the page waits, see `PageEntry::copied` |
//! | write, write | the second finds the copy, by the overlay's lock, and waits as well |
//! | write, load of the base's page | the write waits for it; its error is the writer's, and there is no copy |
//! | write, eviction of the base's page | the touch of the base keeps its page |
//! | store, mark of a page that is a copy since just now | the entry keeps the moment; whoever shows the page waits for it |
//! | fold, a page that the base shows | the first step drops the base's page, and the second comes when all CPUs were waited for: what the base shows then is the new one |
//! | fold, touch of the base between the steps | the base loads its page again; then the overlay keeps its own, dirty |
//! | fold, base's page dirty or being loaded or stored | no fold: the overlay keeps its own, dirty, until a later mark |
//! | store, anything that others of the family have or do | see `family` |
//! | fold, write to the overlay | the write takes the page out of its step between, or a page table says at the second step that it was written |
//! | fold, unmap | the frame is shown by mappings that both objects list: whoever takes it away finds them |
//! | fork | private memory over an overlay copies what the overlay shows |
//! | full heap | no room for a copy: the writer waits or is denied; no room for a fold: the page stays dirty |
//!
//! Locks: the overlay's before the base's. Mappings of an overlay are noted with both.

use alloc::sync::Arc;

use super::touch::{NotThere, Touched, closed};
use super::{Inner, VmObject};
use crate::frame::{ListedPage, PageList, address_of};
use crate::ordered_map::Room;
use crate::page_state::{PageEntry, PageState};
use crate::settle::Attempt;
use crate::{Frame, OutOfMemory, PageEvent};

impl VmObject {
    /// An overlay over `base`, of as many pages: reads are served by the base, a write makes a page of the overlay's
    /// own, and [`mark`](Self::mark) folds it into the base.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    ///
    /// # Panics
    /// When the base is an overlay itself.
    pub fn try_overlay(base: Arc<Self>) -> Result<Arc<Self>, OutOfMemory> {
        assert!(base.base.is_none(), "an overlay's base is no overlay");
        let (memory, pager, pages) = (base.memory, base.pager.clone(), base.pages);
        let room = Room::try_new()?;
        let overlay = Self::make(memory, pager, pages, Some(base.clone()))?;
        base.inner.lock().overlays.insert(room, overlay.number, ());
        Ok(overlay)
    }

    /// Like [`try_overlay`](Self::try_overlay), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full, and as there.
    pub fn overlay(base: Arc<Self>) -> Arc<Self> {
        Self::try_overlay(base).expect("there is memory for an object")
    }

    /// A touch of an overlay's page: its own, or the base's.
    pub(super) fn touch_overlay(
        &self,
        base: &Self,
        index: u64,
        write: bool,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Touched {
        let mut inner = self.inner.lock();
        if inner.closers > 0 {
            return closed(index);
        }
        let entry = inner.pages.get(index);
        let unsettled = entry.dropped_at().or_else(|| Some(self.memory.frames().recent(entry.copied_at()?)));
        if let Some(moment) = unsettled
            && !self.memory.frames().is_over(moment)
        {
            return Touched::Tried(Attempt::Forgetting(moment));
        }
        if entry.state() != PageState::Absent {
            let entry = entry.settled();
            inner.pages.set(index, PageEvent::Read, entry);
            return match self.try_touch(&mut inner, index, entry, write, spare, commit) {
                Ok(attempt) => Touched::Tried(attempt),
                Err(NotThere) => unreachable!("an overlay loads nothing"),
            };
        }
        base.touch_or_load(index, false, spare, |frame, _, spare| {
            if write { self.make_own(&mut inner, index, frame, spare) } else { commit(frame, false, spare) }
        })
    }

    /// Makes a page of the overlay's own, a copy of the base's. It is shown when no CPU remembers the base's: any may,
    /// also where no page table shows it any more.
    fn make_own(&self, inner: &mut Inner, index: u64, source: u64, spare: &mut Option<Frame>) -> Attempt {
        if !self.memory.may_dirty() {
            return Attempt::TooManyDirty;
        }
        if !self.memory.hardware().heap_has_room() || inner.pages.make_room(index).is_err() {
            return Attempt::heap_is_full(spare);
        }
        let Some(frame) = spare.take().or_else(|| self.memory.frames().try_alloc_page(None)) else {
            inner.pages.give_up_room(index);
            return Attempt::NeedsFrame;
        };
        self.memory.frames().window().copy(address_of(source), frame.address());
        self.hide_frame_below(inner, index, source);
        let moment = self.memory.frames().moment();
        let frame = frame.into_number();
        let entry = self.entered(index, PageEntry::new(PageState::Loaded { frame }));
        inner.pages.set(index, PageEvent::Write, entry.dirtied(frame).copied(moment));
        inner.resident += 1;
        self.list_dirty(index, frame);
        Attempt::Forgetting(moment)
    }

    /// Takes a frame of the base out of the page tables that show it as a page of the overlay.
    fn hide_frame_below(&self, inner: &Inner, index: u64, frame: u64) {
        inner.mappings.for_each(index, |mapping, page| {
            let mut tables = mapping.table.tables.lock();
            if tables.shows(page, frame) {
                tables.unmap(page);
                self.memory.hardware().invalidate(mapping.table.root(), page);
            }
        });
    }

    /// Takes all pages of the base out of the page tables that show them as the overlay's. The caller has seen to it that
    /// no touch enters them again.
    pub(super) fn hide_all_below(&self, base: &Self) {
        let mut rest = 0..self.pages;
        loop {
            let inner = self.inner.lock();
            let below = base.inner.lock();
            let Some((index, entry)) = below.pages.next_used(rest).filter(|_| inner.mappings.len() > 0)
            else {
                return self.note_left();
            };
            if let Some(frame) = entry.state().frame() {
                self.hide_frame_below(&inner, index, frame);
            }
            rest = index + 1..self.pages;
        }
    }

    /// The first step of a fold: the base gives up its page, which comes back from its pager if it is wanted before the
    /// second. False if it holds something that is not to be lost.
    pub(super) fn make_way(&self, index: u64) -> bool {
        let mut inner = self.inner.lock();
        match inner.pages.get(index).state() {
            _ if inner.store_above(index).is_some() => false,
            PageState::Absent | PageState::Failed => true,
            PageState::Loaded { frame } => {
                let (entry, _) = self.drop_present(&mut inner, index, frame);
                inner.pages.set(index, PageEvent::Fold, entry);
                true
            }
            _ => false,
        }
    }

    /// The second step, when all CPUs were waited for: the frame of an overlay's page is the base's. False if it cannot
    /// be; then nothing has changed.
    pub(super) fn fold(&self, inner: &mut Inner, base: &Self, index: u64, frame: u64) -> bool {
        let mut below = base.inner.lock();
        let entry = below.pages.get(index);
        let forgotten = entry.dropped_at().is_none_or(|moment| self.memory.frames().is_over(moment));
        let has_none = matches!(entry.state(), PageState::Absent | PageState::Failed);
        let is_free = below.store_above(index).is_none() && below.closers == 0;
        if !forgotten || !has_none || !is_free || below.pages.make_room(index).is_err() {
            return false;
        }
        let entry = self.entered(index, inner.pages.get(index).cleaned(frame));
        below.pages.set(index, PageEvent::Fold, entry);
        below.resident += 1;
        self.memory.frames().list(PageList::Clean, ListedPage { frame, object: base.number, page: index });
        inner.pages.set(index, PageEvent::Fold, PageEntry::ABSENT);
        inner.resident -= 1;
        true
    }
}
