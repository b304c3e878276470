//! The program behind `cargo run`.
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use faultline::cli::{Cli, Task};
use faultline::{Outcome, doctor, launcher, run, tell};

fn main() -> ExitCode {
    launcher::become_child_if_asked();
    match serve() {
        Ok(outcome) => {
            if let Some(sentence) = outcome.sentence() {
                tell(sentence);
            }
            outcome.into()
        }
        Err(why) => {
            tell(format_args!("{why:#}"));
            ExitCode::from(Outcome::SETUP_ERROR)
        }
    }
}

fn serve() -> Result<Outcome> {
    let cli = Cli::read(std::env::args_os())?;
    match cli.task {
        Some(Task::Doctor) => doctor::examine(&mut io::stdout()),
        None => run::run(&cli),
    }
}
