//! The disks that commands read.

use alloc::{string::ToString, sync::Arc, vec::Vec};

use mm::Protection;

use super::{CommandError, UsageError};
use crate::{
    machine::{self, Disk},
    swap,
    window::Window,
};

/// The disk that was named, or the only one that the user gave the machine.
pub(super) fn choose(name: Option<&str>) -> Result<&'static Disk, CommandError> {
    let names = || machine::disks().iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(", ");
    let unclear = |what: &str| CommandError::Usage(UsageError(alloc::format!("{what}: {}", names())));
    if machine::disks().is_empty() {
        return Err(CommandError::Failed("the machine has no disk".to_string()));
    }
    if let Some(name) = name {
        return machine::disk(name).ok_or_else(|| unclear("there is no disk of that name among"));
    }
    let mut own =
        machine::disks().iter().filter(|disk| ![machine::PROGRAMS, swap::NAME].contains(&disk.name.as_str()));
    match (own.next(), own.next()) {
        (Some(disk), None) => Ok(disk),
        (Some(_), Some(_)) => Err(unclear("--disk must name one of these")),
        (None, _) => Err(CommandError::Failed("the machine was given no disk".to_string())),
    }
}

/// The disk's bytes in the kernel's window: exactly as many as the file behind it has.
pub(super) fn map(disk: &Disk) -> Result<Arc<Window>, CommandError> {
    Window::map(disk.object.clone(), disk.bytes as usize, Protection::READ)
        .map(Arc::new)
        .map_err(|why| CommandError::Failed(alloc::format!("{} cannot be mapped: {why}", disk.name)))
}
