//! Reads the kernel's memory.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "reads what belongs to the kernel")]

use faultline_user::{line, program};

program!(main);

/// Where the kernel maps all physical memory.
const KERNEL: usize = 0xffff_8000_0000_0000;

fn main() -> u8 {
    line!("reading {KERNEL:#x}");
    let value: u8;
    // SAFETY: ring 3 may not read there; ending this program is what the read is for.
    unsafe { core::arch::asm!("mov {}, [{}]", out(reg_byte) value, in(reg) KERNEL, options(nostack)) };
    line!("found {value}");
    1
}
