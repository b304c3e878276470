//! The two serial ports: the console with the log, and the output of a command that the runner started.

use core::fmt::{self, Write};

use drivers::serial::{Com, Serial};

use crate::interrupt;

/// COM1: the console and the log.
pub static CONSOLE: Serial = Serial::new(Com::One);
/// COM2: what a command of `--exec` prints, and nothing else.
pub static OUTPUT: Serial = Serial::new(Com::Two);

/// Makes the ports work without interrupts. First at boot, so that everything else can report.
pub(crate) fn init() {
    CONSOLE.init();
    OUTPUT.init();
    // The log is set once, here; what it drops before is lost by design.
    let _ = log::set_logger(&Log).map(|()| log::set_max_level(log::LevelFilter::Info));
}

/// Lets the ports interrupt. Once at boot.
pub(crate) fn enable_interrupts() {
    interrupt::on_isa(Com::One.irq(), &|| CONSOLE.interrupt());
    interrupt::on_isa(Com::Two.irq(), &|| OUTPUT.interrupt());
    CONSOLE.start();
    OUTPUT.start();
}

/// Writes to the console at once, from anywhere, also with interrupts off: for the log, boot messages,
/// test kernels and panics. Tasks that print much use `CONSOLE.write_all`.
pub struct Now;

impl Write for Now {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Terminals want both.
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    CONSOLE.write_now(line.as_bytes());
                    CONSOLE.write_now(b"\r\n");
                }
                None => CONSOLE.write_now(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Prints to the console at once. See [`Now`].
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt(&mut $crate::serial::Now, format_args!($($argument)*));
    }};
}

/// Prints a line to the console at once. See [`Now`](serial::Now).
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::print!("{}\n", format_args!($($argument)*)) };
}

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let now = crate::clock::now();
        println!(
            "[{:5}.{:06}] {:<5} {}",
            now / 1_000_000_000,
            now / 1_000 % 1_000_000,
            record.level(),
            record.args()
        );
    }

    fn flush(&self) {}
}
