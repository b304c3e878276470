//! The console: lines from the serial port and the keyboard, and the commands that they name.
//!
//! Commands are tasks: they never block, and never touch memory that may fault; kernel threads do that for
//! them. What a user does wrong is a sentence and a status. The kernel's command line may say `ticker=off`.

mod command;
mod commands;
mod disks;
mod held_pager;
pub(crate) mod histogram;
mod input;
mod output;
mod room;
mod slices;
mod table;
pub mod ticker;
mod tour;
mod units;

use drivers::line::TooLong;

pub use command::{Arguments, Command, CommandError, CommandFuture, UsageError, execute};
pub use histogram::Histogram;
use output::say;
pub use output::{Output, output};

use crate::{machine, power};

/// What this kernel does once it is up: the command of `--exec`, or the tour, or the console.
///
/// # Cancellation
/// The machine stays as it is, without a console.
pub async fn main() {
    let options = machine::options();
    if options.value("ticker") != Some("off") {
        ticker::start();
    }
    drivers::power::control("ready");
    if let Some(script) = &options.vmscript {
        let status = crate::vmscript::run(script).await;
        power::exit_when_written(status).await;
    }
    if let Some(line) = &options.exec {
        let status = execute(line).await;
        power::exit_when_written(status).await;
    }
    if options.tour {
        let status = tour::give(&mut *input::take().await).await;
        if !options.console {
            power::exit_when_written(status).await;
        }
    }
    say!("'help' lists the commands, 'exit' powers the machine off.");
    loop {
        // A command may read what is typed while it runs.
        let line = input::take().await.line().await;
        match line {
            Ok(line) => {
                execute(&line).await;
            }
            Err(TooLong) => {
                say!("error: a line has at most {} bytes", input::MAX_LINE);
            }
        }
    }
}
