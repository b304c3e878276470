//! `bench`: what the executor's and the memory's operations cost in this machine.

mod executor;
mod memory;
mod read;
mod scene;
mod touches;

use alloc::{boxed::Box, string::ToString};

use super::super::{Command, CommandError};

pub(super) const BENCH: Command = Command {
    name: "bench",
    usage: "executor|mm|read",
    help: "what a wake costs, or a page fault, with --icount in instructions; a disk read in order",
    run: |mut arguments| {
        Box::pin(async move {
            let what = arguments.word();
            arguments.end()?;
            match what.as_deref() {
                Some("executor") => executor::run().await,
                Some("mm") => memory::run().await,
                Some("read") => read::run().await,
                _ => Err(CommandError::Failed(
                    "there are three benchmarks: bench executor, bench mm, and bench read".to_string(),
                )),
            }
        })
    },
};
