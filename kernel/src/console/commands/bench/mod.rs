//! `bench`: what the executor's and the memory's operations cost in this machine.

mod executor;
mod memory;
mod pressure;
mod read;
mod scene;
mod swap;
mod touches;

use alloc::{boxed::Box, string::ToString};

use super::super::{Command, CommandError, output::say};

pub(super) use pressure::run as pressure;

/// The build's profile, as whoever builds the kernel says.
const PROFILE: Option<&str> = option_env!("FAULTLINE_PROFILE");

pub(super) static BENCH: Command = Command {
    name: "bench",
    usage: "executor|mm|read|swap",
    help: "what a wake costs, or a page fault, with --icount in instructions; a disk read in order; page-ins from swap",
    run: |mut arguments| {
        Box::pin(async move {
            let what = arguments.word();
            arguments.end()?;
            if let Some(profile) = PROFILE.filter(|profile| *profile != "release") {
                say!(
                    "this kernel's build is the {profile} one: --release builds the one that figures are of"
                );
            }
            match what.as_deref() {
                Some("executor") => executor::run().await,
                Some("mm") => memory::run().await,
                Some("read") => read::run().await,
                Some("swap") => swap::run().await,
                _ => Err(CommandError::Failed(
                    "there are four benchmarks: bench executor, bench mm, bench read, and bench swap"
                        .to_string(),
                )),
            }
        })
    },
};
