//! A page table as objects and address spaces share it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{PageTable, PhysAddr};
use executor::lock::SpinLock;

/// The tables of one address space, with the number that says which state of its mappings they show.
///
/// Objects that are mapped hold this, not the address space: so neither keeps the other alive, and
/// eviction never needs the address space's lock.
pub(crate) struct Table {
    pub(crate) tables: SpinLock<PageTable>,
    root: PhysAddr,
    /// Grows whenever a mapping goes or loses rights, under the address space's lock and before the tables
    /// are changed. Whoever enters a page compares it under the table's lock: if it is still what it was at
    /// the peek, the mapping was not touched, or whoever touched it has yet to clear the tables.
    generation: AtomicU64,
}

impl Table {
    pub(crate) fn new(tables: PageTable) -> Self {
        let root = tables.root();
        Self { tables: SpinLock::new("page table", tables), root, generation: AtomicU64::new(0) }
    }

    pub(crate) fn root(&self) -> PhysAddr {
        self.root
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Called with the address space's lock held.
    pub(crate) fn advance_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
