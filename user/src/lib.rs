//! What the programs of ring 3 share: their first instruction, system calls, and lines of output.
//!
//! A program is a file in `src/bin` with a `fn main() -> u8` that [`program!`] makes its beginning; what
//! `main` returns is the program's status. System calls are those of Linux on x86-64, so the same files run
//! there too.
#![no_std]

mod output;
mod start;
pub mod system;

pub use output::line;

/// Writes a formatted line to standard output; see [`line`].
#[macro_export]
macro_rules! line {
    ($($argument:tt)*) => { $crate::line(format_args!($($argument)*)) };
}
