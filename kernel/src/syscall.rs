//! System calls of ring-3 programs: numbers, registers and errors are those of Linux on x86-64.
//!
//! The number is in `rax`, the arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`, `r9`; the result comes back
//! in `rax`, an error as its negated number. What cannot wait is answered without leaving the thread;
//! everything else runs in the thread's future and may wait.

use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    arch::context::Context,
    console, heap,
    memory::USER,
    thread::{EndReason, Thread},
};

/// Call numbers (Linux, `arch/x86/entry/syscalls/syscall_64.tbl`). The upper half of `rax` is ignored.
mod number {
    pub(super) const WRITE: u32 = 1;
    pub(super) const EXIT: u32 = 60;
    pub(super) const GETPPID: u32 = 110;
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

type Answer = Result<u64, Errno>;

/// The most that one call of `write` takes, in bytes (Linux, `MAX_RW_COUNT`).
const MAX_WRITE: u64 = 0x7fff_f000;
/// How much of it is in the kernel's hands at once.
const WRITE_CHUNK: u64 = 4096;

/// Answers a call that cannot wait; false when the thread's future has to see it. Interrupts are off.
pub(crate) fn answer_at_once(registers: &mut Context) -> bool {
    let answer = match registers.rax as u32 {
        // The parent of a program that the console started is outside of its world.
        number::GETPPID => Some(Ok(0)),
        number::WRITE => Write::from_registers([registers.rdi, registers.rsi, registers.rdx]).at_once(),
        number::EXIT => None,
        unknown => unknown::was_logged(unknown).then_some(Err(Errno::NoSuchCall)),
    };
    if let Some(answer) = answer {
        registers.rax = encode(answer);
    }
    answer.is_some()
}

/// Serves a call in the thread's future. Returns why the thread ends, if the call says so.
pub(crate) async fn serve(thread: &Thread) -> Option<EndReason> {
    let (call, [first, second, third, ..]) = thread.syscall_arguments();
    let answer = match call as u32 {
        number::EXIT => return Some(EndReason::Finished(first as u8)),
        // Rare enough, and too large for every thread's future to have room for it.
        number::WRITE => match heap::try_box(Write::from_registers([first, second, third]).serve(thread)) {
            Some(write) => Box::into_pin(write).await,
            None => Err(Errno::NoMemory),
        },
        unknown => {
            unknown::log(unknown);
            Err(Errno::NoSuchCall)
        }
    };
    thread.set_syscall_result(encode(answer));
    None
}

fn encode(answer: Answer) -> u64 {
    answer.unwrap_or_else(|errno| (errno as i64).wrapping_neg() as u64)
}

/// `write(file, address, bytes)`.
struct Write {
    file: u32,
    address: u64,
    bytes: u64,
}

impl Write {
    fn from_registers([file, address, bytes]: [u64; 3]) -> Self {
        Self { file: file as u32, address, bytes }
    }

    /// What needs no look at the program's memory.
    fn at_once(&self) -> Option<Answer> {
        // Standard output and standard error are the same console.
        if !matches!(self.file, 1 | 2) {
            return Some(Err(Errno::BadFile));
        }
        if self.address.checked_add(self.bytes).is_none_or(|end| end > USER.end) {
            return Some(Err(Errno::BadAddress));
        }
        (self.bytes == 0).then_some(Ok(0))
    }

    /// Writes piece by piece. A bad address is an error only if nothing was written before it, and a kill
    /// ends the call with what was.
    async fn serve(self, thread: &Thread) -> Answer {
        let space = thread.space().ok_or(Errno::BadAddress)?;
        let bytes = self.bytes.min(MAX_WRITE);
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(bytes.min(WRITE_CHUNK) as usize).map_err(|_| Errno::NoMemory)?;
        let mut written = 0;
        while written < bytes && !thread.kill_requested() {
            buffer.resize((bytes - written).min(WRITE_CHUNK) as usize, 0);
            if space.copy_in(self.address + written, &mut buffer).await.is_err() {
                break;
            }
            console::output().write_all(&buffer).await;
            written += buffer.len() as u64;
        }
        if written == 0 { Err(Errno::BadAddress) } else { Ok(written) }
    }
}

/// Calls that do not exist: each is logged once, so that a program that asks again and again fills no log.
mod unknown {
    use super::{AtomicU64, Relaxed};

    /// Numbers from here on share a bit.
    const LAST: u32 = 511;

    /// The numbers that were logged, a bit each.
    static LOGGED: [AtomicU64; (LAST as usize + 1) / 64] = [const { AtomicU64::new(0) }; _];

    fn place(call: u32) -> (&'static AtomicU64, u64) {
        let call = call.min(LAST);
        (&LOGGED[call as usize / 64], 1 << (call % 64))
    }

    pub(super) fn was_logged(call: u32) -> bool {
        let (word, bit) = place(call);
        word.load(Relaxed) & bit != 0
    }

    pub(super) fn log(call: u32) {
        let (word, bit) = place(call);
        if word.fetch_or(bit, Relaxed) & bit == 0 {
            log::warn!("a program made the unknown system call {call}; it gets ENOSYS");
        }
    }
}
