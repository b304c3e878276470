//! The steps of a change to a range: the tables for it are made, then its entries are changed, level by level. The depth
//! is that of the levels.

use core::sync::atomic::Ordering;

use super::tables::Parent;
use super::{NeedsFrame, PageTable, Part};
use crate::address::PAGE_BYTES;
use crate::page_entry::{ACCESSED, DIRTY, LARGE, PRESENT, WRITABLE, is_leaf, span, target};
use crate::{PhysAddr, VirtAddr};

/// What is to be shown.
pub(super) struct Segment {
    /// The physical address less the virtual one.
    pub(super) distance: u64,
    /// The bits of each page.
    pub(super) bits: u64,
    /// The level of the largest pages.
    pub(super) largest: u32,
}

impl Segment {
    /// Whether one entry of this level can show this piece of it. `value` is what it holds.
    pub(super) fn fits(&self, piece: Part, level: u32, value: u64) -> bool {
        let physical = self.distance.wrapping_add(piece.first);
        let is_table = value & PRESENT != 0 && !is_leaf(value, level);
        level <= self.largest && !is_table && piece.is_whole(level) && physical.is_multiple_of(span(level))
    }
}

impl PageTable {
    /// Makes the tables below this one that a part takes, except where `is_page` says that an entry is or will be a
    /// page.
    pub(super) fn prepare(
        &mut self,
        table: PhysAddr,
        parent: Parent,
        level: u32,
        part: Part,
        is_page: &impl Fn(Part, u32, u64) -> bool,
    ) -> Result<(), NeedsFrame> {
        for index in part.indexes(level) {
            let entry = &self.entries(table)[index];
            let value = entry.load(Ordering::Relaxed);
            let piece = part.piece(level, index);
            if is_page(piece, level, value) {
                continue;
            }
            let lower = if value & PRESENT == 0 {
                self.add_table(parent, entry, &mut None)?
            } else if is_leaf(value, level) {
                self.split(entry, level, &mut None)?
            } else {
                target(value)
            };
            if level > 2 {
                self.prepare(lower, Some(entry), level - 1, piece, is_page)?;
            }
        }
        Ok(())
    }

    /// Enters the pages of a segment, whose tables are there.
    pub(super) fn enter(
        &mut self,
        table: PhysAddr,
        parent: Parent,
        level: u32,
        part: Part,
        segment: &Segment,
    ) {
        let mut added = 0;
        for index in part.indexes(level) {
            let entry = &self.entries(table)[index];
            let value = entry.load(Ordering::Relaxed);
            let piece = part.piece(level, index);
            if !segment.fits(piece, level, value) {
                if segment.bits & !value & WRITABLE != 0 {
                    self.push_down(entry);
                }
                self.enter(target(value), Some(entry), level - 1, piece, segment);
                continue;
            }
            let large = if level > 1 { LARGE } else { 0 };
            let wanted = segment.distance.wrapping_add(piece.first) | segment.bits | large;
            if value & PRESENT == 0 {
                entry.store(wanted, Ordering::Release);
                self.resident += span(level) / PAGE_BYTES;
                added += 1;
            } else {
                let kept = ACCESSED | DIRTY;
                entry.try_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(wanted | old & kept)).ok();
                self.invalidate(piece);
            }
        }
        self.count_in(parent, added);
    }

    /// Takes the pages of a part out, none of which reaches out of it.
    pub(super) fn take_out(&mut self, table: PhysAddr, parent: Parent, level: u32, part: Part) {
        let mut gone = 0;
        for index in part.indexes(level) {
            let entry = &self.entries(table)[index];
            let value = entry.load(Ordering::Relaxed);
            if value & PRESENT == 0 {
                continue;
            }
            let piece = part.piece(level, index);
            if is_leaf(value, level) {
                entry.swap(0, Ordering::AcqRel);
                self.resident = self.resident.saturating_sub(span(level) / PAGE_BYTES);
                self.invalidate(piece);
                gone += 1;
            } else {
                self.take_out(target(value), Some(entry), level - 1, piece);
                gone += usize::from(self.free_if_empty(entry));
            }
        }
        self.count_out(parent, gone);
    }

    /// Takes bits from the pages of a part and gives them others. None of the pages reaches out of it.
    pub(super) fn change(&mut self, table: PhysAddr, level: u32, part: Part, less: u64, more: u64) {
        for index in part.indexes(level) {
            let entry = &self.entries(table)[index];
            let value = entry.load(Ordering::Relaxed);
            let piece = part.piece(level, index);
            if value & PRESENT == 0 {
                continue;
            }
            if is_leaf(value, level) {
                let changed = |old| Some(old & !less | more);
                entry.try_update(Ordering::AcqRel, Ordering::Relaxed, changed).ok();
                self.invalidate(piece);
                continue;
            }
            if more & !value & WRITABLE != 0 {
                self.push_down(entry);
            }
            self.change(target(value), level - 1, piece, less, more);
        }
    }

    fn invalidate(&self, page: Part) {
        self.memory.hardware().invalidate(self.root, VirtAddr::truncated(page.first));
    }
}
