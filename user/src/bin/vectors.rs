//! Keeps the vector registers full across system calls and preemptions, and checks that nobody else's
//! values ever show up in them. Runs of this program differ by what they fill the registers with.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "uses the vector registers")]

use core::arch::{asm, x86_64::_rdtsc};

use faultline_user::{
    line, program,
    system::{BAD_ADDRESS, OUTPUT, call, number},
};

program!(main);

const ROUNDS: u64 = 400;
/// How long a round keeps the registers at least, in loops: long enough that some rounds are preempted.
const SPIN: u64 = 200_000;

/// The 16 registers.
type Registers = [[u64; 2]; 16];

fn main() -> u8 {
    // SAFETY: reads a counter.
    let seed = unsafe { _rdtsc() };
    let mut wrong = 0;
    for round in 0..ROUNDS {
        let mut filled = Registers::default();
        for (number, register) in (0_u64..).zip(&mut filled) {
            *register = [seed ^ round << 48, seed.rotate_left(17) ^ number << 56];
        }
        // Rounding and masks differ from what a fresh thread has, in one bit each.
        let control = 0x1f80 | u32::from(round % 2 == 1) << 13;
        let mut kept = Registers::default();
        let mut kept_control = 0;
        fill(&filled, &control);
        // The bad address sends the call on its long way, off this CPU; the other is answered at once.
        let refused = call(number::WRITE, [OUTPUT, 0, 1]);
        call(number::GETPPID, [0; 3]);
        spin(SPIN);
        look(&mut kept, &mut kept_control);
        wrong += u64::from(kept != filled || kept_control != control || refused != BAD_ADDRESS);
    }
    line!("{ROUNDS} rounds, {wrong} of them wrong");
    u8::from(wrong != 0)
}

/// Fills the registers. The compiler uses none of them, as the target has no vector instructions.
fn fill(registers: &Registers, control: &u32) {
    // SAFETY: reads 256 bytes and 4, which are there; the compiler knows nothing of these registers.
    unsafe {
        asm!(
            "ldmxcsr [{control}]",
            "movups xmm0, [{from}]",
            "movups xmm1, [{from} + 16]",
            "movups xmm2, [{from} + 32]",
            "movups xmm3, [{from} + 48]",
            "movups xmm4, [{from} + 64]",
            "movups xmm5, [{from} + 80]",
            "movups xmm6, [{from} + 96]",
            "movups xmm7, [{from} + 112]",
            "movups xmm8, [{from} + 128]",
            "movups xmm9, [{from} + 144]",
            "movups xmm10, [{from} + 160]",
            "movups xmm11, [{from} + 176]",
            "movups xmm12, [{from} + 192]",
            "movups xmm13, [{from} + 208]",
            "movups xmm14, [{from} + 224]",
            "movups xmm15, [{from} + 240]",
            from = in(reg) registers,
            control = in(reg) control,
            options(nostack, preserves_flags),
        );
    }
}

/// Stores the registers.
fn look(registers: &mut Registers, control: &mut u32) {
    // SAFETY: writes 256 bytes and 4, which are borrowed exclusively.
    unsafe {
        asm!(
            "stmxcsr [{control}]",
            "movups [{to}], xmm0",
            "movups [{to} + 16], xmm1",
            "movups [{to} + 32], xmm2",
            "movups [{to} + 48], xmm3",
            "movups [{to} + 64], xmm4",
            "movups [{to} + 80], xmm5",
            "movups [{to} + 96], xmm6",
            "movups [{to} + 112], xmm7",
            "movups [{to} + 128], xmm8",
            "movups [{to} + 144], xmm9",
            "movups [{to} + 160], xmm10",
            "movups [{to} + 176], xmm11",
            "movups [{to} + 192], xmm12",
            "movups [{to} + 208], xmm13",
            "movups [{to} + 224], xmm14",
            "movups [{to} + 240], xmm15",
            to = in(reg) registers,
            control = in(reg) control,
            options(nostack, preserves_flags),
        );
    }
}

fn spin(loops: u64) {
    for turn in 0..loops {
        core::hint::black_box(turn);
    }
}
