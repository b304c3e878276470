//! Programs of ring 3: found on the disk of programs, loaded page by page as they are touched, and run as a
//! thread.
//!
//! `run → archive (a kernel thread reads the tar) → elf (the file's claims, checked) → load (segments
//! become mappings, nothing is read) → thread::spawn_user → faults → file → end`
//!
//! A program ends with a status, or by a fault or an exception, and takes nobody with it. Its address space
//! goes with it; what it shared with the next run of the same program, the unchanged pages of its file,
//! stays as long as there is memory.

mod archive;
pub mod elf;
mod end;
mod file;
mod load;

use alloc::sync::Arc;
use core::fmt;

use mm::{MapError, VirtAddr};
use tar_no_std::CorruptDataError;

pub use elf::BadImage;
pub use end::{End, Signal};

use crate::{
    machine, memory,
    thread::{self, EndReason, SpawnError, Thread, ThreadHandle},
};

/// The disk that the programs are on, where the kernel's command line does not say `programs=DISK`.
const DISK: &str = "programs";

/// Why a program did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
    /// There is no disk of programs.
    NoDisk,
    /// The disk holds something else.
    BadArchive(CorruptDataError),
    /// The disk could not be read: that is how the thread ended that tried.
    Unreadable(EndReason),
    /// No program has this name.
    NotFound,
    /// The file is not a program for this machine.
    BadImage(BadImage),
    /// It, or the disk, could not be mapped.
    Map(MapError),
    /// There is no memory for what the kernel has to know of it, or for its page tables.
    NoMemory,
    /// Its thread, or the one that looks for it, could not begin.
    Spawn(SpawnError),
}

impl RunError {
    /// The status that a shell would give: 127 for what is not there, 126 for what cannot be run.
    pub fn status(self) -> u8 {
        match self {
            Self::NoDisk | Self::NotFound => 127,
            _ => 126,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("there is no disk with programs"),
            Self::BadArchive(why) => write!(f, "the disk with programs is not a good tar archive: {why}"),
            Self::Unreadable(end) => write!(f, "the disk with programs cannot be read: the reader was {end}"),
            Self::NotFound => f.write_str("there is no such program"),
            Self::BadImage(why) => write!(f, "this file cannot be run: {why}"),
            Self::Map(why) => write!(f, "it cannot be mapped: {why}"),
            Self::NoMemory => f.write_str("there is no memory for another program"),
            Self::Spawn(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for RunError {}

impl From<MapError> for RunError {
    fn from(why: MapError) -> Self {
        Self::Map(why)
    }
}

impl From<SpawnError> for RunError {
    fn from(why: SpawnError) -> Self {
        Self::Spawn(why)
    }
}

/// A program that runs.
pub struct Running(ThreadHandle);

impl Running {
    /// Its thread, which can be looked at and killed.
    pub fn thread(&self) -> &Arc<Thread> {
        self.0.thread()
    }

    /// Waits for its end; then everything that it had is given back.
    ///
    /// # Cancellation
    /// The program goes on, and nobody learns how it ends.
    pub async fn end(self) -> End {
        End::of(self.0.await)
    }
}

/// Starts the program `name` from the disk of programs.
///
/// # Errors
/// Why it did not begin. Anything that it does wrong itself is an [`End`].
///
/// # Cancellation
/// Nothing has begun yet, or the program goes on.
pub async fn start(name: &str) -> Result<Running, RunError> {
    let disk = machine::options().value("programs").unwrap_or(DISK);
    let disk = machine::disk(disk).ok_or(RunError::NoDisk)?;
    let found = archive::find(disk, name, &load::SEGMENTS).await?;
    let image = found.image.map_err(RunError::BadImage)?;
    let file = file::open(disk, name, &found).await.map_err(|mm::OutOfMemory| RunError::NoMemory)?;
    let space = memory::new_user_space().ok_or(RunError::NoMemory)?;
    load::map(&space, file, &image)?;
    let entry = VirtAddr::truncated(image.entry());
    Ok(Running(thread::spawn_user(file.name(), space, entry, load::STACK_POINTER)?))
}

/// Runs the program `name` from the disk of programs to its end.
///
/// # Errors
/// As [`start`].
///
/// # Cancellation
/// As [`start`].
pub async fn run(name: &str) -> Result<End, RunError> {
    Ok(start(name).await?.end().await)
}
