//! Devices' registers, mapped uncached in a part of the upper half that nothing else uses.
//!
//! Firmware may put them above all memory, where the boot loader's mapping shows nothing. `mm` owns the
//! page tables, but not below the top-level entry of this range.
#![allow(unsafe_code, reason = "changes the kernel's page tables")]

use core::{ops::Range, ptr::NonNull};

use executor::lock::SpinLock;
use mm::{FramePool, PAGE_SIZE};
use x86_64::{
    PhysAddr, VirtAddr,
    structures::paging::{
        FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
    },
};

use crate::{boot::PHYSICAL_MEMORY, memory};

/// Where devices are mapped: one top-level entry.
const DEVICES: Range<u64> = 0xffff_e000_0000_0000..0xffff_e080_0000_0000;

/// The first address that is free. Mappings stay for ever.
static NEXT: SpinLock<u64> = SpinLock::new("device memory", DEVICES.start);

/// Maps `bytes` bytes of registers at physical address `address`, uncached. At boot; `None` when there is
/// no memory for the tables, or the range is no range.
pub(crate) fn map(address: u64, bytes: u64) -> Option<NonNull<u8>> {
    const PAGE: u64 = PAGE_SIZE as u64;
    let first = address / PAGE * PAGE;
    let end = address.checked_add(bytes)?.checked_next_multiple_of(PAGE)?;
    let mut next = NEXT.lock();
    let start = *next;
    if bytes == 0 || end - first > DEVICES.end - start {
        return None;
    }
    let flags = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::NO_EXECUTE
        | PageTableFlags::NO_CACHE
        | PageTableFlags::WRITE_THROUGH;
    kernel_tables(|tables| {
        for offset in (0..end - first).step_by(PAGE_SIZE) {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new(start + offset));
            let frame = PhysFrame::containing_address(PhysAddr::try_new(first + offset).ok()?);
            // SAFETY: the page was never mapped, and the frame is a device's registers.
            unsafe { tables.map_to(page, frame, flags, &mut Tables::new()) }.ok()?.flush();
        }
        Some(())
    })?;
    *next = start + (end - first);
    NonNull::new((start + (address - first)) as *mut u8)
}

/// Shows the kernel's page tables, for ranges that `mm` does not touch.
pub(super) fn kernel_tables<R>(change: impl FnOnce(&mut OffsetPageTable<'static>) -> R) -> R {
    static CHANGING: SpinLock<()> = SpinLock::new("kernel page tables", ());
    let _one_at_a_time = CHANGING.lock();
    let root = memory::phys_to_virt(memory::kernel_root().as_u64()) as *mut PageTable;
    // SAFETY: the tables are in memory that is mapped at `PHYSICAL_MEMORY`. What is below the top-level
    // entries of these ranges is changed here only, under the lock; the top-level entries stay as they are.
    change(&mut unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(PHYSICAL_MEMORY)) })
}

/// Frames for tables, from the machine's pool, for good.
pub(super) struct Tables(&'static FramePool);

impl Tables {
    pub(super) fn new() -> Self {
        Self(memory::memory().frames())
    }
}

// SAFETY: a frame that was allocated belongs to nobody else, and is not given back.
unsafe impl FrameAllocator<Size4KiB> for Tables {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let run = self.0.try_alloc_contiguous(1, 1)?;
        PhysFrame::from_start_address(PhysAddr::new(run.into_address().as_u64())).ok()
    }
}
