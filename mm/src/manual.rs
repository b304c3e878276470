//! Memory of given frames: shown as they are, never paged, and shared by all who map it, forks included. For what devices
//! and others beside programs write to.
//!
//! The object owns its frames. They are freed when the last mapping and the last holder of the object are gone and all
//! CPUs have forgotten them.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | fault, replace | both hold the object's lock: the old page is shown and then cleared, or the new one waits until all CPUs have forgotten the old one |
//! | replace, replace of one page | one after the other; each answers with what it took out, when all CPUs have forgotten that. Of the second, nobody has seen it yet |
//! | replace, its future dropped | what was taken out is in quarantine; touches of the page wait, and the background task does |
//! | replace, unmap or remap | a place that is going may still be remembered: the old frame is waited for, whether anybody shows it or not |
//! | fork, anything | the twin shows the same object |
//! | eviction, store, anything of the kind | never looks at these pages |

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use executor::lock::SpinLock;

use crate::fallible::room_for_arc;
use crate::frame::{Moment, address_of};
use crate::mapping::Mapping;
use crate::page_table::LOOKS;
use crate::reverse_map::{NoteRoom, ReverseMap, Shown};
use crate::settle::Attempt;
use crate::table::Table;
use crate::{Denial, Frame, MapError, Memory, OutOfMemory, PageIndex, PhysAddr, VirtAddr};

/// Pages that show given frames. See [`AddressSpace::map_manual`](crate::AddressSpace::map_manual).
pub struct ManualObject {
    memory: &'static Memory,
    pages: u64,
    inner: SpinLock<Inner>,
}

/// What the object's lock guards.
struct Inner {
    slots: Vec<Slot>,
    mappings: ReverseMap,
}

/// One page.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The number of its frame; 0 while it has none.
    frame: u64,
    /// Since when its last frame is taken out, while CPUs may remember that: the frame is not shown before.
    changed: Option<Moment>,
}

impl ManualObject {
    /// An object of `pages` pages that have no frames yet: touches are denied with `ManualPageMissing`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    pub fn try_new(memory: &'static Memory, pages: usize) -> Result<Arc<Self>, OutOfMemory> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(pages).map_err(|_| OutOfMemory)?;
        slots.resize(pages, Slot::default());
        room_for_arc::<Self>()?;
        let inner = SpinLock::new("manual object", Inner { slots, mappings: ReverseMap::default() });
        Ok(Arc::new(Self { memory, pages: pages as u64, inner }))
    }

    /// An object of `pages` pages that lie in a row in physical memory and are full of zeros; the first is at a
    /// multiple of `align_pages` pages, a power of two. See [`first_address`](Self::first_address). At most 1 GiB.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there are no such frames, as for no pages at all, or the heap is full.
    pub fn try_contiguous(
        memory: &'static Memory,
        pages: usize,
        align_pages: usize,
    ) -> Result<Arc<Self>, OutOfMemory> {
        let object = Self::try_new(memory, pages)?;
        let run = memory.frames().try_alloc_contiguous(pages, align_pages).ok_or(OutOfMemory)?;
        for (number, mut frame) in run.into_frames().enumerate() {
            // Not under the lock: that is a page's worth of time with interrupts off.
            frame.zero();
            object.inner.lock().slots[number].frame = frame.into_number();
        }
        Ok(object)
    }

    /// How many pages there are, with a frame or without.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The physical address of a page's frame, if it has one. It is that until somebody replaces it.
    pub fn address(&self, page: PageIndex) -> Option<PhysAddr> {
        let slot = *self.inner.lock().slots.get(page.as_u64() as usize)?;
        (slot.frame != 0).then(|| address_of(slot.frame))
    }

    /// The physical address of the first page, if all pages have frames that lie in a row: for devices that take one
    /// address for all.
    pub fn first_address(&self) -> Option<PhysAddr> {
        let inner = self.inner.lock();
        let first = inner.slots.first().filter(|first| first.frame != 0)?.frame;
        let in_a_row = (first..).zip(&inner.slots).all(|(expected, slot)| slot.frame == expected);
        in_a_row.then(|| address_of(first))
    }

    /// Shows another frame at a page from now on, or none, wherever the page is mapped; and gives the one back that it had,
    /// when no CPU remembers that any more. Touches meanwhile wait. The first frame of a page waits for nobody.
    ///
    /// # Errors
    /// `BeyondObject`; then nothing is changed, and `frame` is freed.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing, and frees `frame`. After the first poll the new frame is there,
    /// and dropping the future frees the old one, as soon as all CPUs have forgotten it.
    pub async fn replace(&self, page: PageIndex, frame: Option<Frame>) -> Result<Option<Frame>, MapError> {
        let Some(mut old) = self.exchange(page.as_u64(), frame)? else { return Ok(None) };
        self.memory.forgotten(old.since).await;
        Ok(old.frame.take())
    }

    /// Takes a page's frame out of all page tables, and puts another in its place.
    fn exchange(&self, index: u64, frame: Option<Frame>) -> Result<Option<TakenOut>, MapError> {
        if index >= self.pages {
            return Err(MapError::BeyondObject);
        }
        let mut inner = self.inner.lock();
        let Inner { slots, mappings } = &mut *inner;
        let slot = &mut slots[index as usize];
        let new = frame.map_or(0, Frame::into_number);
        let old = core::mem::replace(&mut slot.frame, new);
        if old == 0 {
            return Ok(None);
        }
        mappings.for_each(index, |mapping, page| {
            let mut tables = mapping.table.tables.lock();
            if tables.shows(page, old) {
                tables.unmap(page);
                self.memory.hardware().invalidate(mapping.table.root(), page);
            }
        });
        let since = self.memory.frames().moment();
        slot.changed = Some(since);
        let frame = Some(Frame::from_number(self.memory.frames(), old));
        Ok(Some(TakenOut { memory: self.memory, frame, since }))
    }

    /// Looks whether a page is there; as `VmObject::touch`.
    pub(crate) fn touch(
        &self,
        index: u64,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        let mut inner = self.inner.lock();
        let slot = &mut inner.slots[index as usize];
        if slot.frame == 0 {
            return Attempt::Denied(Denial::ManualPageMissing);
        }
        if let Some(changed) = slot.changed {
            if !self.memory.frames().is_over(changed) {
                return Attempt::Forgetting(changed);
            }
            slot.changed = None;
        }
        commit(slot.frame, true, spare)
    }

    /// Notes that a mapping shows pages from `first` on.
    pub(crate) fn note_mapping(
        &self,
        room: NoteRoom,
        id: u64,
        first: u64,
        shown: Shown<()>,
    ) -> Result<(), MapError> {
        self.check_pages(first, shown.pages)?;
        self.inner.lock().mappings.insert(room, id, first, shown);
        Ok(())
    }

    /// Checks that the object has these pages.
    pub(crate) fn check_pages(&self, first: u64, pages: u64) -> Result<(), MapError> {
        let end = first.checked_add(pages).filter(|&end| end <= self.pages);
        end.map(drop).ok_or(MapError::BeyondObject)
    }

    /// Forgets a mapping whose pages are no longer shown.
    pub(crate) fn forget_mapping(&self, id: u64, first: u64, pages: u64) {
        let shown = self.inner.lock().mappings.remove(id, first, pages);
        drop(shown);
    }

    /// Replaces a mapping by its two parts: the first `before` pages keep the number.
    pub(crate) fn split_mapping(&self, rooms: [NoteRoom; 2], mapping: &Mapping, before: u64, second: u64) {
        let Mapping { id, first, pages, .. } = *mapping;
        self.inner.lock().mappings.split(rooms, id, first, pages, before, second);
    }

    /// Takes pages of a mapping out of its page table; as `VmObject::hide_some`.
    pub(crate) fn hide_some(&self, mapping: &Mapping, rest: &mut Range<VirtAddr>, table: &Table) -> bool {
        let inner = self.inner.lock();
        if !inner.mappings.contains(mapping.id, mapping.first, mapping.pages) {
            return false;
        }
        let mut tables = table.tables.lock();
        let mut looks = LOOKS;
        while let Some(page) = tables.next_present(rest, &mut looks) {
            tables.unmap(page);
            self.memory.hardware().invalidate(table.root(), page);
        }
        true
    }
}

/// A frame that no page table shows any more, and that a CPU may remember.
struct TakenOut {
    memory: &'static Memory,
    /// `None` when all CPUs have forgotten it and it is somebody else's.
    frame: Option<Frame>,
    since: Moment,
}

impl Drop for TakenOut {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.memory.forget_soon(self.memory.frames().quarantine(frame));
        }
    }
}

impl Drop for ManualObject {
    /// Mappings keep the object, so no page table shows these pages any more; but a CPU may remember them.
    fn drop(&mut self) {
        let frames = self.memory.frames();
        let mut last = None;
        for slot in &self.inner.get_mut().slots {
            if slot.frame != 0 {
                last = Some(frames.quarantine(Frame::from_number(frames, slot.frame)));
            }
        }
        if let Some(last) = last {
            self.memory.forget_soon(last);
        }
    }
}

impl fmt::Debug for ManualObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualObject({} pages)", self.pages)
    }
}
