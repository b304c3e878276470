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

use super::paging;
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
    let root = memory::phys_to_virt(paging::active_root().as_u64()) as *mut PageTable;
    // SAFETY: the tables are in memory that is mapped at `PHYSICAL_MEMORY`. What is below the top-level
    // entry of this range is changed here only, under the lock.
    let mut tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(PHYSICAL_MEMORY)) };
    let flags = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::NO_EXECUTE
        | PageTableFlags::NO_CACHE
        | PageTableFlags::WRITE_THROUGH;
    for offset in (0..end - first).step_by(PAGE_SIZE) {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(start + offset));
        let frame = PhysFrame::containing_address(PhysAddr::try_new(first + offset).ok()?);
        // SAFETY: the page was never mapped, and the frame is a device's registers.
        unsafe { tables.map_to(page, frame, flags, &mut Tables(memory::memory().frames())) }.ok()?.flush();
    }
    *next = start + (end - first);
    NonNull::new((start + (address - first)) as *mut u8)
}

/// Frames for tables, from the machine's pool, for good.
struct Tables(&'static FramePool);

// SAFETY: a frame that was allocated belongs to nobody else, and is not given back.
unsafe impl FrameAllocator<Size4KiB> for Tables {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let run = self.0.try_alloc_contiguous(1, 1)?;
        PhysFrame::from_start_address(PhysAddr::new(run.into_address().as_u64())).ok()
    }
}
