//! Looking for a program on the disk of programs, a tar archive.
//!
//! A kernel thread does it, by ordinary code that knows nothing of faults: the archive is mapped in the
//! kernel's window, and each header that is looked at is a page that may have to be loaded first. Such a load
//! can end the thread; all that it owns, it captured, and that goes with its record.

use alloc::string::String;
use core::ops::Range;

use executor::sync::oneshot;
use mm::Protection;
use tar_no_std::{CorruptDataError, TarArchiveRef};

use super::{
    RunError,
    elf::{BadImage, Image},
};
use crate::{machine::Disk, thread, window::Window};

/// A program's file in the archive.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Where on the disk its bytes begin; a multiple of the sector size.
    pub(super) offset: u64,
    /// How many there are.
    pub(super) bytes: u64,
    /// What the file says of itself.
    pub(super) image: Result<Image, BadImage>,
}

/// Finds the file `name` on `disk`, the disk of programs, and checks that it is a program whose segments lie in
/// `allowed`.
///
/// # Cancellation
/// The search goes on for nobody.
pub(super) async fn find(disk: &Disk, name: &str, allowed: &Range<u64>) -> Result<Found, RunError> {
    let window = Window::map(disk.object.clone(), disk.bytes as usize, Protection::READ)?;
    let (name, allowed) = (String::from(name), allowed.clone());
    let (sender, answer) = oneshot::channel();
    let mut sender = Some(sender);
    let search = move || {
        let found = look_through(window.as_slice(), &name, &allowed);
        if let Some(sender) = sender.take() {
            // Who asked may be gone.
            let _ = sender.send(found);
        }
    };
    let end = thread::spawn("find-program", search)?.await;
    let found = answer.await.map_err(|_| RunError::Unreadable(end))?;
    found.map_err(RunError::BadArchive)?.ok_or(RunError::NotFound)
}

/// What the thread does. What it finds owns nothing, so nothing is lost when it is ended here.
fn look_through(archive: &[u8], name: &str, allowed: &Range<u64>) -> Result<Option<Found>, CorruptDataError> {
    let tar = TarArchiveRef::new(archive)?;
    let file = tar.entries().find(|file| file.filename().as_str() == Ok(name));
    Ok(file.map(|file| {
        let data = file.data();
        let offset = data.as_ptr() as u64 - archive.as_ptr() as u64;
        Found { offset, bytes: data.len() as u64, image: Image::parse(data, allowed) }
    }))
}
