//! Where commands print.

use alloc::string::String;

use drivers::serial::Serial;

use super::table::Table;
use crate::{machine, serial};

/// Lines of a table that are written before others get a turn.
const BATCH: usize = 16;

/// What commands and programs print to: the console, or the runner's standard output under `--exec` and `--vmscript`.
#[derive(Clone, Copy)]
pub struct Output {
    port: &'static Serial,
    /// Terminals want a carriage return before each line feed; files do not.
    is_terminal: bool,
}

/// The output of this run.
pub fn output() -> Output {
    if machine::options().has_one_task() {
        Output { port: &serial::OUTPUT, is_terminal: false }
    } else {
        Output { port: &serial::CONSOLE, is_terminal: true }
    }
}

impl Output {
    /// Whether a terminal shows it, and not a file.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes text, waiting for the line as often as it takes.
    ///
    /// # Cancellation
    /// A part of the text may have been written.
    pub async fn write(&self, text: &str) {
        self.write_all(text.as_bytes()).await;
    }

    /// Writes bytes; see [`write`](Self::write).
    ///
    /// # Cancellation
    /// A part of the bytes may have been written.
    pub async fn write_all(&self, bytes: &[u8]) {
        if !self.is_terminal {
            return self.port.write_all(bytes).await;
        }
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => {
                    self.port.write_all(line).await;
                    self.port.write_all(b"\r\n").await;
                }
                None => self.port.write_all(line).await,
            }
        }
    }

    /// Writes a table, some lines at a time.
    ///
    /// # Cancellation
    /// A part of the table may have been written.
    pub(super) async fn table(&self, table: &Table) {
        for (number, line) in table.lines().enumerate() {
            self.line(line).await;
            if number % BATCH == 0 {
                executor::yield_now().await;
            }
        }
    }

    /// Writes a line; its end is added.
    ///
    /// # Cancellation
    /// A part of the line may have been written.
    pub async fn line(&self, mut line: String) {
        line.push('\n');
        self.write(&line).await;
    }
}

/// Formats a line and writes it to the output of this run: `say!("...").await` in one word, as formatting
/// arguments must not be kept across a wait.
macro_rules! say {
    ($($argument:tt)*) => {{
        let line = ::alloc::format!($($argument)*);
        $crate::console::output().line(line).await
    }};
}
pub(crate) use say;
