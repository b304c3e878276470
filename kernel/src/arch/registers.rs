//! Reading registers for reports, and the time-stamp counter.
#![allow(unsafe_code, reason = "reads registers")]

use core::{arch::asm, cell::UnsafeCell};

/// The time-stamp counter: ticks since some moment.
pub fn time_stamp() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The frame pointer of the caller's caller: the end of the chain that a backtrace follows.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// The stack pointer.
#[inline(always)]
pub(crate) fn stack_pointer() -> u64 {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}

/// The kernel's last instruction: interrupts off and halt, for ever.
pub(crate) fn halt_for_ever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Waits for the next interrupt: enables interrupts and halts as one step.
pub(crate) fn enable_and_halt() {
    x86_64::instructions::interrupts::enable_and_hlt();
}

const PANIC_STACK_SIZE: usize = 64 * 1024;

#[repr(C, align(16))]
struct PanicStack(UnsafeCell<[u8; PANIC_STACK_SIZE]>);

// SAFETY: used by the one CPU whose panic is reported, as a stack.
unsafe impl Sync for PanicStack {}

static PANIC_STACK: PanicStack = PanicStack(UnsafeCell::new([0; PANIC_STACK_SIZE]));

/// Goes on with `f` on a stack that is surely there. Called once, by the first panic, with interrupts off.
pub(crate) fn call_on_panic_stack(mut f: &mut dyn FnMut()) -> ! {
    extern "C" fn go_on(f: *mut &mut dyn FnMut()) -> ! {
        // SAFETY: the pointer below, whose stack frame is never left.
        unsafe { (*f)() };
        halt_for_ever()
    }
    let top = PANIC_STACK.0.get() as u64 + PANIC_STACK_SIZE as u64;
    // SAFETY: nothing returns, so what the old stack holds stays as it is.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {go_on}",
            "ud2",
            top = in(reg) top,
            go_on = sym go_on,
            in("rdi") &raw mut f,
            options(noreturn),
        )
    }
}
