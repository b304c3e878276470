//! `help`, `panic`, `exit`.

use alloc::boxed::Box;

use super::{
    super::{Command, output::say},
    COMMANDS,
};
use crate::power;

pub(super) static HELP: Command = Command {
    name: "help",
    usage: "",
    help: "lists the commands",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            for Command { name, usage, help, .. } in COMMANDS {
                let head = alloc::format!("{name} {usage}");
                say!("{}\n    {help}", head.trim_end());
            }
            say!("Commands are separated by ';'; one with '&' after it runs behind the next.");
            Ok(0)
        })
    },
};

pub(super) static PANIC: Command = Command {
    name: "panic",
    usage: "",
    help: "panics, to show the report",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            panic!("the console was told to panic")
        })
    },
};

pub(super) static EXIT: Command = Command {
    name: "exit",
    usage: "[STATUS]",
    help: "powers the machine off with a status from 0 to 255",
    run: |mut arguments| {
        Box::pin(async move {
            let status = arguments.number("STATUS", 0, 255)?.unwrap_or(0);
            arguments.end()?;
            power::exit_when_written(status as u8).await
        })
    },
};
