//! The end of a run.

use crate::{screen, serial};

/// Tells the runner the status of this run and powers the machine off. May be called from anywhere.
pub fn exit(status: u8) -> ! {
    drivers::power::control(&alloc::format!("status {status}"));
    drivers::power::off()
}

/// Like [`exit`], when all that was written to the serial ports is out, and on the screen.
///
/// # Cancellation
/// Nothing has happened yet.
pub async fn exit_when_written(status: u8) -> ! {
    serial::CONSOLE.write_now(b"");
    serial::OUTPUT.write_now(b"");
    screen::show_all().await;
    exit(status)
}
