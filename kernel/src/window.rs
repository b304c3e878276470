//! The kernel's window: objects mapped where kernel threads can touch them.
//!
//! Any load may fault; the thread is parked until the page is there. Code that owns nothing may use a
//! plain slice ([`Window::as_slice`]): a device's error or a kill then ends the thread. Code that owns
//! something uses [`Window::read_at`], which returns both as values.
#![allow(unsafe_code, reason = "makes slices of memory that is loaded on demand")]

use alloc::sync::Arc;
use core::{
    fmt,
    ops::Range,
    pin::pin,
    slice,
    task::{Context, Waker},
};

use executor::{Builder, JoinHandle, SpawnError};
use mm::{Denial, MapError, PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr, VmObject};

use crate::{arch::copy, heap, memory, thread};

/// An object, or a part of one, in the kernel's window. Dropping it unmaps it.
pub struct Window {
    start: VirtAddr,
    bytes: usize,
}

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The range is not inside the window.
    OutOfRange,
    /// The access was denied, or the device failed.
    Denied(Denial),
    /// The thread is to end: give back what you own, and return.
    Killed,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("the range is not inside the window"),
            Self::Denied(why) => why.fmt(f),
            Self::Killed => thread::Killed.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {}

impl Window {
    /// Maps the first `bytes` of `object`, read-only or also writable.
    ///
    /// # Errors
    /// When the window or the heap has no room, or the object is smaller.
    pub fn map(object: Arc<VmObject>, bytes: usize, protection: Protection) -> Result<Self, MapError> {
        heap::has_room().map_err(|mm::OutOfMemory| MapError::NoMemory)?;
        let pages = bytes.div_ceil(PAGE_SIZE) as u64;
        let start =
            memory::kernel_space().map(&object, PageIndex::new(0), pages, protection, Placement::Anywhere)?;
        Ok(Self { start, bytes })
    }

    /// How many bytes it shows.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where it stands.
    pub fn start(&self) -> VirtAddr {
        self.start
    }

    /// Which byte of it `address` is, if any: for a fault's report.
    pub fn offset_of(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.start.as_u64())?).ok()?;
        (offset < self.bytes).then_some(offset)
    }

    /// All bytes. For kernel threads that own nothing: touching a page that cannot be had ends the thread,
    /// and no destructor runs.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range is mapped as long as the window lives; a load either finds the page, or never
        // returns. The bytes change only when a device's pages are read again after an eviction, and
        // then to the same values, as nothing writes to what is mapped read-only.
        unsafe { slice::from_raw_parts(self.start.as_u64() as *const u8, self.bytes) }
    }

    /// All bytes, of a window that was mapped writable. As [`as_slice`](Self::as_slice).
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the window is borrowed exclusively. A store to a window that is
        // mapped read-only ends the thread.
        unsafe { slice::from_raw_parts_mut(self.start.as_u64() as *mut u8, self.bytes) }
    }

    /// Copies `to.len()` bytes from `offset` on. For kernel threads, also those that own something.
    ///
    /// # Errors
    /// [`ReadError::Denied`] when a page cannot be had (the rest of `to` is unspecified),
    /// [`ReadError::Killed`] when the thread is to end.
    ///
    /// # Panics
    /// On the executor, which must not fault.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), ReadError> {
        let thread = thread::current().expect("read_at: only a thread may touch the window");
        if thread.kill_requested() {
            return Err(ReadError::Killed);
        }
        if offset.checked_add(to.len()).is_none_or(|end| end > self.bytes) {
            return Err(ReadError::OutOfRange);
        }
        let from = (self.start.as_u64() as usize + offset) as *const u8;
        // SAFETY: the range is inside this window.
        unsafe { copy::copy_guarded(to, from) }.map_err(|copy::Denied| match thread.take_refusal() {
            Some(Err(why)) => ReadError::Denied(why),
            _ => ReadError::Killed,
        })
    }

    fn range(&self) -> Range<VirtAddr> {
        let end = self.start.as_u64() + (self.bytes.div_ceil(PAGE_SIZE) * PAGE_SIZE) as u64;
        self.start..VirtAddr::truncated(end)
    }

    /// Unmaps it. Returns when no CPU can reach it any more.
    ///
    /// # Cancellation
    /// Dropping the future does not stop the unmapping, which a task does.
    pub async fn unmap(self) {
        if let Ok(done) = self.spawn_unmap() {
            core::mem::forget(self);
            let _ = done.await;
        }
    }

    fn spawn_unmap(&self) -> Result<JoinHandle<()>, SpawnError> {
        Builder::new().name("unmap").try_spawn(unmap(self.range()))
    }
}

/// The range is a window's own since `map`, so there is nothing that could be wrong with it.
async fn unmap(range: Range<VirtAddr>) {
    let _ = memory::kernel_space().unmap(range).await;
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.spawn_unmap().is_err() {
            // There is no memory for a task. The first poll begins to take the pages away, and dropping it takes the others;
            // what is left after that happens by itself.
            let _ = pin!(unmap(self.range())).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
