//! Executes an instruction that is the kernel's alone.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "executes a privileged instruction")]

use faultline_user::{line, program};

program!(main);

fn main() -> u8 {
    line!("turning interrupts off");
    // SAFETY: the processor refuses; ending this program is what the instruction is for.
    unsafe { core::arch::asm!("cli", options(nomem, nostack)) };
    line!("they are off");
    1
}
