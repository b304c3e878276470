//! Single loads and stores in the lower half, which may fault.
#![allow(unsafe_code, reason = "reads and writes what a thread's own space shows")]

use core::arch::asm;

use mm::VirtAddr;

/// Reads the word at an address of the space that the calling kernel thread runs in. A load that is denied ends the thread.
///
/// # Panics
/// When the address is not one of a word in the lower half.
pub(crate) fn read(address: VirtAddr) -> u64 {
    check(address);
    let word: u64;
    // SAFETY: nothing of the kernel's stands in the lower half; what does is memory of the space, or faults.
    unsafe { asm!("mov {}, [{}]", out(reg) word, in(reg) address.as_u64(), options(nostack, readonly)) };
    word
}

/// Writes that word; as [`read`].
///
/// # Panics
/// As there.
pub(crate) fn write(address: VirtAddr, word: u64) {
    check(address);
    // SAFETY: as above.
    unsafe { asm!("mov [{}], {}", in(reg) address.as_u64(), in(reg) word, options(nostack)) };
}

fn check(address: VirtAddr) {
    assert!(!address.is_upper_half() && address.as_u64().is_multiple_of(8));
}
