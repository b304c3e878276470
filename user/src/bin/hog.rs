//! Wants more memory than the machine has.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "the compiler makes no variable as large as this one")]

use core::arch::{asm, global_asm};

use faultline_user::{line, program};

program!(main);

/// 64 GiB that no file has, behind everything else.
const BYTES: usize = 64 << 30;
const PAGE: usize = 4096;

global_asm!(
    ".pushsection .bss.hog, \"aw\", @nobits",
    ".p2align 12",
    "hog_memory: .skip {bytes}",
    ".popsection",
    bytes = const BYTES,
);

fn main() -> u8 {
    line!("touching {} GiB", BYTES >> 30);
    let start: usize;
    // SAFETY: takes an address.
    unsafe { asm!("lea {}, [rip + hog_memory]", out(reg) start, options(nomem, nostack, preserves_flags)) };
    for page in (start..start + BYTES).step_by(PAGE) {
        // SAFETY: within the memory above, which nobody else knows.
        unsafe { asm!("mov qword ptr [{page}], {page}", page = in(reg) page, options(nostack)) };
    }
    line!("touched them all");
    1
}
