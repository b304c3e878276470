//! Jumps into its data.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "executes what is not meant to be executed")]

use core::sync::atomic::AtomicU8;

use faultline_user::{line, program};

program!(main);

/// A `ret` instruction, but in data.
static DATA: AtomicU8 = AtomicU8::new(0xc3);

fn main() -> u8 {
    let data = DATA.as_ptr() as usize;
    line!("executing at {data:#x}");
    // SAFETY: data is mapped not executable; ending this program is what the call is for. Were it
    // executable, it would return at once.
    unsafe { core::arch::asm!("call {}", in(reg) data, clobber_abi("C")) };
    line!("executed");
    1
}
