//! Reading registers for reports, and the time-stamp counter.
#![allow(unsafe_code, reason = "reads registers")]

use core::{arch::asm, cell::UnsafeCell};

use x86_64::registers::model_specific::Msr;

/// The time-stamp counter: ticks since some moment. What came before the call in the program also came before it in
/// time: so a reading is never earlier than another CPU's that the caller knows of.
#[inline]
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: reads a counter. Without the fence the processor may read it before it has seen what it waited for.
    unsafe {
        // The intrinsic is a call here: it is for code with vector registers.
        asm!("lfence", options(nostack, preserves_flags));
        core::arch::x86_64::_rdtsc()
    }
}

/// Moves this CPU's time-stamp counter by so many ticks; false when it cannot be done. Interrupts are off.
pub(crate) fn move_time_stamp(ticks: i64) -> bool {
    const TIME_STAMP_ADJUST: u32 = 0x3b;
    /// CPUID leaf 7, EBX: the register is there.
    const HAS_ADJUST: u32 = 1 << 1;
    if core::arch::x86_64::__cpuid_count(7, 0).ebx & HAS_ADJUST == 0 {
        return false;
    }
    let mut adjust = Msr::new(TIME_STAMP_ADJUST);
    // SAFETY: CPUID says that the register is there; adding to it adds to the counter, which nobody on this CPU has
    // believed yet.
    unsafe {
        let value = adjust.read();
        adjust.write(value.wrapping_add(ticks as u64));
    }
    true
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
