//! Steps through a system call, one instruction a trap.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "sets the trap flag")]

use core::arch::asm;

use faultline_user::{line, program, system::number};

program!(main);

fn main() -> u8 {
    line!("stepping");
    // SAFETY: the call touches no memory; ending this program is what the flag is for.
    unsafe {
        asm!(
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "syscall",
            inout("rax") number::GETPPID => _,
            out("rcx") _,
            out("r11") _,
        );
    }
    line!("stepped");
    1
}
