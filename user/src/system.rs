//! System calls: numbers, registers and errors are those of Linux on x86-64.
#![allow(unsafe_code, reason = "executes system calls")]

use core::arch::asm;

/// Call numbers (Linux, `arch/x86/entry/syscalls/syscall_64.tbl`).
pub mod number {
    /// Writes bytes to a file.
    pub const WRITE: u64 = 1;
    /// Ends the program.
    pub const EXIT: u64 = 60;
    /// Asks for the parent's number.
    pub const GETPPID: u64 = 110;
}

/// Standard output.
pub const OUTPUT: u64 = 1;

/// EBADF: no such open file.
pub const BAD_FILE: i64 = -9;
/// EFAULT: a bad address.
pub const BAD_ADDRESS: i64 = -14;
/// ENOSYS: no such call.
pub const NO_SUCH_CALL: i64 = -38;

/// Makes any call with any three arguments; the answer is what the kernel says, an error as its negated
/// number.
///
/// It is safe because no call of this kernel changes the program's memory.
pub fn call(number: u64, arguments: [u64; 3]) -> i64 {
    let [first, second, third] = arguments;
    let answer: i64;
    // SAFETY: the kernel keeps all registers but these; no call writes to the program's memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as i64 => answer,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Writes bytes to an open file; returns how many the kernel took, or an error.
pub fn write(file: u64, bytes: &[u8]) -> i64 {
    call(number::WRITE, [file, bytes.as_ptr() as u64, bytes.len() as u64])
}

/// The number of the program's parent.
pub fn parent() -> i64 {
    call(number::GETPPID, [0; 3])
}

/// Ends the program.
pub fn exit(status: u8) -> ! {
    call(number::EXIT, [status.into(), 0, 0]);
    unreachable!("the kernel does not come back from exit")
}
