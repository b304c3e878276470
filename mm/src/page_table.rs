//! Page tables: what the hardware sees. A cache of mappings and objects, never the truth.
//!
//! Four levels of 512 entries. Level 4 is the root, an entry of level 1 is a page of 4 KiB. Only 4 KiB
//! pages are made here; [`PageTable::walk`] understands 2 MiB and 1 GiB pages of tables that were taken
//! over. Tables of the lower half belong to their root and are freed with it; the upper half belongs to the
//! kernel's root, whose 256 entries all exist, so that every other root shares them by a copy.
//!
//! Changing tables makes no processor forget anything: whoever takes rights or frames away sees to that, as
//! `shootdown` says. The tables themselves may be loaded on some CPU when they are dropped: their frames go into
//! quarantine.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::address::PAGE_BYTES;
use crate::frame::address_of;
use crate::page_entry::{
    ACCESSED, ADDRESS, DIRTY, LARGE, NO_EXECUTE, PRESENT, RIGHTS, USER, WRITABLE, rights, target,
};
use crate::{ExistingRoot, Frame, Memory, OutOfMemory, PhysAddr, Protection, VirtAddr};

const ROOT_LEVEL: u32 = 4;
/// Looks at entries before locks are given up for a moment.
pub(crate) const LOOKS: usize = 64;
/// The first root entry of the upper half.
const UPPER_HALF: usize = 256;

/// Page tables in the hardware's format, behind one root.
pub struct PageTable {
    memory: &'static Memory,
    root: PhysAddr,
    /// Whether these are the kernel's tables, which are never freed.
    kernel: bool,
    /// Leaves that are present and were entered here.
    resident: u64,
    /// Tables that were added here.
    tables: u64,
}

/// A table has to be added, and there is no frame for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NeedsFrame;

/// A leaf that was taken out or looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) frame: u64,
    pub(crate) accessed: bool,
    pub(crate) dirty: bool,
}

/// What an address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The physical address that the virtual address stands for.
    pub address: PhysAddr,
    /// Bytes in the page: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// What is allowed, taking all levels together.
    pub protection: Protection,
    /// Whether the processor has used the page since this was last cleared.
    pub accessed: bool,
    /// Whether the processor has written to the page since it was mapped.
    pub dirty: bool,
}

impl PageTable {
    /// Takes over the tables in use and makes all 256 entries of the upper half, so that roots made by
    /// [`PageTable::new_user`] never miss one.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for a missing table; those made so far stay.
    pub fn new_kernel(memory: &'static Memory, root: ExistingRoot) -> Result<Self, OutOfMemory> {
        let table = Self { memory, root: root.0, kernel: true, resident: 0, tables: 0 };
        for index in UPPER_HALF..512 {
            let entry = table.entry(table.root, index);
            if entry.load(Ordering::Relaxed) & PRESENT == 0 {
                let lower = memory.frames().try_alloc_zeroed().ok_or(OutOfMemory)?;
                entry.store(address_of(lower.into_number()).as_u64() | PRESENT | WRITABLE, Ordering::Relaxed);
            }
        }
        Ok(table)
    }

    /// Fresh tables: the lower half is empty, the upper half is that of the tables at `kernel` (see
    /// [`PageTable::new_kernel`]).
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for the root.
    pub fn new_user(memory: &'static Memory, kernel: PhysAddr) -> Result<Self, OutOfMemory> {
        let root = memory.frames().try_alloc_zeroed().ok_or(OutOfMemory)?;
        let table =
            Self { memory, root: address_of(root.into_number()), kernel: false, resident: 0, tables: 0 };
        for index in UPPER_HALF..512 {
            let shared = table.entry(kernel, index).load(Ordering::Relaxed);
            table.entry(table.root, index).store(shared, Ordering::Relaxed);
        }
        Ok(table)
    }

    /// The physical address of the root, for CR3.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Follows an address through all levels, as the processor would; `None` when nothing is there.
    pub fn walk(&self, address: VirtAddr) -> Option<Walk> {
        let mut table = self.root;
        let mut all = WRITABLE | USER;
        let mut no_execute = 0;
        let mut level = ROOT_LEVEL;
        loop {
            let entry = self.entry(table, index(address, level)).load(Ordering::Relaxed);
            if entry & PRESENT == 0 {
                return None;
            }
            all &= entry;
            no_execute |= entry & NO_EXECUTE;
            let page_size = PAGE_BYTES << (9 * (level - 1));
            if level == 1 || (level < ROOT_LEVEL && entry & LARGE != 0) {
                let start = entry & ADDRESS & !(page_size - 1);
                return Some(Walk {
                    address: PhysAddr::new(start | address.as_u64() & (page_size - 1)),
                    page_size,
                    protection: Protection {
                        read: true,
                        write: all & WRITABLE != 0,
                        execute: no_execute == 0,
                        user: all & USER != 0,
                    },
                    accessed: entry & ACCESSED != 0,
                    dirty: entry & DIRTY != 0,
                });
            }
            table = target(entry);
            level -= 1;
        }
    }

    /// Enters a frame at a page, or changes the rights of the page that shows it already.
    ///
    /// A missing table takes `spare`, or a frame of the pool. With neither, tables made so far stay, so each
    /// try with a spare frame gets further than the last.
    pub(crate) fn map(
        &mut self,
        page: VirtAddr,
        frame: u64,
        protection: Protection,
        spare: &mut Option<Frame>,
    ) -> Result<(), NeedsFrame> {
        let leaf = self.leaf_or_make(page, spare)?;
        let old = leaf.load(Ordering::Relaxed);
        let wanted = address_of(frame).as_u64() | PRESENT | rights(protection);
        if old & PRESENT == 0 {
            leaf.store(wanted, Ordering::Release);
            self.resident += 1;
            return Ok(());
        }
        assert_eq!(old & ADDRESS, wanted & ADDRESS, "page {page} shows another frame already");
        let kept = ACCESSED | DIRTY;
        leaf.try_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(wanted | old & kept)).ok();
        Ok(())
    }

    /// Takes a page out.
    pub(crate) fn unmap(&mut self, page: VirtAddr) -> Option<Leaf> {
        let old = self.leaf(page)?.swap(0, Ordering::AcqRel);
        self.resident -= 1;
        Some(leaf_of(old))
    }

    /// Takes away the rights that `protection` does not give; true when any were there.
    pub(crate) fn restrict(&mut self, page: VirtAddr, protection: Protection) -> bool {
        let Some(leaf) = self.leaf(page) else { return false };
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

    /// Looks whether the processor has used a page, and forgets that it has.
    pub(crate) fn take_accessed(&mut self, page: VirtAddr) -> Option<Leaf> {
        let old = self.leaf(page)?.fetch_and(!ACCESSED, Ordering::AcqRel);
        Some(leaf_of(old))
    }

    /// Whether a page shows this frame.
    pub(crate) fn shows(&self, page: VirtAddr, frame: u64) -> bool {
        self.leaf(page).is_some_and(|leaf| leaf_of(leaf.load(Ordering::Relaxed)).frame == frame)
    }

    /// Whether the processor has written to a page since that was last forgotten.
    pub(crate) fn is_dirty(&self, page: VirtAddr) -> bool {
        self.leaf(page).is_some_and(|leaf| leaf.load(Ordering::Acquire) & DIRTY != 0)
    }

    /// Looks whether the processor has written to a page, and forgets that it has.
    pub(crate) fn take_dirty(&mut self, page: VirtAddr) -> bool {
        self.leaf(page).is_some_and(|leaf| leaf.fetch_and(!DIRTY, Ordering::AcqRel) & DIRTY != 0)
    }

    /// Makes a page read-only, and forgets that the processor has written to it. Answers what was there.
    pub(crate) fn begin_clean(&mut self, page: VirtAddr) -> Option<Leaf> {
        Some(leaf_of(self.leaf(page)?.fetch_and(!(DIRTY | WRITABLE), Ordering::AcqRel)))
    }

    /// The first page of a range that is present; whole tables that are missing are skipped. What was looked at
    /// is taken off the front of the range. Each look at a page or at such a table uses up one of `looks`, and
    /// `None` says that they are used up or the range is empty.
    pub(crate) fn next_present(&self, rest: &mut Range<VirtAddr>, looks: &mut usize) -> Option<VirtAddr> {
        while *looks > 0 && !rest.is_empty() {
            *looks -= 1;
            let at = rest.start;
            let (level, present) = self.deepest(at);
            let span = PAGE_BYTES << (9 * (level - 1));
            let next = (at.as_u64() & !(span - 1)).wrapping_add(span);
            rest.start = if next > at.as_u64() { VirtAddr::truncated(next) } else { rest.end };
            if level == 1 && present {
                return Some(at);
            }
        }
        None
    }

    /// The level of the last entry on the way to a page, and whether it is present.
    fn deepest(&self, page: VirtAddr) -> (u32, bool) {
        let mut table = self.root;
        let mut level = ROOT_LEVEL;
        loop {
            let entry = self.entry(table, index(page, level)).load(Ordering::Relaxed);
            let present = entry & PRESENT != 0;
            if !present || level == 1 || entry & LARGE != 0 {
                return (level, present);
            }
            table = target(entry);
            level -= 1;
        }
    }

    /// Pages that are present and were entered here.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// Tables that were added for pages. They stay as long as the root.
    pub(crate) fn tables(&self) -> u64 {
        self.tables
    }

    fn entry(&self, table: PhysAddr, index: usize) -> &'static AtomicU64 {
        self.memory.frames().window().table_entry(table, index)
    }

    /// The leaf entry of a page that is present.
    fn leaf(&self, page: VirtAddr) -> Option<&'static AtomicU64> {
        let mut table = self.root;
        for level in (1..=ROOT_LEVEL).rev() {
            let entry = self.entry(table, index(page, level));
            let value = entry.load(Ordering::Relaxed);
            if value & PRESENT == 0 {
                return None;
            }
            if level == 1 {
                return Some(entry);
            }
            assert!(value & LARGE == 0, "page {page} lies in a large page");
            table = target(value);
        }
        None
    }

    fn leaf_or_make(
        &mut self,
        page: VirtAddr,
        spare: &mut Option<Frame>,
    ) -> Result<&'static AtomicU64, NeedsFrame> {
        let mut table = self.root;
        for level in (2..=ROOT_LEVEL).rev() {
            let entry = self.entry(table, index(page, level));
            let value = entry.load(Ordering::Relaxed);
            if value & PRESENT != 0 {
                assert!(value & LARGE == 0 || level == ROOT_LEVEL, "page {page} lies in a large page");
                table = target(value);
                continue;
            }
            let mut lower = spare.take().or_else(|| self.memory.frames().try_alloc()).ok_or(NeedsFrame)?;
            lower.zero();
            self.tables += 1;
            table = address_of(lower.into_number());
            let user = if page.is_upper_half() { 0 } else { USER };
            entry.store(table.as_u64() | PRESENT | WRITABLE | user, Ordering::Release);
        }
        Ok(self.entry(table, index(page, 1)))
    }

    /// Gives up a table and those below it. The depth is that of the levels.
    fn free_tables(&self, table: PhysAddr, level: u32, entries: usize) {
        for index in 0..entries {
            let entry = self.entry(table, index).load(Ordering::Relaxed);
            if level > 1 && entry & PRESENT != 0 && entry & LARGE == 0 {
                self.free_tables(target(entry), level - 1, 512);
            }
        }
        let frames = self.memory.frames();
        frames.quarantine(Frame::from_number(frames, table.as_u64() / PAGE_BYTES));
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        if !self.kernel {
            self.free_tables(self.root, ROOT_LEVEL, UPPER_HALF);
            self.memory.forget_soon(self.memory.frames().moment());
        }
    }
}

fn index(address: VirtAddr, level: u32) -> usize {
    (address.as_u64() >> (12 + 9 * (level - 1))) as usize & 511
}

fn leaf_of(entry: u64) -> Leaf {
    Leaf { frame: (entry & ADDRESS) / PAGE_BYTES, accessed: entry & ACCESSED != 0, dirty: entry & DIRTY != 0 }
}
