//! Reads where nothing is mapped.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "reads where nothing is mapped")]

use faultline_user::{line, program};

program!(main);

const NOWHERE: usize = 0x1234_5678;

fn main() -> u8 {
    line!("reading {NOWHERE:#x}");
    let value: u8;
    // SAFETY: nothing is mapped there; ending this program is what the read is for.
    unsafe { core::arch::asm!("mov {}, [{}]", out(reg_byte) value, in(reg) NOWHERE, options(nostack)) };
    line!("found {value}");
    1
}
