//! The first and the last of a program.
#![allow(unsafe_code, reason = "the program's first instruction")]

/// Makes `$main`, a `fn() -> u8`, the program: its first instruction calls it, and its answer is the status.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// Where the program begins: on a stack that holds the number of arguments, which nobody asked for.
        #[allow(unsafe_code, reason = "the program's first instruction")]
        // SAFETY: the linker looks for this name, and nothing else in a program has it.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn _start() -> ! {
            // No frame is above this one, and calls want the stack aligned.
            core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {}", "ud2", sym begin)
        }

        extern "C" fn begin() -> ! {
            $crate::system::exit($main())
        }
    };
}

/// What a panic of a program ends with, as Rust's own runtime has it.
const STATUS_PANIC: u8 = 101;

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::line!("{info}");
    crate::system::exit(STATUS_PANIC)
}
