//! Store requests: the writing of one page, in the hands of its pager.
//!
//! While a page is being written it keeps its frame, whatever else happens to it, and the request keeps the
//! object: so a device never reads from a frame that is somebody else's.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | store, write | the page may be written at any time; it is known to be written since, and stays dirty at the next mark |
//! | store, store of the same page | the second waits for the end of the first, then writes the page again; also of the same page of a base and its overlays, see `family` |
//! | store, load of the same page | a page is not loaded while it is being written: it is there, or whoever wants it waits |
//! | store, discard, invalidate or release | `WritingBackDiscarded`: nobody sees the page any more; its frame is freed at the end |
//! | store, mark | a page that is being written stays as it is |
//! | store, unmap | the page stays with its object; what the page table says of writes is noted |
//! | store, last user of the object goes | the request keeps the object until the end |
//! | pager drops the request | counts as a completion with `PageError::Abandoned` |

use alloc::sync::Arc;
use core::fmt;

use crate::fallible::Shared;
use crate::frame::address_of;
use crate::transfer::Transfer;
use crate::{Memory, PageError, PageIndex, PhysAddr, VmObject};

/// A store of one page, in the hands of a pager. It ends whether or not anybody still waits.
///
/// Dropping a request ends it with [`PageError::Abandoned`]. Neither that nor [`StoreRequest::complete`] may be
/// done by an interrupt handler.
pub struct StoreRequest {
    /// Always there until the end.
    store: Option<Shared<Transfer>>,
    object: Arc<VmObject>,
    frame: u64,
    /// Whether a pager has it.
    is_handed_over: bool,
}

/// Who is told of an error, beside those who wait.
#[derive(Clone, Copy)]
enum Told {
    NextFlush,
    Nobody,
}

impl StoreRequest {
    pub(crate) fn new(store: Shared<Transfer>, object: Arc<VmObject>, frame: u64) -> Self {
        Self { store: Some(store), object, frame, is_handed_over: false }
    }

    pub(crate) fn transfer(&self) -> &Shared<Transfer> {
        self.store.as_ref().expect("a request has its transfer until it ends")
    }

    /// The page that is written.
    pub fn index(&self) -> PageIndex {
        self.transfer().page()
    }

    /// The memory that the page belongs to.
    pub fn memory(&self) -> &'static Memory {
        self.transfer().memory()
    }

    /// Where the device is to read, until the request ends.
    pub fn frame_address(&self) -> PhysAddr {
        address_of(self.frame)
    }

    /// Copies bytes of the page from `offset` on, for pagers that write by the processor. Threads may write to the
    /// page at the same time: then the bytes are some mixture, and the page is written again later.
    ///
    /// # Panics
    /// When the bytes reach beyond the page.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        self.memory().frames().window().read(self.frame_address(), offset, to);
    }

    /// Ends the store: the pager holds what was written, or the store has failed, and the page stays to be written.
    /// Everyone who waits is woken.
    pub fn complete(mut self, result: Result<(), PageError>) {
        self.end(result, Told::NextFlush);
    }

    /// From now on the pager has it.
    pub(crate) fn hand_over(&mut self) {
        self.memory().write_back.begin_store();
        self.is_handed_over = true;
    }

    /// Ends the store before the pager has seen it, for who gives it up.
    pub(crate) fn withdraw(mut self) {
        self.end(Err(PageError::Abandoned), Told::Nobody);
    }

    fn end(&mut self, result: Result<(), PageError>, told: Told) {
        let Some(store) = self.store.take() else { return };
        self.object.tell_end(true, store.page(), result.is_err());
        let answer = self.object.finish_store(store.page().as_u64(), result);
        if self.is_handed_over {
            store.memory().write_back.end_store(result.is_ok());
        }
        if let (Err(error), Told::NextFlush) = (answer, told) {
            self.object.keep_error(store.page(), error);
        }
        store.settle_store(answer);
    }
}

impl Drop for StoreRequest {
    fn drop(&mut self) {
        self.end(Err(PageError::Abandoned), Told::NextFlush);
    }
}

impl fmt::Debug for StoreRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreRequest(page {})", self.index())
    }
}
