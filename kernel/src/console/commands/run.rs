//! `run`: a program of ring 3.

use alloc::{boxed::Box, string::String};

use super::super::{Arguments, Command, CommandError, UsageError, output::say};
use crate::program;

pub(super) static RUN: Command = Command {
    name: "run",
    usage: "PROGRAM",
    help: "runs a program of ring 3; its status is the command's",
    run: |arguments| Box::pin(run(arguments)),
};

async fn run(mut arguments: Arguments) -> Result<u8, CommandError> {
    let name = arguments.word().ok_or_else(|| UsageError("which program?".into()))?;
    arguments.end()?;
    match program::run(&name).await {
        Ok(end) => {
            // A program that came to its own end has said what it had to say.
            if end.signal().is_some() {
                say!("{name}: {end}");
            }
            Ok(end.status())
        }
        Err(error) => {
            let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
            say!("error: {shown}: {error}");
            Ok(error.status())
        }
    }
}
