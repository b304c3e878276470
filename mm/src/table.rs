//! A page table as objects and address spaces share it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::page_table::Run;
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

/// The tables that are held at the moment, one at a time.
#[derive(Default)]
pub(crate) struct Held<'a> {
    now: Option<(&'a Table, Run<'a>)>,
}

impl<'a> Held<'a> {
    /// Those of a mapping. Tables that were held before are given up first.
    #[inline]
    pub(crate) fn tables(&mut self, table: &'a Table) -> &mut Run<'a> {
        if !self.now.as_ref().is_some_and(|(held, _)| core::ptr::eq(*held, table)) {
            self.now = None;
        }
        let (_, run) = self.now.get_or_insert_with(|| (table, Run::new(table.tables.lock())));
        run
    }
}
