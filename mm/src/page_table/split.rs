//! A large page becomes a table of 512 smaller ones that show the same.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{NeedsFrame, PageTable, Part};
use crate::frame::address_of;
use crate::page_entry::{
    ACCESSED, DIRTY, ENTRIES, GLOBAL, LARGE, OWNED, PRESENT, RIGHTS, TYPE, is_leaf, page_at, span,
};
use crate::{Frame, PhysAddr};

impl PageTable {
    /// Puts a table in the place of a large page that an entry of this level shows. The pages in it have its rights and
    /// memory type, and its accessed and dirty bits, since nobody knows which of them the processor meant. A page that
    /// somebody owns has a table set aside; others take `spare`, or a frame of the pool.
    pub(super) fn split(
        &mut self,
        entry: &AtomicU64,
        level: u32,
        spare: &mut Option<Frame>,
    ) -> Result<PhysAddr, NeedsFrame> {
        let mut large = entry.load(Ordering::Relaxed);
        let frame = if large & OWNED != 0 { self.take_aside() } else { self.table_frame(spare)? };
        let table = address_of(frame.into_number());
        let pointer = self.pointer(table, ENTRIES);
        loop {
            let leaf = PRESENT | if level > 2 { LARGE } else { 0 };
            let same = large & (RIGHTS | TYPE | GLOBAL | ACCESSED | DIRTY);
            let start = page_at(large, level);
            for (index, smaller) in (0..).zip(self.entries(table)) {
                let page = start + index * span(level - 1);
                smaller.store(page | leaf | same, Ordering::Relaxed);
            }
            match entry.compare_exchange(large, pointer, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                // The processor has used the page meanwhile.
                Err(now) => large = now,
            }
        }
        self.tables += 1;
        Ok(table)
    }

    /// Splits the large pages that lie only partly in a part.
    pub(super) fn split_at_ends(&mut self, part: Part) -> Result<(), NeedsFrame> {
        for address in [part.first, part.last] {
            loop {
                let (entry, level, value) = self.deepest(address);
                let page = address & !(span(level) - 1);
                let covered = part.first <= page && page + (span(level) - 1) <= part.last;
                if value & PRESENT == 0 || covered {
                    break;
                }
                debug_assert!(is_leaf(value, level) && level > 1, "ends lie between pages");
                self.split(entry, level, &mut None)?;
            }
        }
        Ok(())
    }
}
