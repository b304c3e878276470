//! Pages of private memory that leave for swap, and come back. What is decided before they are written is in `leave`.
//!
//! A page is where its entry is, in one version. Versions share entries, so a page leaves and comes back once for all who
//! see it. Entries move between versions; frames and slots do not change meanwhile, so an end finds the entry by its
//! frame or slot, whichever version has it by then.
//!
//! | meets | while the page is taken out of page tables, or being written | while it is being read |
//! | --- | --- | --- |
//! | touch | shown again at once, in the same frame. What is written counts if nobody has written to the page until the write ends | joins the read |
//! | write of a version that shares it | copies it, the page comes back before that | waits, then copies |
//! | fork | the entry goes to the past with the others, and leaves or comes back there | the same |
//! | end of a version, unmap | its write owns frame and slot (`swap/kept`), and frees them | what is read is thrown away, and the slot is free then |
//! | merge of versions | the entry moves; if nobody sees it any more, as above | the same |
//! | swap is turned on | the page is listed from then on, wherever it is; none leaves before | |
//! | reclaim again | the page is left alone until its write has ended, also when it was shown again | it has no frame on a list |
//! | error | the page stays, as if it had been written to; its slot is free | whoever waits is denied, whoever comes later reads again |
//!
//! All of it is under the object's lock, and under none that is kept across a wait.

use super::touch::Load;
use super::versions::VersionId;
use super::{BATCH, Inner, PrivateObject};
use crate::frame::{ListedPage, PageList};
use crate::memory::Counters;
use crate::page_state::{PageEntry, PageState};
use crate::settle::Attempt;
use crate::swap::{PrivateRoom, ReadPage, Reading, SwapArea};
use crate::transfer::Transfer;
use crate::vm_object::WINDOW;
use crate::{Advice, Frame, Memory, PageEvent};
use alloc::sync::Arc;
use core::ops::DerefMut;

/// Where the pages of private memory go; guarded by its lock.
#[derive(Clone, Copy, Default)]
pub(super) struct Swaps {
    /// What frame records name the memory by.
    pub(super) name: u32,
    /// Nothing before there is swap, and a while longer for memory that was there before.
    pub(super) area: Option<&'static SwapArea>,
}

impl Swaps {
    /// Notes where there is swap that a frame holds a page.
    #[inline]
    pub(super) fn list(&self, memory: &'static Memory, index: u64, frame: u64) {
        if self.area.is_some() {
            let page = ListedPage { frame, object: self.name, page: index };
            memory.frames().list(PageList::Anonymous, page);
        }
    }
}

impl Inner {
    /// Where the page is that a version sees, if that is in this slot.
    fn swapped_at(&self, version: VersionId, (index, slot): (u64, u64)) -> Option<u32> {
        let found = self.versions.find_place(version, index);
        found.filter(|(_, entry)| entry.state() == PageState::Swapped { slot }).map(|(place, _)| place)
    }

    /// How many pages from one on, at most so many, are in slots in a row: only those are one read. At least that one.
    pub(super) fn in_a_row(&self, version: VersionId, (index, slot): (u64, u64), most: u64) -> u64 {
        let is_next = |&ahead: &u64| self.swapped_at(version, (index + ahead, slot + ahead)).is_some();
        1 + (1..most).take_while(is_next).count() as u64
    }
}

impl PrivateObject {
    /// Gives new private memory its name, and then swap if there is any: so either there is, or who turns it on finds the
    /// name.
    pub(super) fn name(self: &Arc<Self>, room: PrivateRoom) {
        let name = self.memory.register_private(room, &Arc::downgrade(self));
        let swaps = &mut self.inner.lock().swaps;
        swaps.name = name;
        swaps.area = swaps.area.or(self.memory.swap());
    }

    /// From now on the pages go to swap that were there before it: some of them, from one on, are listed. Answers where to go
    /// on. Pages that are made meanwhile list themselves, and those that move to another version keep their number.
    pub(crate) fn begin_to_swap(&self, name: u32, area: &'static SwapArea, from: u64) -> Option<u64> {
        let Inner { versions, swaps, .. } = &mut *self.inner.lock();
        *swaps = Swaps { name, area: Some(area) };
        let first = versions.next_used(from)?;
        // Each version is looked at for each page, and the lock is held meanwhile.
        let pages = (BATCH / versions.count().max(1)).max(1);
        let end = first.saturating_add(pages as u64);
        versions.for_each_used(first..end, |index, entry| {
            if let Some(frame) = entry.frame() {
                swaps.list(self.memory, index, frame);
            }
        });
        Some(end)
    }

    /// Makes a page that a version sees and that was changed there or before a fork the first that reclaim looks at, as not
    /// used lately. False if there is no such page.
    pub(crate) fn cool(&self, version: VersionId, index: u64) -> bool {
        let inner = &mut *self.inner.lock();
        let Some((place, entry)) = inner.versions.find_place(version, index) else { return false };
        let Some(frame) = entry.frame() else { return true };
        inner.mappings.for_each(index, |mapping, page| {
            mapping.table.tables.lock().take_accessed(page, frame);
        });
        if entry.referenced() {
            inner.versions.set(place, index, PageEvent::Evict, entry.with_referenced(false));
        }
        self.memory.frames().look_first_at(frame, self.memory.policy());
        true
    }

    /// A frame that no page has any more.
    fn take_out(&self, frame: u64) -> Frame {
        self.memory.frames().unlist(frame);
        Frame::from_number(self.memory.frames(), frame)
    }

    /// A page that leaves is written to a slot from now on. False if it does not leave any more.
    pub(crate) fn begin_write(&self, area: &SwapArea, index: u64, frame: u64, slot: u64) -> bool {
        let inner = self.inner.lock();
        let leaving = PageEntry::new(PageState::SwappingOut { frame });
        let leaves = inner.versions.find_entry(index, |entry| entry == leaving).is_some();
        debug_assert!(!area.is_writing(frame), "a page is written once at a time");
        if leaves {
            area.begin_write(frame, slot);
        }
        leaves
    }

    /// A page that was to leave does not: there is no room for it.
    pub(crate) fn stay(&self, index: u64, frame: u64) {
        let inner = &mut *self.inner.lock();
        let leaving = PageEntry::new(PageState::SwappingOut { frame });
        if let Some((place, _)) = inner.versions.find_entry(index, |entry| entry == leaving) {
            let dirty = PageEntry::new(PageState::Dirty { frame });
            inner.versions.set(place, index, PageEvent::StoreFailed, dirty);
        }
    }

    /// A page that stays, and was only read since it came in, gives its slot up to others. False if it has none.
    pub(crate) fn give_slot_up(&self, area: &SwapArea, index: u64, frame: u64) -> bool {
        let inner = &mut *self.inner.lock();
        let is_it =
            |entry: PageEntry| matches!(entry.state(), PageState::Loaded { frame: of } if of == frame);
        let Some((place, _)) = inner.versions.find_entry(index, is_it) else { return false };
        if area.is_writing(frame) {
            return false;
        }
        area.written(frame);
        inner.versions.set(place, index, PageEvent::Evict, PageEntry::new(PageState::Dirty { frame }));
        true
    }

    /// The write of a page has ended. True if its frame is free now; `None` where the object has no such page any more.
    pub(crate) fn end_swap_out(
        &self,
        area: &SwapArea,
        index: u64,
        frame: u64,
        slot: u64,
        written: bool,
    ) -> Option<bool> {
        let gone = {
            let inner = &mut *self.inner.lock();
            let is_it = |entry: PageEntry| entry.frame() == Some(frame);
            let (place, entry) = inner.versions.find_entry(index, is_it)?;
            let leaves = matches!(entry.state(), PageState::SwappingOut { .. });
            let is_clean = leaves || matches!(entry.state(), PageState::Loaded { .. });
            if is_clean && !written {
                let dirty = PageEntry::new(PageState::Dirty { frame });
                inner.versions.set(place, index, PageEvent::StoreFailed, dirty);
            }
            area.end_write(frame, slot, is_clean && written);
            if !leaves || !written {
                return Some(false);
            }
            // The frame's slot becomes the entry's.
            let slot = area.take_kept(frame).unwrap_or(slot);
            let swapped = PageEntry::new(PageState::Swapped { slot });
            inner.versions.set(place, index, PageEvent::StoreDone, swapped);
            self.take_out(frame)
        };
        drop(gone);
        Some(true)
    }

    /// Brings a page back that a version has, at a place, and that is not just dirty: answers what its entry is then, or
    /// what to wait for. Gives up the lock only with an answer to wait.
    pub(super) fn bring_back<I: DerefMut<Target = Inner>>(
        &self,
        mut inner: I,
        (version, place, index): (VersionId, u32, u64),
        write: bool,
        load: &Load<'_>,
        spare: &mut Option<Frame>,
    ) -> Result<I, Attempt> {
        let entry = inner.versions.entry(place, index);
        let Swaps { name: object, area: Some(area) } = inner.swaps else { return Ok(inner) };
        let event = PageEvent::touch(write);
        let slot = match (entry.state(), load) {
            (PageState::Loaded { .. }, _) => {
                if !entry.referenced() && !write {
                    inner.versions.set(place, index, event, entry.with_referenced(true));
                }
                return Ok(inner);
            }
            (PageState::SwappingOut { frame }, _) => {
                let back = if area.has_slot(frame) {
                    PageEntry::new(PageState::Loaded { frame }).with_referenced(true)
                } else {
                    PageEntry::new(PageState::Dirty { frame })
                };
                inner.versions.set(place, index, event, back);
                return Ok(inner);
            }
            (PageState::Swapped { .. } | PageState::SwappingIn { .. }, Load::Not(_)) => {
                return Err(Attempt::Again);
            }
            (PageState::Swapped { slot: 0 }, _) => {
                let Some(frame) = self.memory.frames().zeroed_page(spare, None) else {
                    return Err(Attempt::NeedsFrame);
                };
                let frame = frame.into_number();
                inner.versions.set(place, index, event, PageEntry::new(PageState::Dirty { frame }));
                inner.swaps.list(self.memory, index, frame);
                Counters::count(&self.memory.counters.zero_fills);
                Counters::count(&self.memory.counters.zeros_back);
                return Ok(inner);
            }
            (PageState::Swapped { slot }, _) => slot,
            (PageState::SwappingIn { slot }, _) => {
                Counters::count(&self.memory.counters.loads_shared);
                return Err(area.read_of(slot).map_or(Attempt::Again, Attempt::Wait));
            }
            _ => return Ok(inner),
        };
        let advice = if let Load::With(advice) = load { *advice } else { Advice::Random };
        let window = match advice {
            _ if !self.memory.reads_ahead() => 1,
            Advice::Random => 1,
            advice => inner.streams.missing(index, WINDOW, advice) - index,
        };
        let pages = inner.in_a_row(version, (index, slot), window.min(area.slots_at_once()));
        if !self.memory.hardware().heap_has_room() {
            return Err(Attempt::heap_is_full(spare));
        }
        let Ok(room) = Reading::try_room(pages as usize - 1) else {
            return Err(Attempt::heap_is_full(spare));
        };
        let Some(frame) = spare.take().or_else(|| self.memory.frames().try_alloc_page(None)) else {
            return Err(Attempt::NeedsFrame);
        };
        let mut read = match self.begin_read(area, &mut inner, (place, index, slot), event, frame) {
            Ok(page) => Reading::new(object, index, slot, page, room),
            Err(frame) => {
                *spare = Some(frame);
                return Err(Attempt::heap_is_full(spare));
            }
        };
        self.read_along(area, &mut inner, version, &mut read, pages);
        drop(inner);
        let load = read.first_load();
        area.read(read);
        Err(Attempt::Wait(load))
    }

    /// Adds the next pages to a read that has its first, up to `pages` in all, as far as there are frames to spare.
    pub(super) fn read_along(
        &self,
        area: &SwapArea,
        inner: &mut Inner,
        version: VersionId,
        read: &mut Reading,
        pages: u64,
    ) {
        for ahead in 1..pages {
            let has_room = self.memory.hardware().heap_has_room();
            let frame = if has_room { self.memory.try_alloc_ahead() } else { None };
            let next = inner.swapped_at(version, (read.index + ahead, read.slot + ahead));
            let (Some(frame), Some(place)) = (frame, next) else { break };
            let at = (place, read.index + ahead, read.slot + ahead);
            let Ok(page) = self.begin_read(area, inner, at, PageEvent::Ahead, frame) else { break };
            read.push(page);
        }
    }

    /// A page is read into a frame from now on. Gives the frame back where the heap is full.
    pub(super) fn begin_read(
        &self,
        area: &SwapArea,
        inner: &mut Inner,
        (place, index, slot): (u32, u64, u64),
        event: PageEvent,
        frame: Frame,
    ) -> Result<ReadPage, Frame> {
        let Ok(load) = Transfer::new(self.memory, index) else { return Err(frame) };
        if area.begin_read(slot, load.clone()).is_err() {
            return Err(frame);
        }
        inner.versions.set(place, index, event, PageEntry::new(PageState::SwappingIn { slot }));
        Ok(ReadPage { frame, load, ahead: event == PageEvent::Ahead })
    }

    /// The read of a page has ended: with its frame, or in vain.
    pub(crate) fn end_swap_in(
        &self,
        area: &SwapArea,
        index: u64,
        slot: u64,
        frame: Option<Frame>,
        ahead: bool,
    ) {
        let unwanted = {
            let inner = &mut *self.inner.lock();
            let reading = PageEntry::new(PageState::SwappingIn { slot });
            let found = inner.versions.find_entry(index, |entry| entry == reading);
            // Before anybody begins another read of the slot.
            match (found, frame) {
                (Some((place, _)), Some(frame)) => {
                    let frame = frame.into_number();
                    area.end_read(slot, Some(frame));
                    let loaded = PageEntry::new(PageState::Loaded { frame }).with_referenced(!ahead);
                    inner.versions.set(place, index, PageEvent::LoadDone, loaded);
                    inner.swaps.list(self.memory, index, frame);
                    None
                }
                (Some((place, _)), None) => {
                    area.end_read(slot, None);
                    let swapped = PageEntry::new(PageState::Swapped { slot });
                    inner.versions.set(place, index, PageEvent::LoadFailed, swapped);
                    None
                }
                (None, frame) => {
                    area.end_read(slot, None);
                    frame
                }
            }
        };
        drop(unwanted);
    }
}
