//! The files that a run writes for its user: a trace, a picture, a record.
//!
//! All are looked at before anything is built, and before the first is written: none goes over a file of the machine, over
//! another of them, over what is no file, or to where it cannot be made.
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};

use crate::cli::Cli;
use crate::record;

/// Looks at the files that a run with these options would write. Nothing is written or made.
///
/// # Errors
/// Names the first that cannot be written, or would go over another file.
pub(crate) fn check(cli: &Cli) -> Result<()> {
    let described = |log: &Option<PathBuf>| log.as_deref().map(record::beside);
    let outputs = [
        ("the trace", cli.trace.clone(), By::Writing),
        ("the screenshot", cli.screenshot.clone(), By::Renaming),
        ("the record", cli.record.clone(), By::Writing),
        ("the record's description", described(&cli.record), By::Renaming),
    ];
    let disks = cli.disks.iter().map(|disk| &disk.path);
    let machine = disks.chain(&cli.vmscript).chain(&cli.swap).chain(&cli.replay).cloned();
    let inputs: Vec<Place> =
        machine.chain(described(&cli.replay)).filter_map(|path| Place::of(&path).ok()).collect();

    let mut seen: Vec<(&str, Place)> = Vec::new();
    for (what, path, by) in outputs {
        let Some(path) = path else { continue };
        let place = writable(&path, what, by)?;
        if inputs.contains(&place) {
            bail!("{} is a file of the machine: {what} would overwrite it", path.display());
        }
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == place) {
            bail!("{} cannot be both {other} and {what}", path.display());
        }
        seen.push((what, place));
    }
    cli.record.as_deref().map_or(Ok(()), record::refuse_to_replace)
}

/// How a file gets its contents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Writing,
    /// Another file takes its place.
    Renaming,
}

/// Where a file is or would be, whatever path leads there.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file that is there: device and number.
    Taken(u64, u64),
    /// A name in a folder.
    Free(PathBuf),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(about) => Ok(Self::Taken(about.dev(), about.ino())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or(why)?;
                Ok(Self::Free(fs::canonicalize(folder_of(path))?.join(name)))
            }
            Err(why) => Err(why),
        }
    }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The place of a file that can be made, or written if it is there.
fn writable(path: &Path, what: &str, by: By) -> Result<Place> {
    if path.is_dir() {
        bail!("{} is a folder: {what} is a file", path.display());
    }
    // A path that goes on behind its last name, by a slash or a dot, leads to a folder.
    let is_end = |name: &OsStr| path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
    if !path.file_name().is_some_and(is_end) {
        bail!("`{}` ends without the name of a file: {what} is a file", path.display());
    }
    let failure = || format!("cannot write {}", path.display());
    let place = Place::of(path).with_context(failure)?;
    let is_there = matches!(place, Place::Taken(..));
    if is_there && !fs::metadata(path).with_context(failure)?.is_file() {
        bail!("{} is not a regular file, and {what} must be one", path.display());
    }
    if is_there {
        access(path, Access::WRITE_OK).with_context(failure)?;
    }
    if !is_there || by == By::Renaming {
        access(folder_of(path), Access::WRITE_OK | Access::EXEC_OK).with_context(failure)?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests;
