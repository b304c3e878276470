//! A program's file as objects: its own pages, shared by all who run it, and copies of them for those who
//! write.
//!
//! ```text
//! text, constants:  fault ─► file object ─► block pager ─► disk
//! data:             fault ─► copy, one object a run ─► [ copying task ] ─► file object ─► ...
//! bss, stack:       fault ─► zero object
//! ```

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use drivers::block::SECTOR_BYTES;
use executor::{Builder, sync::Mutex};
use mm::{OutOfMemory, PAGE_SIZE, PageError, PageRequest, Pager, VmObject};

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

    /// The file's pages. Whoever maps them does so read-only.
    pub(super) fn object(&self) -> &Arc<VmObject> {
        &self.object
    }

    /// A new object whose pages are copies of the file's from `offset` on, as far as `bytes` reach; the last
    /// page is filled up with zeros. Nothing that is written to it reaches the file.
    ///
    /// # Errors
    /// When there is no memory to note it.
    pub(super) fn copy(&self, offset: u64, bytes: u64) -> Result<Arc<VmObject>, OutOfMemory> {
        heap::has_room()?;
        let pager = Arc::new(CopyPager { source: self.object.clone(), offset, bytes });
        VmObject::try_new(memory::memory(), pager, bytes.div_ceil(PAGE_SIZE as u64))
    }
}

/// Fills pages with what another object holds. What becomes dirty is never given back, and what stays clean
/// can be copied again, so the copies are private.
struct CopyPager {
    source: Arc<VmObject>,
    /// Where in the source the first byte stands.
    offset: u64,
    /// How many bytes there are; zeros follow.
    bytes: u64,
}

impl Pager for CopyPager {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn load(&self, request: PageRequest) {
        let start = request.index().byte_offset();
        let bytes = self.bytes.saturating_sub(start).min(PAGE_SIZE as u64) as usize;
        let task = copy_page(request, self.source.clone(), self.offset + start, bytes);
        // A request whose task cannot begin is dropped with it, and so fails.
        drop(Builder::new().name("copy-page").try_spawn(task));
    }
}

/// Serves one request.
///
/// # Cancellation
/// The request fails.
async fn copy_page(mut request: PageRequest, source: Arc<VmObject>, offset: u64, bytes: usize) {
    let Ok(mut frame) = memory::memory().frames().alloc().await else {
        return request.complete(Err(PageError::OutOfMemory));
    };
    let (copied, zeros) = frame.as_bytes_mut().split_at_mut(bytes);
    zeros.fill(0);
    // The frame is attached when it is full: until then it may have to be given back for want of another.
    if let Err(error) = source.read(offset, copied).await {
        return request.complete(Err(error));
    }
    request.attach(frame);
    request.complete(Ok(()));
}
