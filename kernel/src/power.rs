//! The end of a run.

use crate::{screen, serial};

/// Shows what was printed on the screen, tells the runner the status of this run and powers the machine off. From tasks
/// and threads; not in interrupt handlers.
pub fn exit(status: u8) -> ! {
    // First: at that word the runner takes its picture.
    screen::show_all();
    drivers::power::control(&alloc::format!("status {status}"));
    drivers::power::off()
}

/// Like [`exit`], when all that was written to the serial ports is out, and on the screen.
///
/// # Cancellation
/// Nothing has happened yet.
pub(crate) async fn exit_when_written(status: u8) -> ! {
    serial::CONSOLE.write_now(b"");
    serial::OUTPUT.write_now(b"");
    exit(status)
}
