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
use crate::page_entry::{ENTRIES, PRESENT, ROOT_LEVEL, WRITABLE, count, is_leaf, target};
use crate::{MapError, PhysAddr, VirtAddr};

/// A table with so many entries is protected as a whole.
const FEW: usize = 64;
/// Entries that one call may look into, where a table counts for [`TABLE`] more.
const BUDGET: usize = 256;
const TABLE: usize = 8;
/// Entries that are looked at together.
const GROUP: usize = 16;

impl PageTable {
    /// Takes the right to write from all pages of a range, and perhaps from pages beside it, which get it back when
    /// they are entered anew. The cost depends on neither the length of the range nor the pages in it.
    ///
    /// Segments do not come back by faults: below the lower half's entries there are none, or their owner gives the
    /// right back with [`protect_segment`](Self::protect_segment).
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
        Ok(self.protect_below(self.root, ENTRIES, ROOT_LEVEL, part, &mut { BUDGET }))
    }

    /// Takes the right from the entries of a table, which has at most `present`, or from those below them.
    fn protect_below(
        &self,
        table: PhysAddr,
        present: usize,
        level: u32,
        part: Part,
        budget: &mut usize,
    ) -> bool {
        let entries = self.entries(table);
        let mut taken = false;
        let (mut at, end) = (*part.indexes(level).start(), *part.indexes(level).end() + 1);
        for _ in 0..present {
            let Some(index) = next_present(entries, at, end) else { break };
            at = index + 1;
            let entry = &entries[index];
            let value = entry.load(Ordering::Relaxed);
            if value & WRITABLE == 0 {
                continue;
            }
            if !is_leaf(value, level) {
                let piece = part.piece(level, index);
                let below = count(value).min(piece.entries(level - 1));
                if below < FEW && below + TABLE <= *budget {
                    *budget -= below + TABLE;
                    taken |= self.protect_below(target(value), count(value), level - 1, piece, budget);
                    continue;
                }
            }
            entry.fetch_and(!WRITABLE, Ordering::Relaxed);
            taken = true;
        }
        taken
    }

    /// Allows writing at an entry that points to a table, and takes the right from that table's entries instead: so
    /// nothing can be written that could not before.
    ///
    /// A processor may set bits in them at any time, so each is changed by an atomic operation; but most tables have
    /// many entries that need none.
    pub(super) fn push_down(&self, entry: &AtomicU64) {
        let table = self.entries(target(entry.load(Ordering::Relaxed)));
        for group in table.as_chunks::<GROUP>().0 {
            if any(group) & WRITABLE != 0 {
                for below in group {
                    below.fetch_and(!WRITABLE, Ordering::Relaxed);
                }
            }
        }
        entry.fetch_or(WRITABLE, Ordering::Release);
    }
}

/// The first present entry with an index in `at..end`.
fn next_present(entries: &[AtomicU64; ENTRIES], mut at: usize, end: usize) -> Option<usize> {
    while at < end {
        let rest = &entries[at..end];
        if let Some(group) = rest.first_chunk()
            && any(group) & PRESENT == 0
        {
            at += GROUP;
            continue;
        }
        let group = &rest[..rest.len().min(GROUP)];
        match group.iter().position(|entry| entry.load(Ordering::Relaxed) & PRESENT != 0) {
            Some(index) => return Some(at + index),
            None => at += group.len(),
        }
    }
    None
}

/// The bits that any of them has.
fn any(group: &[AtomicU64; GROUP]) -> u64 {
    group.iter().fold(0, |bits, entry| bits | entry.load(Ordering::Relaxed))
}
