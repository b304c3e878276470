//! Makes many system calls, and checks that each answers the same and keeps every register that it should.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "fills the registers around a system call")]

use core::arch::asm;

use faultline_user::{
    line, program,
    system::{self, number},
};

program!(main);

const CALLS: u64 = 1_000_000;

fn main() -> u8 {
    let parent = system::parent();
    let mut wrong = 0_u64;
    for call in 0..CALLS {
        wrong += u64::from(!call_keeps_registers(parent, call << 32 | call));
    }
    line!("{CALLS} calls, {wrong} of them wrong");
    u8::from(wrong != 0)
}

/// Fills the registers that a call must keep, calls, and compares. The flags' arithmetic bits and the stack
/// pointer are among them.
fn call_keeps_registers(parent: i64, seed: u64) -> bool {
    let answer: i64;
    let difference: u64;
    // SAFETY: getppid touches no memory; all registers that are used are named, but `rbx` and `rbp`, which
    // are put back.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, {seed}",
            "lea rbp, [{seed} + 1]",
            "lea rdi, [{seed} + 2]",
            "lea rsi, [{seed} + 3]",
            "lea rdx, [{seed} + 4]",
            "lea r8, [{seed} + 5]",
            "lea r9, [{seed} + 6]",
            "lea r10, [{seed} + 7]",
            "lea r12, [{seed} + 8]",
            "lea r13, [{seed} + 9]",
            "lea r14, [{seed} + 10]",
            "push rsp",
            "stc",
            "syscall",
            // The carry is still set, and the stack pointer what it was.
            "sbb r11, r11",
            "inc r11",
            "pop rcx",
            "sub rcx, rsp",
            "or r11, rcx",
            "sub rbx, {seed}",
            "or r11, rbx",
            "sub rbp, 1",
            "sub rbp, {seed}",
            "or r11, rbp",
            "sub rdi, 2",
            "sub rdi, {seed}",
            "or r11, rdi",
            "sub rsi, 3",
            "sub rsi, {seed}",
            "or r11, rsi",
            "sub rdx, 4",
            "sub rdx, {seed}",
            "or r11, rdx",
            "sub r8, 5",
            "sub r8, {seed}",
            "or r11, r8",
            "sub r9, 6",
            "sub r9, {seed}",
            "or r11, r9",
            "sub r10, 7",
            "sub r10, {seed}",
            "or r11, r10",
            "sub r12, 8",
            "sub r12, {seed}",
            "or r11, r12",
            "sub r13, 9",
            "sub r13, {seed}",
            "or r11, r13",
            "sub r14, 10",
            "sub r14, {seed}",
            "or r11, r14",
            "pop rbp",
            "pop rbx",
            seed = in(reg) seed,
            inlateout("rax") number::GETPPID as i64 => answer,
            out("rdi") _, out("rsi") _, out("rdx") _, out("rcx") _,
            out("r8") _, out("r9") _, out("r10") _, lateout("r11") difference,
            out("r12") _, out("r13") _, out("r14") _,
        );
    }
    answer == parent && difference == 0
}
