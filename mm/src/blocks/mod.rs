//! Blocks: backing stores that read and write nothing smaller than a block, as pagers.
//!
//! [`BlocksOf`] makes a [`Pager`] of a [`BlockStore`]. Where a block is larger than a page, all pages of it that are wanted
//! at the time go in one transfer, and what nobody wants of it lies in frames that the server of the transfer keeps. A store
//! of some pages of a block reads the block first, unless all of its pages are stored. So one dirty page never costs its
//! block another page's content. Smaller blocks divide a page: then each page is a transfer.
//!
//! ```text
//! load, store ─► queue ─► [ server: a block that nobody works on, frames ] ─► BlockStore::read, write
//!                                page state ◄─ each page's end ◄─ server ◄─ BlockTransfer::complete
//! ```
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | load, load of pages of one block | one transfer if both wait when it begins; a later one begins another, because the page may have been invalidated since the first began |
//! | load, load of one page for two objects | one after the other |
//! | store, store of pages of one block | one transfer if both wait when it begins; else one after the other, and the second reads what the first has written |
//! | load, store of pages of one block | one after the other: a block is worked on by one server at a time |
//! | store, its page being written by threads | as for any store: the transfer reads the page's own frame, and the page is written again later |
//! | load without a frame, store | loads and stores have servers of their own; who waits for a frame holds no block, so the store that frees one can go on |
//! | load without a frame, page that is read ahead | the latter ends with nothing |
//! | transfer comes short | pages that are there in whole end well, the others with the error. A store writes nothing of a block that could not be read in whole |
//! | transfer is dropped | counts as done for 0 bytes, with `PageError::Abandoned` |
//! | server is dropped | its transfer ends by itself; its pages then end as abandoned, and the block is free again |
//! | last user of the pager goes | servers end; what waits ends as abandoned |
//!
//! A store is read and written by one `BlocksOf` only: what another writes to a block between this one's reading and
//! writing of it is lost.

mod queue;
mod server;
mod transfer;

use alloc::sync::Arc;
use core::fmt;
use core::future::Future;

use crate::fallible::{Shared, room_for_arc};
use crate::{FlushRequest, Memory, OutOfMemory, PAGE_SIZE, PageRequest, Pager, Requests, StoreRequest};
use queue::{Queue, Wanted};
use server::Server;
pub use transfer::BlockTransfer;

/// What is read and written in blocks of one size.
///
/// It is called by tasks, with no lock held. It never waits: it keeps the transfer and completes it later, from wherever
/// it likes except an interrupt handler.
pub trait BlockStore: Send + Sync {
    /// A short name for reports.
    fn name(&self) -> &str;

    /// Bytes of a block: a power of two from 512 to 2 MiB, always the same.
    fn block_bytes(&self) -> usize;

    /// Starts to read a transfer's bytes, which are whole blocks. Bytes beyond the end of the store are either missing,
    /// or zeros and then not written.
    fn read(&self, transfer: BlockTransfer);

    /// Starts to write a transfer's bytes, which are whole blocks. Completed when later reads will find them.
    fn write(&self, transfer: BlockTransfer);

    /// Starts to make durable what was written; see [`Pager::flush`].
    ///
    /// Without this, what is written is durable at once.
    fn flush(&self, request: FlushRequest) {
        request.complete(Ok(()));
    }
}

/// Why a store cannot be a pager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlocksError {
    /// Blocks of this many bytes are not supported.
    BlockSize(usize),
    /// The heap is full, or there are no frames.
    OutOfMemory,
}

impl From<OutOfMemory> for BlocksError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for BlocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlocksError::BlockSize(bytes) => {
                write!(f, "blocks of {bytes} bytes: no power of two from 512 to 2 MiB")
            }
            BlocksError::OutOfMemory => OutOfMemory.fmt(f),
        }
    }
}

/// What a server serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// Loads.
    Loads,
    /// Stores, which go on while loads wait for memory.
    Stores,
}

/// A pager over a store of blocks. Pages go through its servers, see [`try_server`](Self::try_server).
pub struct BlocksOf {
    memory: &'static Memory,
    store: Arc<dyn BlockStore>,
    queue: Shared<Queue>,
    /// Pages of a transfer.
    pages: usize,
}

const SMALLEST: usize = 512;
const LARGEST: usize = 2 << 20;

impl BlocksOf {
    /// A pager over `store`, which nobody else writes. It does nothing before it has a server for loads and one for stores.
    ///
    /// # Errors
    /// See [`BlocksError`].
    pub fn try_new(memory: &'static Memory, store: Arc<dyn BlockStore>) -> Result<Arc<Self>, BlocksError> {
        let bytes = store.block_bytes();
        if !bytes.is_power_of_two() || !(SMALLEST..=LARGEST).contains(&bytes) {
            return Err(BlocksError::BlockSize(bytes));
        }
        let pages = bytes.div_ceil(PAGE_SIZE);
        let queue = Shared::try_new(Queue::new(pages as u64))?;
        room_for_arc::<Self>()?;
        Ok(Arc::new(Self { memory, store, queue, pages }))
    }

    /// A server: a future that ends when the pager does, to be run as a task. Each has one transfer under way at a time, and
    /// keeps the frames of a block for it, so that it needs no memory later but the pages' own frames.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full or there are no frames for a block.
    ///
    /// # Cancellation
    /// What it works on ends as abandoned, once the store is done with it.
    pub fn try_server(
        &self,
        serves: Serves,
    ) -> Result<impl Future<Output = ()> + Send + 'static, OutOfMemory> {
        let server =
            Server::try_new(self.memory, self.store.clone(), self.queue.clone(), self.pages, serves)?;
        Ok(server.serve())
    }

    /// Pages that wait for a server.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }
}

impl Pager for BlocksOf {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn load(&self, request: PageRequest) {
        self.queue.enter(Serves::Loads, [Wanted::Load(request)]);
    }

    fn load_range(&self, requests: Requests<PageRequest>) {
        self.queue.enter(Serves::Loads, requests.into_iter().map(Wanted::Load));
    }

    fn pages_at_once(&self) -> usize {
        self.pages
    }

    fn block_pages(&self) -> usize {
        self.pages
    }

    fn store(&self, request: StoreRequest) {
        self.queue.enter(Serves::Stores, [Wanted::Store(request)]);
    }

    fn store_range(&self, requests: Requests<StoreRequest>) {
        self.queue.enter(Serves::Stores, requests.into_iter().map(Wanted::Store));
    }

    fn flush(&self, request: FlushRequest) {
        self.store.flush(request);
    }
}

impl fmt::Debug for BlocksOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlocksOf({}, {} pages a block)", self.store.name(), self.pages)
    }
}

impl Drop for BlocksOf {
    fn drop(&mut self) {
        self.queue.close();
    }
}
