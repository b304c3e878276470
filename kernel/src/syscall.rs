//! System calls of ring-3 programs: numbers, registers and errors are those of Linux on x86-64.
//!
//! The number is in `rax`, the arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`, `r9`; the result comes back
//! in `rax`, an error as its negated number. What cannot wait is answered without leaving the thread;
//! everything else runs in the thread's future and may wait.

use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    arch::context::Context,
    console,
    thread::{EndReason, Thread},
};

/// Call numbers (Linux, `arch/x86/entry/syscalls/syscall_64.tbl`).
mod number {
    pub(super) const WRITE: u64 = 1;
    pub(super) const EXIT: u64 = 60;
    pub(super) const GETPPID: u64 = 110;
}

/// What a call can fail with (Linux, `include/uapi/asm-generic/errno-base.h` and `errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
enum Errno {
    /// EBADF: no such open file.
    BadFile = 9,
    /// ENOMEM: out of memory.
    NoMemory = 12,
    /// EFAULT: a bad address.
    BadAddress = 14,
    /// ENOSYS: no such call.
    NoSuchCall = 38,
}

/// The most that one call of `write` takes; it returns how much it took, as Linux does for its own limit.
const MAX_WRITE: u64 = 4096;

/// The numbers below 64 that were asked for and do not exist, a bit each: they are logged once.
static UNKNOWN_LOGGED: AtomicU64 = AtomicU64::new(0);

/// Answers a call that cannot wait; false when the thread's future has to see it. Interrupts are off.
pub(crate) fn answer_at_once(registers: &mut Context) -> bool {
    match registers.rax {
        // The parent of a program that the console started is outside of its world.
        number::GETPPID => registers.rax = 0,
        _ => return false,
    }
    true
}

/// Serves a call in the thread's future. Returns why the thread ends, if the call says so.
pub(crate) async fn serve(thread: &Thread) -> Option<EndReason> {
    let (call, arguments) = thread.syscall_arguments();
    let result = match call {
        number::EXIT => return Some(EndReason::Finished(arguments[0] as u8)),
        // Rare enough, and too large for every thread's future to have room for it.
        number::WRITE => Box::pin(write(thread, arguments[0], arguments[1], arguments[2])).await,
        unknown => {
            log_once(unknown);
            Err(Errno::NoSuchCall)
        }
    };
    thread.set_syscall_result(match result {
        Ok(value) => value,
        Err(errno) => (errno as i64).wrapping_neg() as u64,
    });
    None
}

async fn write(thread: &Thread, file: u64, address: u64, bytes: u64) -> Result<u64, Errno> {
    // Standard output and standard error are the same console.
    if !matches!(file, 1 | 2) {
        return Err(Errno::BadFile);
    }
    let space = thread.space().ok_or(Errno::BadAddress)?;
    let bytes = bytes.min(MAX_WRITE) as usize;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| Errno::NoMemory)?;
    buffer.resize(bytes, 0);
    space.copy_in(address, &mut buffer).await.map_err(|_| Errno::BadAddress)?;
    console::output().write_all(&buffer).await;
    Ok(bytes as u64)
}

fn log_once(call: u64) {
    let bit = 1 << (call % 64);
    if UNKNOWN_LOGGED.fetch_or(bit, Relaxed) & bit == 0 {
        log::warn!("a program made the unknown system call {call}; it gets ENOSYS");
    }
}
