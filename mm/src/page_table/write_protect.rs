//! Copy on write: the right to write is taken away at upper levels, and the first write pushes that down.
//!
//! A page may be written only where every level allows it. So a copy of a space does not touch each page: it takes
//! the right from few entries, and is generous about where they end. Pages beside the range, and those of it that
//! may be written again, get their right back when they are written: that faults, and the fault enters the page anew.
//!
//! ```text
//! write_protect   root ─► [W] ─► [ ] ─► [W] ─► pages [W][W][W]         one entry for a gibibyte
//! a write, map    root ─► [W] ─► [W] ─► [ ] ─► pages [W][W][W]         the rest of the gibibyte stays as it was
//!                 root ─► [W] ─► [W] ─► [W] ─► pages [ ][W][ ]         the page that was written
//! ```
//!
//! Pushing down costs a look at 512 entries, taking the right from an entry a few instructions. So a table with
//! less than [`FEW`] entries in question is entered, and its entries are protected instead of the one that points to
//! it: the first write finds nothing to push down. [`BUDGET`] bounds what all tables that are entered cost together.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{PageTable, Part};
use crate::page_entry::{PRESENT, ROOT_LEVEL, WRITABLE, count, is_leaf, target};
use crate::{MapError, PhysAddr, VirtAddr};

/// A table with so many entries is protected as a whole.
const FEW: usize = 64;
/// Entries that one call may look into, where a table counts for [`TABLE`] more.
const BUDGET: usize = 256;
const TABLE: usize = 8;
/// Entries that are looked at together.
const GROUP: usize = 32;
/// With so many present entries, pushing down changes all without a look.
const MANY: usize = 96;

impl PageTable {
    /// Takes the right to write from all pages of a range, and perhaps from pages beside it, which get it back when
    /// they are entered anew. The cost depends on neither the length of the range nor the pages in it.
    ///
    /// A segment does not get its right back by faults: its owner gives it with
    /// [`protect_segment`](Self::protect_segment).
    ///
    /// True if something was taken: no processor is told; the caller waits until all of them have forgotten
    /// everything. Not from interrupt handlers.
    ///
    /// # Errors
    /// `Unaligned`, `Empty`, and `OutOfRange` for a part of the upper half: the kernel cannot fault at will.
    pub fn write_protect(&mut self, range: Range<VirtAddr>) -> Result<bool, MapError> {
        let part = self.check(&range)?;
        if self.kernel {
            return Err(MapError::OutOfRange);
        }
        self.leave();
        let present = self.top;
        Ok(present > 0 && self.protect_below(self.root, present, ROOT_LEVEL, part, &mut { BUDGET }))
    }

    /// Takes the right from the entries of a table, of which so many are present, or from those below them.
    fn protect_below(
        &self,
        table: PhysAddr,
        mut present: usize,
        level: u32,
        part: Part,
        budget: &mut usize,
    ) -> bool {
        let mut taken = false;
        let first = *part.indexes(level).start();
        let entries = &self.entries(table)[part.indexes(level)];
        for (at, group) in (first..).step_by(GROUP).zip(entries.chunks(GROUP)) {
            if group.as_array().is_some_and(|group| any(group) & PRESENT == 0) {
                continue;
            }
            for (index, entry) in (at..).zip(group) {
                let value = entry.load(Ordering::Relaxed);
                if value & WRITABLE != 0 {
                    taken |= self.enter_cheaply(value, level, index, part, budget).unwrap_or_else(|| {
                        entry.fetch_and(!WRITABLE, Ordering::Relaxed);
                        true
                    });
                }
                present -= usize::from(value & PRESENT != 0);
                if present == 0 {
                    return taken;
                }
            }
        }
        taken
    }

    /// Protects what is below an entry, if it points to a table where that is little work.
    fn enter_cheaply(
        &self,
        entry: u64,
        level: u32,
        index: usize,
        part: Part,
        budget: &mut usize,
    ) -> Option<bool> {
        let indexes = part.indexes(level);
        let is_end = index == *indexes.start() || index == *indexes.end();
        let present = count(entry);
        if is_leaf(entry, level) || present >= FEW && !is_end {
            return None;
        }
        let part = part.piece(level, index);
        let below = present.min(part.entries(level - 1));
        if below >= FEW {
            return None;
        }
        *budget = budget.checked_sub(below + TABLE)?;
        // A table that is empty has nothing to take.
        Some(present > 0 && self.protect_below(target(entry), present, level - 1, part, budget))
    }

    /// Allows writing at an entry that points to a table, and takes the right from that table's entries instead: so
    /// nothing can be written that could not before.
    ///
    /// The processor may set bits in them at any time, so each is changed by an atomic operation. Where many are
    /// present they are not asked first: that would take longer.
    pub(super) fn push_down(&self, entry: &AtomicU64) {
        let value = entry.load(Ordering::Relaxed);
        let many = count(value) >= MANY;
        for group in self.entries(target(value)).as_chunks::<GROUP>().0 {
            if many || any(group) & WRITABLE != 0 {
                for below in group {
                    below.fetch_and(!WRITABLE, Ordering::Relaxed);
                }
            }
        }
        entry.fetch_or(WRITABLE, Ordering::Release);
    }
}

/// The bits that any of them has.
fn any(group: &[AtomicU64; GROUP]) -> u64 {
    group.iter().fold(0, |bits, entry| bits | entry.load(Ordering::Relaxed))
}
