//! Pagers: where the pages of an object come from.

use core::fmt;

use crate::{FlushRequest, PageRequest, Requests, StoreRequest};

/// What fills the pages of an object: a disk, a file, a program.
///
/// A pager is called by tasks, with no lock held. It never waits: it keeps the request and completes it
/// later, from wherever it likes except an interrupt handler.
pub trait Pager: Send + Sync {
    /// A short name for reports, like `disk0`.
    fn name(&self) -> &str;

    /// Starts to load a page. The pager gives the request a frame when its device can take it
    /// ([`PageRequest::attach`]), fills it and calls [`PageRequest::complete`]. A request that is dropped
    /// before that counts as failed with [`PageError::Abandoned`].
    ///
    /// Where a program gives the advice that it will need a page, nobody waits for it: [`PageRequest::is_ahead`].
    fn load(&self, request: PageRequest);

    /// Starts to load pages that follow each other, at most [`pages_at_once`](Self::pages_at_once) of them. As
    /// [`load`](Self::load) for each: they complete one by one or together, with errors of their own. The first was
    /// asked for or not, as [`PageRequest::is_ahead`] says of each; with [`block_pages`](Self::block_pages), it may
    /// be another that was.
    ///
    /// Without this they are loaded one by one, in order.
    fn load_range(&self, requests: Requests<PageRequest>) {
        requests.into_iter().for_each(|request| self.load(request));
    }

    /// The most pages that one request is good for. With more than one, objects read ahead when their pages are touched
    /// in order, and show pages that are there beside the one that was touched. At most 32 are stored at once, and 128
    /// loaded, in whole [blocks](Self::block_pages). Whether it is more than one is asked when an object is made.
    fn pages_at_once(&self) -> usize {
        1
    }

    /// Pages that come from the backing store together anyway, as one block does that is larger than a page: a power of two,
    /// always the same. A load of one of them loads the others that are missing, where reading ahead is on and there is
    /// room; see [`BlocksOf`](crate::BlocksOf).
    fn block_pages(&self) -> usize {
        1
    }

    /// Starts to write a page to the backing store. The pager reads the request's frame and calls
    /// [`StoreRequest::complete`] when what it has read will be found by later loads. A request that is dropped
    /// before that counts as failed with [`PageError::Abandoned`].
    ///
    /// Until then the page as the base of an overlay that stores it is not loaded: a pager that touches that one for a
    /// store waits for itself, which is an answer only if it says whom it serves ([`StoreRequest::served_here`]).
    ///
    /// Without this, nothing can be written: [`PageError::ReadOnly`].
    fn store(&self, request: StoreRequest) {
        request.complete(Err(PageError::ReadOnly));
    }

    /// Starts to write pages that follow each other, as [`store`](Self::store) for each.
    ///
    /// Without this they are written one by one, in order.
    fn store_range(&self, requests: Requests<StoreRequest>) {
        requests.into_iter().for_each(|request| self.store(request));
    }

    /// Starts to make durable what was stored: all stores that are complete when this is called, of whichever object. Ends
    /// with [`FlushRequest::complete`] when they survive the end of power. One command of a device may answer several
    /// requests, if it is given to the device after all of them have arrived. As errors are, so is a request that is
    /// dropped ([`PageError::Abandoned`]): all that was stored since the last flush that ended well is stored again.
    ///
    /// Without this, what is stored is durable at once.
    fn flush(&self, request: FlushRequest) {
        request.complete(Ok(()));
    }
}

/// Why a page could not be loaded or stored. It reaches everyone who waits for that; the next touch loads it again,
/// the next store writes it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageError {
    /// The device failed.
    Io = 1,
    /// The device is gone.
    DeviceGone = 2,
    /// The page lies beyond the end of the backing store.
    OutOfRange = 3,
    /// There was no frame for the page.
    OutOfMemory = 4,
    /// The pager dropped the request without an answer.
    Abandoned = 5,
    /// The data arrived but is not what was once written.
    Corrupted = 6,
    /// The backing store cannot be written.
    ReadOnly = 7,
    /// The page cannot be there before whoever asks for it is done: see [`PageRequest::served_here`].
    Deadlock = 8,
    /// The object was closed; see [`VmObject::close`](crate::VmObject::close).
    Closed = 9,
}

impl PageError {
    /// The error with this number; see the enum.
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => PageError::Io,
            2 => PageError::DeviceGone,
            3 => PageError::OutOfRange,
            4 => PageError::OutOfMemory,
            6 => PageError::Corrupted,
            7 => PageError::ReadOnly,
            8 => PageError::Deadlock,
            9 => PageError::Closed,
            _ => PageError::Abandoned,
        }
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageError::Io => "I/O error",
            PageError::DeviceGone => "the device is gone",
            PageError::OutOfRange => "beyond the end of the device",
            PageError::OutOfMemory => "out of memory",
            PageError::Abandoned => "the pager gave up",
            PageError::Corrupted => "the data is corrupted",
            PageError::Deadlock => "each of several pages would wait for the next",
            PageError::ReadOnly => "the backing store cannot be written",
            PageError::Closed => "the object was closed",
        })
    }
}
