//! One address through all levels.

use core::sync::atomic::Ordering;

use super::PageTable;
use super::part::index;
use crate::page_entry::{
    ACCESSED, DIRTY, GLOBAL, PRESENT, RIGHTS, ROOT_LEVEL, USER, WRITABLE, both, is_leaf, memory_type,
    page_at, protection, span, target,
};
use crate::{MemoryType, PhysAddr, Protection, VirtAddr};

/// What an address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The physical address that the virtual address stands for.
    pub address: PhysAddr,
    /// Bytes in the page: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// What is allowed, taking all levels together.
    pub protection: Protection,
    /// How the processor may cache it.
    pub memory_type: MemoryType,
    /// Whether it never changes, so that the processor need not forget it with the rest.
    pub permanent: bool,
    /// Whether the processor has used the page since this was last cleared.
    pub accessed: bool,
    /// Whether the processor has written to the page since it was mapped.
    pub dirty: bool,
}

impl Walk {
    /// What a leaf shows at a distance from its start, where the levels above allow `rights`.
    pub(super) fn of(leaf: u64, level: u32, rights: u64, offset: u64) -> Self {
        Self {
            address: PhysAddr::new(page_at(leaf, level) + offset),
            page_size: span(level),
            protection: protection(both(rights, leaf)),
            memory_type: memory_type(leaf),
            permanent: leaf & GLOBAL != 0,
            accessed: leaf & ACCESSED != 0,
            dirty: leaf & DIRTY != 0,
        }
    }
}

impl PageTable {
    /// Follows an address through all levels, as the processor would; `None` when nothing is there. Not from
    /// interrupt handlers.
    pub fn walk(&self, address: VirtAddr) -> Option<Walk> {
        let address = address.as_u64();
        let (mut table, mut level, mut rights) = (self.root, ROOT_LEVEL, WRITABLE | USER);
        loop {
            let entry = self.entries(table)[index(address, level)].load(Ordering::Relaxed);
            if entry & PRESENT == 0 {
                return None;
            }
            if is_leaf(entry, level) {
                return Some(Walk::of(entry, level, rights, address & (span(level) - 1)));
            }
            rights = both(rights, entry & RIGHTS);
            table = target(entry);
            level -= 1;
        }
    }

    /// The entry that says what an address leads to, its level, and what it holds: a page, or nothing.
    pub(super) fn deepest(&self, address: u64) -> (&'static core::sync::atomic::AtomicU64, u32, u64) {
        let (mut table, mut level) = (self.root, ROOT_LEVEL);
        loop {
            let entry = &self.entries(table)[index(address, level)];
            let value = entry.load(Ordering::Relaxed);
            if value & PRESENT == 0 || is_leaf(value, level) {
                return (entry, level, value);
            }
            table = target(value);
            level -= 1;
        }
    }
}
