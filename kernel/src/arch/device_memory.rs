//! Devices' registers and memory, mapped in a part of the upper half that nothing else uses.
//!
//! Firmware may put them above all memory, where the boot loader's mapping shows nothing.

use core::{ops::Range, ptr::NonNull};

use executor::lock::SpinLock;
use mm::{MemoryType, PAGE_SIZE, PageSize, PhysAddr, Protection, VirtAddr};

use crate::memory;

/// Where devices are mapped: one top-level entry.
const DEVICES: Range<u64> = 0xffff_e000_0000_0000..0xffff_e080_0000_0000;
/// What takes so much begins where a large page may show it.
const LARGE_PAGE: u64 = PageSize::Size2MiB.bytes();

/// The first address that is free. Mappings stay for ever.
static NEXT: SpinLock<u64> = SpinLock::new("device memory", DEVICES.start);

/// Maps `bytes` bytes of registers at physical address `address`, uncached. At boot; `None` when there is
/// no memory for the tables, or the range is no range.
pub(crate) fn map_registers(address: u64, bytes: u64) -> Option<NonNull<u8>> {
    map(address, bytes, MemoryType::Uncached)
}

/// The same, cached, for memory on a device: who else reads it sees what this machine's CPUs have written.
pub(crate) fn map_memory(address: u64, bytes: u64) -> Option<NonNull<u8>> {
    map(address, bytes, MemoryType::WriteBack)
}

fn map(address: u64, bytes: u64, memory_type: MemoryType) -> Option<NonNull<u8>> {
    const PAGE: u64 = PAGE_SIZE as u64;
    let first = address / PAGE * PAGE;
    let length = address.checked_add(bytes)?.checked_next_multiple_of(PAGE)? - first;
    let mut next = NEXT.lock();
    let mut start = *next;
    if length >= LARGE_PAGE {
        start += first.wrapping_sub(start) % LARGE_PAGE;
    }
    if bytes == 0 || start >= DEVICES.end || length > DEVICES.end - start {
        return None;
    }
    let range = VirtAddr::new(start)?..VirtAddr::new(start + length)?;
    let (physical, rights) = (PhysAddr::new(first), Protection::READ_WRITE);
    memory::kernel_space().map_for_good(range, physical, rights, memory_type).ok()?;
    *next = start + length;
    NonNull::new((start + (address - first)) as *mut u8)
}
