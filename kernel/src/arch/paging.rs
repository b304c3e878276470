//! The hardware's view of address spaces: the root register and the TLB.
#![allow(unsafe_code, reason = "loads the root page table, invalidates the TLB, sets what memory types mean")]

use crate::memory;
use mm::{PageSize, PhysAddr, VirtAddr};
use x86_64::{
    instructions::tlb,
    registers::{
        control::{Cr3, Cr4, Cr4Flags},
        model_specific::Msr,
    },
    structures::paging::{PhysFrame, Size4KiB},
};

/// Loads the address space with this root, unless it is loaded already. Interrupts are off or the caller
/// does not mind being moved.
pub(crate) fn activate(root: PhysAddr) {
    let (current, flags) = Cr3::read();
    let frame = PhysFrame::<Size4KiB>::containing_address(x86_64::PhysAddr::new(root.as_u64()));
    if current != frame {
        // SAFETY: every address space shares the kernel's upper half, where this code and all that it
        // uses stands.
        unsafe { Cr3::write(frame, flags) };
    }
}

/// Leaves the address space of ring 3 that is loaded, if one is: then its tables can go. From anywhere.
pub(crate) fn leave_user_space() {
    activate(memory::kernel_root());
}

/// Forgets all translations of this CPU but permanent ones, and leaves the address space of ring 3 that is loaded.
///
/// Loading the root spares pages that are marked as global. Only what never changes is (see `PageTable::make_permanent`),
/// so whatever was taken out of tables is forgotten here.
pub(crate) fn forget() {
    let frame =
        PhysFrame::<Size4KiB>::containing_address(x86_64::PhysAddr::new(memory::kernel_root().as_u64()));
    // SAFETY: as in `activate`.
    unsafe { Cr3::write(frame, Cr3::read().1) };
}

/// The root that is loaded now.
pub(crate) fn active_root() -> PhysAddr {
    PhysAddr::new(Cr3::read().0.start_address().as_u64())
}

/// The kernel's half of every root.
pub(super) fn upper_half() -> [u64; 256] {
    let upper = memory::phys_to_virt(memory::kernel_root().as_u64() + 256 * 8) as *const [u64; 256];
    // SAFETY: all physical memory is mapped; the entries of the upper half do not change.
    unsafe { upper.read() }
}

/// Forgets the translation of one page on this CPU.
pub(crate) fn invalidate(page: VirtAddr) {
    tlb::flush(x86_64::VirtAddr::new_truncate(page.as_u64()));
}

/// Forgets all translations of this CPU but permanent ones.
pub(crate) fn invalidate_all() {
    tlb::flush_all();
}

/// The largest page that this CPU can show. All have those of 2 MiB.
pub(crate) fn largest_page() -> PageSize {
    const EXTENDED_FEATURES: u32 = 0x8000_0001;
    /// EDX: pages of 1 GiB.
    const HAS_GIBIBYTE: u32 = 1 << 26;
    if core::arch::x86_64::__cpuid(EXTENDED_FEATURES).edx & HAS_GIBIBYTE != 0 {
        PageSize::Size1GiB
    } else {
        PageSize::Size2MiB
    }
}

/// Tells this CPU what the memory types in page tables stand for (Intel SDM vol. 3, 11.12), and makes it forget all
/// translations, with those that firmware may have marked as global. Once, before it uses pages of other types than the
/// processor's first ones.
pub(super) fn set_memory_types(cr4: Cr4Flags) {
    const ATTRIBUTES: u32 = 0x277;
    // Write-back, write-combining, uncached unless the firmware's ranges say otherwise, uncached; and again for the
    // bit that large pages have elsewhere, which so does not matter. All but the second are what they were at reset.
    const TYPES: u64 = 0x0007_0106_0007_0106;
    // SAFETY: every x86-64 has the register. Pages of the type that changes do not exist yet.
    unsafe { Msr::new(ATTRIBUTES).write(TYPES) };
    // SAFETY: whether global pages are on decides only what is remembered; switching that forgets everything.
    unsafe {
        Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4);
    }
}

/// Reads two words at a kernel address if they are mapped, by walking the tables: for reports, which must
/// not fault.
pub(crate) fn read_kernel_pair(address: u64) -> Option<(u64, u64)> {
    let is_kernel = |address: u64| address >> 47 == 0x1ffff;
    if !address.is_multiple_of(8)
        || !is_kernel(address)
        || !is_mapped(address)
        || !is_mapped(address.checked_add(8)?)
    {
        return None;
    }
    // SAFETY: both words are mapped memory of the kernel, and aligned.
    unsafe { Some((*(address as *const u64), *((address + 8) as *const u64))) }
}

/// Whether an address is mapped, by walking the tables that are loaded.
pub(crate) fn is_mapped(address: u64) -> bool {
    const PRESENT: u64 = 1;
    const LARGE: u64 = 1 << 7;
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let mut table = active_root().as_u64();
    for level in (0..4).rev() {
        let index = address >> (12 + 9 * level) & 0x1ff;
        let entry = memory::phys_to_virt(table + index * 8) as *const u64;
        // SAFETY: all physical memory is mapped, tables too; entries are read as whole words.
        let entry = unsafe { entry.read_volatile() };
        if entry & PRESENT == 0 {
            return false;
        }
        if entry & LARGE != 0 {
            return true;
        }
        table = entry & FRAME;
    }
    true
}
