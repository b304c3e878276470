//! Divides by zero.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "divides without the check that Rust makes")]

use faultline_user::{line, program};

program!(main);

fn main() -> u8 {
    line!("dividing 7 by 0");
    let quotient: u32;
    // SAFETY: touches no memory; the exception is what this program is for.
    unsafe {
        core::arch::asm!(
            "div {zero:e}",
            zero = in(reg) 0,
            inlateout("eax") 7 => quotient,
            inlateout("edx") 0 => _,
            options(nomem, nostack),
        );
    }
    line!("that is {quotient}");
    1
}
