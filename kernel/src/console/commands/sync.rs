//! `sync`: what was written is durable when it is done.

use alloc::{boxed::Box, format};

use super::super::{Command, CommandError, disks, output::say};
use crate::memory;

pub(super) static SYNC: Command = Command {
    name: "sync",
    usage: "[DISK]",
    help: "stores what was changed, of all disks or of one, and waits until it is durable",
    run: |mut arguments| {
        Box::pin(async move {
            let name = arguments.word();
            arguments.end()?;
            if let Some(name) = &name {
                disks::choose(Some(name))?;
            }
            sync(name.as_deref()).await
        })
    },
};

/// Flushes all objects, or those of one disk: each is tried, whatever becomes of the others.
async fn sync(disk: Option<&str>) -> Result<u8, CommandError> {
    let (mut flushed, mut failed) = (0, 0);
    for object in memory::memory().objects() {
        if disk.is_some_and(|disk| object.name() != disk) {
            continue;
        }
        match object.flush().await {
            Ok(()) => flushed += 1,
            Err(error) => {
                failed += 1;
                say!("{}: {error}", object.name());
            }
        }
    }
    match failed {
        0 => Ok(0),
        _ => Err(CommandError::Failed(format!("{failed} of {} objects were not flushed", failed + flushed))),
    }
}
