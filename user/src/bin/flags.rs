//! Sets flags that would confuse a kernel which trusted them, and checks that calls and preemptions keep
//! them.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "sets the processor's flags")]

use core::arch::asm;

use faultline_user::{
    line, program,
    system::{BAD_ADDRESS, OUTPUT, number},
};

program!(main);

/// String instructions go down.
const DIRECTION: u64 = 1 << 10;
/// This task was called by another.
const NESTED: u64 = 1 << 14;
/// Unaligned accesses are errors, or the kernel may touch a program's memory, as the ring has it.
const ALIGNMENT: u64 = 1 << 18;
const SET: u64 = DIRECTION | NESTED | ALIGNMENT;

const ROUNDS: u64 = 100;
/// Long enough that some rounds are preempted.
const SPIN: u64 = 1_000_000;

fn main() -> u8 {
    let mut wrong = 0;
    for _ in 0..ROUNDS {
        let (answer, after) = calls_with_flags();
        wrong += u64::from(answer != BAD_ADDRESS || after & SET != SET);
    }
    line!("{ROUNDS} rounds, {wrong} of them wrong");
    u8::from(wrong != 0)
}

/// Makes a call that is answered at once and one that is refused after a wait, and spins, all with the flags
/// set; the answer of the second call, and the flags after it all.
fn calls_with_flags() -> (i64, u64) {
    let answer: i64;
    let after: u64;
    // SAFETY: the calls touch no memory; the flags are put back before other code runs.
    unsafe {
        asm!(
            "pushfq",
            "pushfq",
            "or qword ptr [rsp], {set}",
            "popfq",
            "mov eax, {getppid}",
            "syscall",
            "mov eax, {write}",
            "syscall",
            "2:",
            "dec {spin}",
            "jnz 2b",
            "pushfq",
            "pop {after}",
            "popfq",
            set = const SET,
            getppid = const number::GETPPID,
            write = const number::WRITE,
            spin = inout(reg) SPIN => _,
            after = lateout(reg) after,
            out("rax") answer,
            in("rdi") OUTPUT,
            in("rsi") 0,
            in("rdx") 1,
            out("rcx") _,
            out("r11") _,
        );
    }
    (answer, after)
}
