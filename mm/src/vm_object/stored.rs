//! Which pages were ever stored, and which of them may not be durable.
//!
//! A mark asks for the first: it counts as clean what was never stored, and what was not written since its
//! last store. So the answer must be the same whether a page was given back and loaded again in between or not.
//! Who has a frame has a bit in its entry (see `page_state`); here is what that is set by when a page comes back.
//!
//! A flush asks for the second: what to store again when it fails; see `flush`.
//!
//! Bits are for pages that were stored only. An overlay's pages are its base's in this, as they have one pager.

use super::{FlushError, VmObject};
use crate::OutOfMemory;
use crate::fallible::Shared;
use crate::ordered_map::{OrderedMap, Room};
use crate::page_state::PageEntry;
use crate::transfer::Transfer;

/// Pages of one entry.
const PAGES: u64 = 64;

/// A bit for each of 64 pages.
#[derive(Clone, Copy, Default)]
struct Bits {
    /// It was stored once.
    ever: u64,
    /// It was stored since the last flush request was made.
    since: u64,
    /// It was stored before that, and after the last one that ended well.
    flushing: u64,
}

/// What is known of an object's stores.
#[derive(Default)]
pub(super) struct StoredPages {
    bits: OrderedMap<u64, Bits>,
    /// This object, base or overlay, has stored something since the last flush request was made.
    since: bool,
    /// It had, before that, and after the last one that ended well.
    flushing: bool,
    /// What the next flush of this object says, base or overlay.
    pub(super) error: Option<FlushError>,
    /// The flush request of the family that is with the pager.
    pub(super) flush: Option<Shared<Transfer>>,
}

impl StoredPages {
    /// Makes room for a page, which is about to be stored.
    pub(super) fn make_room(&mut self, index: u64) -> Result<(), OutOfMemory> {
        if self.bits.get(&(index / PAGES)).is_none() {
            self.bits.insert(Room::try_new()?, index / PAGES, Bits::default());
        }
        Ok(())
    }

    /// A page was stored. There is room for it.
    pub(super) fn note(&mut self, index: u64) {
        if let Some(bits) = self.bits.get_mut(&(index / PAGES)) {
            bits.ever |= 1 << (index % PAGES);
            bits.since |= 1 << (index % PAGES);
        }
    }

    /// This object has stored a page.
    pub(super) fn note_store(&mut self) {
        self.since = true;
    }

    /// Whether a page was ever stored.
    fn contain(&self, index: u64) -> bool {
        self.bits.get(&(index / PAGES)).is_some_and(|bits| bits.ever >> (index % PAGES) & 1 != 0)
    }

    /// Whether this object has stored something that no flush covers; of a base, also what an overlay has stored that may be
    /// gone by now.
    pub(super) fn need_flush(&self) -> bool {
        self.since || self.flushing || self.has_uncovered()
    }

    fn has_uncovered(&self) -> bool {
        let mut next = 0;
        while let Some((chunk, bits)) = self.bits.at_or_after(&next) {
            if bits.since | bits.flushing != 0 {
                return true;
            }
            next = chunk + 1;
        }
        false
    }

    /// A flush request is made.
    pub(super) fn begin_flush(&mut self) {
        self.flushing |= core::mem::take(&mut self.since);
        self.each_bits(|bits| bits.flushing |= core::mem::take(&mut bits.since));
    }

    /// It has ended well.
    pub(super) fn end_flush(&mut self) {
        self.flushing = false;
        self.each_bits(|bits| bits.flushing = 0);
    }

    /// One has failed: the object has stored nothing that counts any more. Says whether it had.
    pub(super) fn forget_stores(&mut self) -> bool {
        core::mem::take(&mut self.since) | core::mem::take(&mut self.flushing)
    }

    /// Takes the first page from `from` on that may not be durable.
    pub(super) fn take_not_durable(&mut self, from: u64) -> Option<u64> {
        let mut chunk = from / PAGES;
        let mut mask = u64::MAX << (from % PAGES);
        loop {
            let (found, bits) = self.bits.at_or_after(&chunk).map(|(found, bits)| (found, *bits))?;
            if found > chunk {
                mask = u64::MAX;
            }
            let left = (bits.since | bits.flushing) & mask;
            if left != 0 {
                let bit = left & left.wrapping_neg();
                let bits = self.bits.get_mut(&found)?;
                bits.since &= !bit;
                bits.flushing &= !bit;
                return Some(found * PAGES + u64::from(bit.trailing_zeros()));
            }
            (chunk, mask) = (found.checked_add(1)?, u64::MAX);
        }
    }

    fn each_bits(&mut self, mut change: impl FnMut(&mut Bits)) {
        let mut next = 0;
        while let Some((chunk, _)) = self.bits.at_or_after(&next) {
            change(self.bits.get_mut(&chunk).expect("it was just found"));
            next = chunk + 1;
        }
    }
}

impl VmObject {
    /// The entry of a clean page that has just got its frame.
    pub(super) fn entered(&self, index: u64, entry: PageEntry) -> PageEntry {
        if self.family().stored.lock().contain(index) { entry.with_stored() } else { entry }
    }
}
