//! A program's file as an object: its pages are shared by all who run it, and copied for those who write.
//!
//! ```text
//! text, constants:  fault ─► file object ─► block pager ─► disk
//! data:             fault ─► private memory, one a run ─► file object ─► ...
//! bss, stack:       fault ─► private memory
//! ```

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use drivers::block::SECTOR_BYTES;
use executor::sync::Mutex;
use mm::{OutOfMemory, PAGE_SIZE, VmObject};

use super::archive::Found;
use crate::{block_pager::BlockPager, heap, machine::Disk, memory};

/// A program's file. There are as many as the disk has programs, so they stay once they were used.
pub(super) struct File {
    name: String,
    first_sector: u64,
    /// Page 0 is the file's first page; what is after the file's end reads as zeros.
    object: Arc<VmObject>,
}

static FILES: Mutex<Vec<&'static File>> = Mutex::new(Vec::new());

/// The file that was found on `disk` under `name`: one, however many ask.
///
/// # Errors
/// When there is no memory to note it.
///
/// # Cancellation
/// Nothing has happened.
pub(super) async fn open(disk: &Disk, name: &str, found: &Found) -> Result<&'static File, OutOfMemory> {
    let first_sector = found.offset / SECTOR_BYTES;
    let mut files = FILES.lock().await;
    if let Some(file) = files.iter().find(|file| file.first_sector == first_sector) {
        return Ok(file);
    }
    heap::has_room()?;
    let end_sector = (found.offset + found.bytes).div_ceil(SECTOR_BYTES);
    let pager = BlockPager::start(name.into(), disk.device.clone(), first_sector, end_sector);
    let object = VmObject::try_new(memory::memory(), pager, found.bytes.div_ceil(PAGE_SIZE as u64))?;
    let file: &'static File = Box::leak(Box::new(File { name: name.into(), first_sector, object }));
    files.push(file);
    Ok(file)
}

impl File {
    /// The program's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file's pages. Whoever maps them does so read-only, or in private.
    pub(super) fn object(&self) -> &Arc<VmObject> {
        &self.object
    }
}
