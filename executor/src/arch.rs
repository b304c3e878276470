//! What the bare machine does differently from the host: the interrupt flag, the stack, the CPU's own data.
#![allow(unsafe_code, reason = "the interrupt flag and the GS segment are reached by instructions only")]

use crate::cpu::CpuLocal;
use crate::task::Header;

/// Turns interrupts off and says whether they were on.
#[inline]
pub(crate) fn interrupts_off() -> bool {
    #[cfg(target_os = "none")]
    {
        let flags: u64;
        // SAFETY: reads the flags and clears IF; the one word of stack is pushed and popped before `cli`.
        unsafe { core::arch::asm!("pushfq", "pop {}", "cli", out(reg) flags) };
        flags & 1 << 9 != 0
    }
    #[cfg(not(target_os = "none"))]
    false
}

/// Turns interrupts on.
#[inline]
pub(crate) fn interrupts_on() {
    #[cfg(target_os = "none")]
    // SAFETY: only called where interrupts were on before this crate turned them off, or by the run loop.
    unsafe {
        core::arch::asm!("sti");
    }
}

/// As [`interrupts_off`], but where they were on, the next 8 KiB of stack are there for what follows. Where they
/// were off, who turned them off has seen to that.
#[inline]
pub(crate) fn interrupts_off_on_stack() -> bool {
    #[cfg(target_os = "none")]
    {
        let flags: u64;
        // SAFETY: as in `interrupts_off`. A locked OR with zero changes nothing; there is no red zone, so the
        // words are free. Where the stack is not there yet the fault comes now, while interrupts are still on.
        unsafe {
            core::arch::asm!(
                "pushfq",
                "pop {flags}",
                "test {flags:h}, 2",
                "jz 2f",
                "lock or qword ptr [rsp - 4096], 0",
                "lock or qword ptr [rsp - 8192], 0",
                "cli",
                "2:",
                flags = out(reg_abcd) flags,
            );
        }
        flags & 1 << 9 != 0
    }
    #[cfg(not(target_os = "none"))]
    false
}

/// This CPU's own data. A caller that may be preempted can find itself on another CPU right after.
#[inline]
pub(crate) fn local() -> &'static CpuLocal {
    #[cfg(target_os = "none")]
    {
        let local: *const CpuLocal;
        // SAFETY: `CpuLocal::bind` demands that GS points at a bound `CpuLocal`, whose first field is its own
        // address and which is never freed.
        unsafe {
            core::arch::asm!("mov {}, gs:[0]", out(reg) local, options(nostack, preserves_flags, readonly));
            &*local
        }
    }
    #[cfg(not(target_os = "none"))]
    crate::host::local()
}

/// The task that is polled on this CPU, read in one instruction, so that it is the caller's own even when the
/// caller is a preemptible thread.
#[inline]
pub(crate) fn current() -> *mut Header {
    #[cfg(target_os = "none")]
    {
        let current: *mut Header;
        // SAFETY: as in `local`; the offset is that of a pointer-sized field.
        unsafe {
            core::arch::asm!("mov {}, gs:[{}]", out(reg) current, const CpuLocal::CURRENT_OFFSET,
                options(nostack, preserves_flags, readonly));
        }
        current
    }
    #[cfg(not(target_os = "none"))]
    local().current.load(core::sync::atomic::Ordering::Relaxed)
}
