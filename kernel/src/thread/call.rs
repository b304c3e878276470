//! Calls of kernel threads to their own future: a software interrupt, as `syscall` works from ring 3 only.
#![allow(unsafe_code, reason = "raises the software interrupt")]

use core::arch::asm;

use crate::arch::idt;

/// What a kernel thread asks of its future. The number travels in `rax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Call {
    /// Let others run.
    Yield = 0,
    /// Wait until the thread's waker is woken.
    Park = 1,
    /// The thread is done.
    Exit = 2,
}

impl Call {
    /// The call with this number.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        [Self::Yield, Self::Park, Self::Exit].into_iter().find(|call| *call as u64 == number)
    }
}

/// Traps to the thread's future; returns when that enters the thread again. Kernel threads only, with no
/// spin lock held.
pub(crate) fn call(call: Call) {
    debug_assert!(super::current().is_some(), "only a thread can call its future");
    // SAFETY: the trap saves and restores all registers.
    unsafe { asm!("int {vector}", vector = const idt::THREAD_CALL, in("rax") call as u64) };
}

/// Lets other tasks and threads run. Kernel threads only.
pub fn yield_now() {
    call(Call::Yield);
}
