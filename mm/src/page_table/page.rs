//! Pages of objects: 4 KiB each, one at a time. One that lies in a large page of private memory is looked at there; who
//! changes it splits that first (see `large`). One that lies in another large page is no object's.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::part::index;
use super::tables::Parent;
use super::{Leaf, NeedsFrame, PageTable};
use crate::address::PAGE_BYTES;
use crate::frame::address_of;
use crate::page_entry::{
    ACCESSED, ADDRESS, DIRTY, GLOBAL, NO_EXECUTE, OWNED, PRESENT, RIGHTS, ROOT_LEVEL, USER, WRITABLE,
    is_leaf, page_at, rights, span, target,
};
use crate::{Frame, Protection, VirtAddr};

/// Looks at entries before locks are given up for a moment.
pub(crate) const LOOKS: usize = 64;

/// The entries on the way to a page that point to tables, the lowest first.
pub(super) type Above = [&'static AtomicU64; 3];

impl PageTable {
    /// Enters a frame at a page where all tables are there and allow as much, and nothing or `old_frame` is shown, as mostly:
    /// this CPU forgets that. False if it is otherwise. `rights` are the bits of a leaf.
    #[inline]
    pub(crate) fn map_if_open(
        &mut self,
        page: VirtAddr,
        old_frame: Option<u64>,
        frame: u64,
        rights: u64,
    ) -> bool {
        let wanted = address_of(frame).as_u64() | PRESENT | rights;
        match self.leaf_if_open(page, wanted) {
            Some((parent, leaf)) => self.enter_at(leaf, Some(parent), page, old_frame, wanted),
            None => false,
        }
    }

    /// The same where [`map_if_open`](Self::map_if_open) has failed. What shows the frame already has its rights
    /// changed. If the page may be written, protection at upper levels is pushed down (see `write_protect`), so that
    /// it is this page's alone.
    ///
    /// A missing table takes `spare`, or a frame of the pool. With neither, tables made so far stay, so each
    /// try with a spare frame gets further than the last.
    ///
    /// # Panics
    /// When the page shows another frame, or a permanent one: who takes that away waits before it enters this.
    pub(crate) fn map_slowly(
        &mut self,
        page: VirtAddr,
        old_frame: Option<u64>,
        frame: u64,
        rights: u64,
        spare: &mut Option<Frame>,
    ) -> Result<(), NeedsFrame> {
        let wanted = address_of(frame).as_u64() | PRESENT | rights;
        if self.is_in_large(page, wanted) {
            return Ok(());
        }
        let (parent, leaf) = self.leaf_or_make(page, wanted, spare)?;
        if self.enter_at(leaf, parent, page, old_frame, wanted) {
            return Ok(());
        }
        let old = leaf.load(Ordering::Relaxed);
        let same = old & (ADDRESS | GLOBAL) == wanted & ADDRESS;
        assert!(same, "page {page} shows another frame already");
        let kept = ACCESSED | DIRTY;
        leaf.try_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(wanted | old & kept)).ok();
        Ok(())
    }

    /// Stores a leaf where nothing is shown, or the old frame. False if not.
    #[inline]
    fn enter_at(
        &mut self,
        leaf: &AtomicU64,
        parent: Parent,
        page: VirtAddr,
        old_frame: Option<u64>,
        wanted: u64,
    ) -> bool {
        let old = leaf.load(Ordering::Relaxed);
        if old & PRESENT == 0 {
            leaf.store(wanted, Ordering::Release);
            self.resident += 1;
            self.count_in(parent, 1);
            return true;
        }
        let is_old = old_frame.is_some_and(|frame| old & (ADDRESS | GLOBAL) == address_of(frame).as_u64());
        if is_old {
            leaf.store(wanted, Ordering::Release);
            self.memory.hardware().invalidate(self.root, page);
        }
        is_old
    }

    /// Enters a frame at a page where nothing is shown, if the table for it is there and the way to it allows as much. True
    /// if it is entered.
    #[inline]
    pub(crate) fn map_beside(&mut self, page: VirtAddr, frame: u64, protection: Protection) -> bool {
        self.map_if_open(page, None, frame, rights(protection))
    }

    /// Takes a page out, and the tables that are empty without it.
    pub(crate) fn unmap(&mut self, page: VirtAddr) -> Option<Leaf> {
        let (above, leaf) = self.leaf(page)?;
        let old = leaf.swap(0, Ordering::AcqRel);
        self.uncount(above, 1);
        Some(leaf_of(old))
    }

    /// Takes the pages of a range out, and the tables that are empty without them, and tells each page; goes through
    /// the range as [`next_present`](Self::next_present) does, until the looks are used up or it is empty.
    pub(crate) fn unmap_some(
        &mut self,
        rest: &mut Range<VirtAddr>,
        looks: &mut usize,
        mut told: impl FnMut(VirtAddr, Leaf),
    ) {
        // A page says where a table is that has more of them.
        while let Some(first) = self.next_present(rest, looks) {
            if let Some(leaf) = self.unmap_large(first) {
                told(first, leaf);
                continue;
            }
            let Some((above, leaf)) = self.leaf(first) else { continue };
            told(first, leaf_of(leaf.swap(0, Ordering::AcqRel)));
            let mut gone = 1;
            let pages = (rest.end.as_u64() - rest.start.as_u64()) / PAGE_BYTES;
            let following =
                &self.entries(target(above[0].load(Ordering::Relaxed)))[index(first.as_u64(), 1) + 1..];
            let looked = following.len().min(*looks).min(pages as usize);
            for (entry, distance) in following[..looked].iter().zip(0..) {
                if entry.load(Ordering::Relaxed) & PRESENT != 0 {
                    told(rest.start.page_add(distance), leaf_of(entry.swap(0, Ordering::AcqRel)));
                    gone += 1;
                }
            }
            rest.start = rest.start.page_add(looked as u64);
            *looks -= looked;
            self.uncount(above, gone);
        }
    }

    /// Notes that pages are gone from the lowest of the tables on the way to them.
    pub(super) fn uncount(&mut self, above: Above, pages: usize) {
        self.resident = self.resident.saturating_sub(pages as u64);
        self.uncount_entries(&above, pages);
    }

    /// Notes that entries are gone from the lowest of these tables; those that are empty then go, too.
    pub(super) fn uncount_entries(&mut self, above: &[&'static AtomicU64], entries: usize) {
        let mut gone = entries;
        for entry in above {
            self.count_out(Some(entry), gone);
            if !self.free_if_empty(entry) {
                return;
            }
            gone = 1;
        }
        self.count_out(None, 1);
    }

    /// Shows another frame where a page shows this one, read-only and as if it had not been used; this CPU forgets that.
    pub(crate) fn exchange(&mut self, page: VirtAddr, old: u64, new: u64) {
        if !self.shows(page, old) {
            return;
        }
        let Some((_, leaf)) = self.leaf(page) else { return };
        let kept = leaf.load(Ordering::Relaxed) & !(ADDRESS | WRITABLE | ACCESSED | DIRTY);
        leaf.store(kept | address_of(new).as_u64(), Ordering::Release);
        self.memory.hardware().invalidate(self.root, page);
    }

    /// Takes away the rights that `protection` does not give from a page, or from the large page that begins there as
    /// [`next_present`](Self::next_present) told it; true when any were there.
    pub(crate) fn restrict(&mut self, page: VirtAddr, protection: Protection) -> bool {
        let large = self.large_leaf(page).map(|(_, leaf)| leaf);
        let Some(leaf) = large.or_else(|| self.leaf(page).map(|(_, leaf)| leaf)) else { return false };
        let wanted = rights(protection);
        let less = |entry: u64| {
            let kept = entry & wanted & (WRITABLE | USER) | (entry | wanted) & NO_EXECUTE;
            entry & !RIGHTS | kept
        };
        let old = leaf.load(Ordering::Relaxed);
        if less(old) == old {
            return false;
        }
        leaf.try_update(Ordering::AcqRel, Ordering::Relaxed, |entry| Some(less(entry))).ok();
        true
    }

    /// Looks whether the processor has used a page that shows this frame, and forgets that it has.
    pub(crate) fn take_accessed(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (_, leaf) = self.leaf(page)?;
        if leaf_of(leaf.load(Ordering::Relaxed)).frame != frame {
            return None;
        }
        Some(leaf_of(leaf.fetch_and(!ACCESSED, Ordering::AcqRel)))
    }

    /// Takes a page out if it shows this frame, as [`unmap`](Self::unmap) does.
    pub(crate) fn unmap_shown(&mut self, page: VirtAddr, frame: u64) -> Option<Leaf> {
        let (above, leaf) = self.leaf(page)?;
        if leaf_of(leaf.load(Ordering::Relaxed)).frame != frame {
            return None;
        }
        let old = leaf.swap(0, Ordering::AcqRel);
        self.uncount(above, 1);
        Some(leaf_of(old))
    }

    /// Whether a page shows this frame.
    pub(crate) fn shows(&self, page: VirtAddr, frame: u64) -> bool {
        self.shown(page).is_some_and(|leaf| leaf.frame == frame)
    }

    /// Whether the processor has written to a page since that was last forgotten.
    pub(crate) fn is_dirty(&self, page: VirtAddr) -> bool {
        self.shown(page).is_some_and(|leaf| leaf.dirty)
    }

    /// What a page shows, by itself or in a large page of private memory.
    fn shown(&self, page: VirtAddr) -> Option<Leaf> {
        let (_, level, value) = self.deepest(page.as_u64());
        if value & PRESENT == 0 || level > 1 && value & OWNED == 0 {
            return None;
        }
        let within = (page.as_u64() & (span(level) - 1)) / PAGE_BYTES;
        Some(Leaf { frame: page_at(value, level) / PAGE_BYTES + within, ..leaf_of(value) })
    }

    /// Looks whether the processor has written to a page, and forgets that it has.
    pub(crate) fn take_dirty(&mut self, page: VirtAddr) -> bool {
        self.leaf(page).is_some_and(|(_, leaf)| leaf.fetch_and(!DIRTY, Ordering::AcqRel) & DIRTY != 0)
    }

    /// Makes a page read-only, and forgets that the processor has written to it. Answers what was there.
    pub(crate) fn begin_clean(&mut self, page: VirtAddr) -> Option<Leaf> {
        let (_, leaf) = self.leaf(page)?;
        Some(leaf_of(leaf.fetch_and(!(DIRTY | WRITABLE), Ordering::AcqRel)))
    }

    /// The first page of a range that is present; whole tables that are missing are skipped, and large pages that
    /// nobody owns. A large page that somebody owns is told by its first page, and split if it is not wholly in the
    /// range. What was looked at is taken off the front of the range. Each look at a page or at such a table uses up one of
    /// `looks`, and `None` says that they are used up or the range is empty.
    pub(crate) fn next_present(&mut self, rest: &mut Range<VirtAddr>, looks: &mut usize) -> Option<VirtAddr> {
        while *looks > 0 && !rest.is_empty() {
            *looks -= 1;
            let at = rest.start;
            let (entry, mut level, value) = self.deepest(at.as_u64());
            if value & OWNED != 0 && !self.covers_large(rest) {
                self.split_owned(entry);
                level = 1;
            }
            let next = (at.as_u64() & !(span(level) - 1)).wrapping_add(span(level));
            rest.start = if next > at.as_u64() { VirtAddr::truncated(next) } else { rest.end };
            if value & PRESENT != 0 && (level == 1 || value & OWNED != 0) {
                return Some(at);
            }
        }
        None
    }

    /// The leaf entry of a page that is present, and those above it. A large page that somebody owns is split for it.
    pub(super) fn leaf(&mut self, page: VirtAddr) -> Option<(Above, &'static AtomicU64)> {
        let page = page.as_u64();
        let first = &self.entries(self.root)[index(page, ROOT_LEVEL)];
        let (mut above, mut entry) = ([first; 3], first);
        for level in (1..ROOT_LEVEL).rev() {
            let mut value = entry.load(Ordering::Relaxed);
            if value & OWNED != 0 {
                self.split_owned(entry);
                value = entry.load(Ordering::Relaxed);
            }
            if value & PRESENT == 0 || is_leaf(value, level + 1) {
                return None;
            }
            above[level as usize - 1] = entry;
            entry = &self.entries(target(value))[index(page, level)];
        }
        (entry.load(Ordering::Relaxed) & PRESENT != 0).then_some((above, entry))
    }

    /// The leaf entry of a page where `wanted` is to be entered, and the one above it. Tables are added, large pages
    /// split, and protection is pushed down, as it takes.
    #[cold]
    fn leaf_or_make(
        &mut self,
        page: VirtAddr,
        wanted: u64,
        spare: &mut Option<Frame>,
    ) -> Result<(Parent, &'static AtomicU64), NeedsFrame> {
        let (mut table, mut parent) = (self.root, None);
        for level in (2..=ROOT_LEVEL).rev() {
            let entry = &self.entries(table)[index(page.as_u64(), level)];
            let value = entry.load(Ordering::Relaxed);
            table = if value & PRESENT == 0 {
                self.add_table(parent, entry, spare)?
            } else if is_leaf(value, level) {
                let shown = page_at(value, level) + (page.as_u64() & (span(level) - 1));
                let is_right = value & OWNED != 0 || shown == wanted & ADDRESS;
                assert!(is_right, "page {page} shows another frame already");
                self.split(entry, level, spare)?
            } else {
                if wanted & !value & WRITABLE != 0 {
                    self.push_down(entry);
                }
                target(value)
            };
            parent = Some(entry);
        }
        Ok((parent, &self.entries(table)[index(page.as_u64(), 1)]))
    }
}

pub(super) fn leaf_of(entry: u64) -> Leaf {
    Leaf { frame: (entry & ADDRESS) / PAGE_BYTES, accessed: entry & ACCESSED != 0, dirty: entry & DIRTY != 0 }
}
