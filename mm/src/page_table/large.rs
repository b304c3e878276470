//! 512 pages of private memory that one entry shows: a page of 2 MiB.
//!
//! What is known about these pages is known about each of them; that they are shown together is the tables' affair
//! alone. So whoever changes one of them finds it by itself: the large page is split first. That needs a table, and
//! nobody who takes rights away can wait for a frame. Hence each large page has a table set aside from the start, which
//! it gives back when it goes as a whole.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::page::leaf_of;
use super::part::index;
use super::{Leaf, NeedsFrame, PageTable};
use crate::address::PAGE_BYTES;
use crate::frame::address_of;
use crate::page_entry::{
    ADDRESS, LARGE, OWNED, PRESENT, RIGHTS, ROOT_LEVEL, WRITABLE, is_leaf, page_at, rights, span, target,
};
use crate::{Frame, FrameRun, PageSize, PhysAddr, Protection, VirtAddr};

/// The level of the entries that show such pages.
const LEVEL: u32 = 2;
/// Pages that one shows.
const PAGES: u64 = FrameRun::LARGE as u64;

/// The tables that are set aside: each names the next in its first entry.
#[derive(Default)]
pub(super) struct Aside {
    first: Option<PhysAddr>,
}

impl PageTable {
    /// Whether a large page can be entered around this page: nothing is shown in it, and no table is there for it.
    pub(crate) fn has_room_for_large(&self, page: VirtAddr) -> bool {
        let (_, level, value) = self.deepest(page.as_u64());
        level >= LEVEL && value & PRESENT == 0
    }

    /// Makes what a large page takes that begins at `page`: the tables above it, and the one that is set aside. False if
    /// something is shown there.
    ///
    /// # Errors
    /// Without frames. Tables made so far stay.
    pub(crate) fn prepare_large(&mut self, page: VirtAddr) -> Result<bool, NeedsFrame> {
        if !self.has_room_for_large(page) || self.memory.hardware().largest_page() < PageSize::Size2MiB {
            return Ok(false);
        }
        self.entry_for_large(page)?;
        let table = address_of(self.table_frame(&mut None)?.into_number());
        let next = self.aside.first.map_or(0, PhysAddr::as_u64);
        self.entries(table)[0].store(next, Ordering::Relaxed);
        self.aside.first = Some(table);
        self.tables += 1;
        Ok(true)
    }

    /// Enters what was prepared: the frames from `first` on, the first at a multiple of 2 MiB.
    pub(crate) fn map_large(&mut self, page: VirtAddr, first: u64, protection: Protection) {
        debug_assert!(first.is_multiple_of(PAGES));
        let (parent, entry) = self.entry_for_large(page).expect("its tables were made");
        debug_assert!(entry.load(Ordering::Relaxed) & PRESENT == 0, "it was looked at under the same lock");
        if protection.write {
            self.open_above(page);
        }
        let large = address_of(first).as_u64() | PRESENT | LARGE | OWNED | rights(protection);
        entry.store(large, Ordering::Release);
        self.resident += PAGES;
        self.count_in(Some(parent), 1);
    }

    /// Takes out the large page that begins at `page`, if one does and somebody owns it; tells what the processor noted
    /// in it, with its first frame.
    pub(super) fn unmap_large(&mut self, page: VirtAddr) -> Option<Leaf> {
        let (above, leaf) = self.large_leaf(page)?;
        let old = leaf.swap(0, Ordering::AcqRel);
        drop(self.take_aside());
        self.resident = self.resident.saturating_sub(PAGES);
        self.uncount_entries(&above, 1);
        Some(leaf_of(old))
    }

    /// The entry of the large page that begins at `page`, if somebody owns one there, and those above it, the lowest
    /// first.
    pub(super) fn large_leaf(&self, page: VirtAddr) -> Option<([&'static AtomicU64; 2], &'static AtomicU64)> {
        let (entry, _, value) = self.deepest(page.as_u64());
        if value & OWNED == 0 || !page.as_u64().is_multiple_of(span(LEVEL)) {
            return None;
        }
        let first = &self.entries(self.root)[index(page.as_u64(), ROOT_LEVEL)];
        let second = &self.entries(target(first.load(Ordering::Relaxed)))[index(page.as_u64(), LEVEL + 1)];
        Some(([second, first], entry))
    }

    /// Whether a large page that somebody owns shows already what an entry is to show at a page of it, and the levels
    /// above allow that.
    pub(super) fn is_in_large(&self, page: VirtAddr, wanted: u64) -> bool {
        let mut table = self.root;
        for level in (LEVEL..=ROOT_LEVEL).rev() {
            let value = self.entries(table)[index(page.as_u64(), level)].load(Ordering::Relaxed);
            if value & OWNED != 0 {
                let shown = page_at(value, level) + (page.as_u64() & (span(level) - 1));
                return shown == wanted & ADDRESS && (value ^ wanted) & RIGHTS == 0;
            }
            if value & PRESENT == 0 || is_leaf(value, level) || wanted & !value & WRITABLE != 0 {
                return false;
            }
            table = target(value);
        }
        false
    }

    /// Whether a range has all of the large page that its first page lies in.
    pub(super) fn covers_large(&self, range: &Range<VirtAddr>) -> bool {
        let start = range.start.as_u64();
        start.is_multiple_of(span(LEVEL)) && range.end.as_u64().wrapping_sub(start) >= span(LEVEL)
    }

    /// Splits a large page that somebody owns.
    pub(super) fn split_owned(&mut self, entry: &AtomicU64) {
        let split = self.split(entry, LEVEL, &mut None);
        assert!(split.is_ok(), "a table was set aside for it");
    }

    /// One of the tables that were set aside, with anything in it.
    pub(super) fn take_aside(&mut self) -> Frame {
        let table = self.aside.first.expect("each large page has set one aside");
        let next = self.entries(table)[0].load(Ordering::Relaxed);
        self.aside.first = (next != 0).then(|| PhysAddr::new(next));
        self.tables -= 1;
        Frame::from_number(self.memory.table_frames(), table.as_u64() / PAGE_BYTES)
    }

    /// Frees what is set aside when the tables go with large pages in them.
    pub(super) fn free_all_aside(&mut self) {
        while self.aside.first.is_some() {
            drop(self.take_aside());
        }
    }

    /// The entry for a large page, and the one above it. Missing tables are added.
    fn entry_for_large(
        &mut self,
        page: VirtAddr,
    ) -> Result<(&'static AtomicU64, &'static AtomicU64), NeedsFrame> {
        let (mut table, mut parent) = (self.root, None);
        for level in (LEVEL + 1..=ROOT_LEVEL).rev() {
            let entry = &self.entries(table)[index(page.as_u64(), level)];
            let value = entry.load(Ordering::Relaxed);
            table =
                if value & PRESENT == 0 { self.add_table(parent, entry, &mut None)? } else { target(value) };
            parent = Some(entry);
        }
        let parent = parent.expect("there are levels above");
        Ok((parent, &self.entries(table)[index(page.as_u64(), LEVEL)]))
    }

    /// Allows writing at the levels above a large page, and pushes down what forbade it.
    fn open_above(&self, page: VirtAddr) {
        let mut table = self.root;
        for level in (LEVEL + 1..=ROOT_LEVEL).rev() {
            let entry = &self.entries(table)[index(page.as_u64(), level)];
            if entry.load(Ordering::Relaxed) & WRITABLE == 0 {
                self.push_down(entry);
            }
            table = target(entry.load(Ordering::Relaxed));
        }
    }
}
