//! Writes to its own instructions.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "writes where writing is not allowed")]

use faultline_user::{line, program};

program!(main);

fn main() -> u8 {
    let text = main as fn() -> u8 as usize;
    line!("writing to {text:#x}");
    // SAFETY: instructions are mapped read-only; ending this program is what the write is for.
    unsafe { core::arch::asm!("mov byte ptr [{}], 0x90", in(reg) text, options(nostack)) };
    line!("wrote");
    1
}
