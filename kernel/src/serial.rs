//! The two serial ports: the console with the log, and the output of a command that the runner started.

use core::fmt::{self, Write};

use drivers::serial::{Com, Serial};

use crate::{arch::idt, interrupt, logging, screen};

/// COM1: the console and the log.
pub static CONSOLE: Serial = Serial::mirrored(Com::One, &screen::MIRROR);
/// COM2: what a command of `--exec` prints, and nothing else.
pub static OUTPUT: Serial = Serial::mirrored(Com::Two, &screen::OUTPUT_MIRROR);

/// Makes the ports work without interrupts. First at boot, so that everything else can report.
pub(crate) fn init() {
    let are_there = [CONSOLE.init(), OUTPUT.init()];
    logging::init();
    for (name, _) in ["COM1", "COM2"].iter().zip(are_there).filter(|&(_, is_there)| !is_there) {
        log::warn!("{name} is not a 16550A: what is printed there may be lost");
    }
}

/// Lets the ports interrupt. Once at boot.
pub(crate) fn enable_interrupts() {
    interrupt::on_isa(Com::One.irq(), &|| CONSOLE.interrupt());
    interrupt::on_isa(Com::Two.irq(), &|| OUTPUT.interrupt());
    CONSOLE.start();
    OUTPUT.start();
}

/// Whether an interrupt is one of the ports'.
#[inline]
pub(crate) fn is_interrupt(vector: u8) -> bool {
    [Com::One, Com::Two].iter().any(|port| vector == idt::FIRST_ISA + port.irq())
}

/// Bytes of a line that is written in one piece.
const LINE: usize = 240;

/// Writes to the console at once, from anywhere, also with interrupts off: for the log, boot messages,
/// test kernels and panics. Tasks that print much use `CONSOLE.write_all`.
///
/// A line goes out when it is complete, so lines of several CPUs do not mix, unless they are long. Dropping it writes
/// what is left.
pub struct Lines {
    line: [u8; LINE],
    length: usize,
}

impl Lines {
    /// Nothing is written yet.
    pub const fn new() -> Self {
        Self { line: [0; LINE], length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.length == LINE {
                self.flush();
            }
            self.line[self.length] = byte;
            self.length += 1;
        }
    }

    fn flush(&mut self) {
        if self.length > 0 {
            CONSOLE.write_now(&self.line[..self.length]);
            self.length = 0;
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.push(line.as_bytes());
                    // Terminals want both.
                    self.push(b"\r\n");
                    self.flush();
                }
                None => self.push(line.as_bytes()),
            }
        }
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// All other CPUs stand still for good: what they wrote stays unfinished. For a panic.
pub(crate) fn take_over() {
    CONSOLE.take_over();
}

/// Prints to the console at once. See [`Lines`].
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt(&mut $crate::serial::Lines::new(), format_args!($($argument)*));
    }};
}

/// Prints a line to the console at once. See [`Lines`].
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::print!("{}\n", format_args!($($argument)*)) };
}
