//! `bench`: what the executor's and the memory's operations cost in this machine.

mod executor;
mod memory;
mod pressure;
mod read;
mod scene;
mod swap;
mod touches;

use alloc::boxed::Box;

use super::super::{Command, CommandFuture, UsageError, output::say};

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
            let run: fn() -> CommandFuture = match what.as_deref() {
                Some("executor") => || Box::pin(executor::run()),
                Some("mm") => || Box::pin(memory::run()),
                Some("read") => || Box::pin(read::run()),
                Some("swap") => || Box::pin(swap::run()),
                _ => return Err(UsageError("executor, mm, read or swap?".into()).into()),
            };
            if let Some(profile) = PROFILE.filter(|profile| *profile != "release") {
                say!(
                    "this kernel's build is the {profile} one: --release builds the one that figures are of"
                );
            }
            run().await
        })
    },
};
