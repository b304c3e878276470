//! What ordinary code cannot say: accesses to arbitrary addresses, and exceptions.
#![allow(unsafe_code, reason = "touches addresses that must not be touched")]

use core::arch::asm;

use kernel::boot::PHYSICAL_MEMORY;

/// Reads the word at `address`. For kernel threads that own nothing: the thread may end here.
pub(crate) fn read(address: u64) -> u64 {
    let value;
    // SAFETY: a read changes nothing, and where nothing is mapped it ends the thread, or the test.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, readonly)) };
    value
}

/// Reads the word at `address`, whatever it is.
pub(crate) fn touch(address: u64) {
    let _ = read(address);
}

/// Writes the word at `address`, which is in a mapping of the caller's own, or in none.
pub(crate) fn write(address: u64, value: u64) {
    // SAFETY: as above; nothing of Rust's lives at the address.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack)) };
}

/// Calls what is at `address`: a page of the caller's own that is not executable.
pub(crate) fn execute(address: u64) {
    // SAFETY: the call does not get as far as its first instruction.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}

/// Raises an invalid opcode.
pub(crate) fn invalid_opcode() {
    // SAFETY: ends the thread.
    unsafe { asm!("ud2") };
}

/// Divides by zero.
pub(crate) fn divide_by_zero() {
    // SAFETY: ends the thread.
    unsafe {
        asm!("div {:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nomem, nostack));
    }
}

/// Touches an address that no page table can name.
pub(crate) fn touch_non_canonical() {
    touch(0x0000_8000_0000_0000);
}

/// Makes the table that shows `address`, which is mapped, one that is not in memory. The machine is lost.
pub(crate) fn lose_table_of(address: u64) {
    /// Beyond all memory, and what the boot loader shows of it.
    const NOT_THERE: u64 = 0xe_0000_0000;
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let entry = |table: u64, level: u32| PHYSICAL_MEMORY + table + (address >> (12 + 9 * level) & 0x1ff) * 8;
    let mut table = x86_64::registers::control::Cr3::read().0.start_address().as_u64();
    for level in [3, 2] {
        table = read(entry(table, level)) & FRAME;
    }
    let last = read(entry(table, 1));
    write(entry(table, 1), last & !FRAME | NOT_THERE);
}

/// Raises an exception that nobody can serve: the machine resets.
pub(crate) fn triple_fault() {
    let nothing = x86_64::structures::DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
    // SAFETY: the machine ends with the next instruction.
    unsafe {
        x86_64::instructions::tables::lidt(&nothing);
        asm!("ud2");
    }
}
