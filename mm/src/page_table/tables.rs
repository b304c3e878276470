//! Tables come, with their counts, and go when they are empty.
//!
//! An entry that points to a table counts that table's present entries, in bits that the processor ignores. The
//! kernel's tables are not counted: many were there before, they never go, and its root entries have copies.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{NeedsFrame, PageTable};
use crate::address::PAGE_BYTES;
use crate::frame::address_of;
use crate::page_entry::{ENTRIES, LARGE, ONE, PRESENT, USER, WRITABLE, count, target};
use crate::{Frame, PhysAddr};

/// An entry of the table above: the one that points to the table in question. `None` for the root.
pub(super) type Parent = Option<&'static AtomicU64>;

impl PageTable {
    /// Notes in the entry that points to a table that entries of that were added.
    pub(super) fn count_in(&mut self, parent: Parent, entries: usize) {
        match parent {
            _ if self.kernel => {}
            Some(parent) => drop(parent.fetch_add(entries as u64 * ONE, Ordering::Relaxed)),
            None => self.top += entries,
        }
    }

    /// Notes that entries were taken out.
    pub(super) fn count_out(&mut self, parent: Parent, entries: usize) {
        match parent {
            _ if self.kernel => {}
            Some(parent) => drop(parent.fetch_sub(entries as u64 * ONE, Ordering::Relaxed)),
            None => self.top -= entries,
        }
    }

    /// What an entry holds that points to a table with so many present entries.
    pub(super) fn pointer(&self, table: PhysAddr, present: usize) -> u64 {
        let (user, count) = if self.kernel { (0, 0) } else { (USER, present as u64 * ONE) };
        table.as_u64() | PRESENT | WRITABLE | user | count
    }

    /// A frame for a table: the spare one, if it is for tables as well, or one of the pool.
    pub(super) fn table_frame(&self, spare: &mut Option<Frame>) -> Result<Frame, NeedsFrame> {
        let spare = if self.memory.tables_share_frames() { spare.take() } else { None };
        spare.or_else(|| self.memory.table_frames().try_alloc()).ok_or(NeedsFrame)
    }

    /// Adds an empty table at an entry that is not present.
    pub(super) fn add_table(
        &mut self,
        parent: Parent,
        entry: &AtomicU64,
        spare: &mut Option<Frame>,
    ) -> Result<PhysAddr, NeedsFrame> {
        let mut none = None;
        let spare = if self.memory.tables_share_frames() { spare } else { &mut none };
        let frame = self.memory.table_frames().zeroed(spare).ok_or(NeedsFrame)?;
        let table = address_of(frame.into_number());
        entry.store(self.pointer(table, 0), Ordering::Release);
        self.tables += 1;
        self.count_in(parent, 1);
        Ok(table)
    }

    /// Frees the table that an entry points to if it is empty and may go. True if it is gone.
    pub(super) fn free_if_empty(&mut self, entry: &AtomicU64) -> bool {
        let value = entry.load(Ordering::Relaxed);
        if self.kernel || count(value) > 0 {
            return false;
        }
        entry.store(0, Ordering::Release);
        self.leave();
        self.tables -= 1;
        self.quarantine_table(target(value));
        true
    }

    /// Gives up a table and those below it. The depth is that of the levels.
    pub(super) fn free_tables(&self, table: PhysAddr, level: u32, entries: usize) {
        if level > 1 {
            for entry in &self.entries(table)[..entries] {
                let entry = entry.load(Ordering::Relaxed);
                if entry & PRESENT != 0 && entry & LARGE == 0 {
                    self.free_tables(target(entry), level - 1, ENTRIES);
                }
            }
        }
        self.quarantine_table(table);
    }

    /// A CPU may still walk the table.
    fn quarantine_table(&self, table: PhysAddr) {
        let pool = self.memory.table_frames();
        let frame = Frame::from_number(pool, table.as_u64() / PAGE_BYTES);
        if self.memory.tables_share_frames() {
            pool.quarantine(frame);
        } else {
            pool.quarantine_with(self.memory.frames(), frame);
        }
    }
}
