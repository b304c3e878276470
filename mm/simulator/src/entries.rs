//! Entries of page tables, looked at and changed behind `mm`'s back.

use std::sync::atomic::Ordering;

use mm::{AddressSpace, PhysAddr, VirtAddr};

use crate::Machine;

pub(crate) const WRITABLE: u64 = 2;
pub(crate) const USER: u64 = 4;
pub(crate) const ACCESSED: u64 = 32;
pub(crate) const DIRTY: u64 = 64;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Machine {
    /// Sets the dirty bit of a page, as if it had been shown writable.
    pub fn set_dirty_bit(&self, space: &AddressSpace, address: u64) {
        let mut table = space.root().as_u64();
        for level in (0..4).rev() {
            let entry = self.word(table + ((address >> (12 + 9 * level)) & 511) * 8);
            if level == 0 {
                entry.fetch_or(DIRTY, Ordering::SeqCst);
            }
            table = entry.load(Ordering::SeqCst) & ADDRESS;
        }
    }

    /// An entry of a level-4 table, but for what the processor notes in it.
    pub fn root_entry(&self, root: PhysAddr, index: u64) -> u64 {
        self.word(root.as_u64() + index * 8).load(Ordering::SeqCst) & !ACCESSED
    }

    /// Changes the level-4 entry that an address goes through.
    pub fn change_root_entry(&self, root: PhysAddr, at: VirtAddr, change: impl Fn(u64) -> u64) {
        let entry = self.word(root.as_u64() + ((at.as_u64() >> 39) & 511) * 8);
        entry.store(change(entry.load(Ordering::SeqCst)), Ordering::SeqCst);
    }

    /// Enters what a boot loader may have entered: a page of 1 GiB at `base`, and one of 2 MiB after it.
    pub fn enter_large_pages(&self, root: PhysAddr, base: u64, gibibyte: u64, two_mebibytes: u64) {
        const PRESENT_WRITABLE: u64 = 3;
        let level_3 = self.root_entry(root, (base >> 39) & 511) & ADDRESS;
        let mut frame = self.memory.frames().try_alloc_zeroed().expect("room for a table");
        let (first, rest) = frame.as_bytes_mut().split_at_mut(8);
        first.copy_from_slice(&(two_mebibytes | PRESENT_WRITABLE | LARGE).to_le_bytes());
        assert!(rest.iter().all(|&byte| byte == 0));
        let index = (base >> 30) & 511;
        self.word(level_3 + index * 8).store(gibibyte | PRESENT_WRITABLE | LARGE, Ordering::SeqCst);
        let below = frame.address().as_u64() | PRESENT_WRITABLE;
        self.word(level_3 + (index + 1) * 8).store(below, Ordering::SeqCst);
        std::mem::forget(frame);
    }
}
