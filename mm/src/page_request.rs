//! Page requests: one load of one page, in the hands of its pager.
//!
//! The pager holds a [`PageRequest`]; those who wait hold the same `Transfer`. Neither side keeps the object
//! alive: a load whose object is gone ends like any other, and its frame is freed.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | completion, waiter being dropped | the queue forgets the waiter; the request does not know how many there are |
//! | completion, invalidation | both under the object's lock; `LoadingInvalidated` makes the completion throw the data away |
//! | completion, unmap | nothing to resolve: the page becomes loaded, nobody sees it, the waiters find no mapping |
//! | completion, new waiter | the waiter holds the load already and finds the outcome set before it sleeps |
//! | pager drops the request | counts as a completion with `PageError::Abandoned` |

use alloc::sync::Weak;
use core::fmt;
use core::sync::atomic::Ordering;

use crate::fallible::Shared;
use crate::transfer::Transfer;
use crate::{Frame, Memory, PageError, PageIndex, PhysAddr, VmObject};

/// A load of one page, in the hands of a pager. It owns the frame that is filled, and ends whether or not
/// anybody still waits.
///
/// Dropping a request ends it with [`PageError::Abandoned`]. Neither that nor [`PageRequest::complete`]
/// may be done by an interrupt handler.
pub struct PageRequest {
    /// Always there until the end.
    load: Option<Shared<Transfer>>,
    object: Weak<VmObject>,
    frame: Option<Frame>,
}

impl PageRequest {
    pub(crate) fn new(load: Shared<Transfer>, object: Weak<VmObject>) -> Self {
        Self { load: Some(load), object, frame: None }
    }

    pub(crate) fn transfer(&self) -> &Shared<Transfer> {
        self.load.as_ref().expect("a request has its load until it ends")
    }

    /// The page that is wanted.
    pub fn index(&self) -> PageIndex {
        self.transfer().page()
    }

    /// The memory that the page belongs to, whose pool has a frame for it.
    pub fn memory(&self) -> &'static Memory {
        self.transfer().memory()
    }

    /// Gives the request the frame that will be filled; to be done when the device can take the request,
    /// so that waiting requests cost no memory. An earlier frame is freed.
    pub fn attach(&mut self, frame: Frame) {
        if self.frame.replace(frame).is_none() {
            self.memory().filling.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Where the device is to write, once a frame is attached.
    pub fn frame_address(&self) -> Option<PhysAddr> {
        self.frame.as_ref().map(Frame::address)
    }

    /// The attached frame, to be filled by the processor: in whole, or where the device left off.
    pub fn frame_mut(&mut self) -> Option<&mut Frame> {
        self.frame.as_mut()
    }

    /// Ends the load: the frame holds the page, or the load has failed. Everyone who waits is woken.
    /// Success without a frame counts as [`PageError::Abandoned`].
    pub fn complete(mut self, result: Result<(), PageError>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), PageError>) {
        let Some(load) = self.load.take() else { return };
        let frame = self.frame.take();
        let had_frame = frame.is_some();
        let result = match (result, frame) {
            (Ok(()), Some(frame)) => Ok(frame),
            (Ok(()), None) => Err(PageError::Abandoned),
            (Err(error), _) => Err(error),
        };
        let counters = &load.memory().counters;
        counters.loads_failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        let result = match self.object.upgrade() {
            Some(object) => object.finish_load(load.page().as_u64(), result),
            None => Ok(()),
        };
        if had_frame {
            load.memory().filling_ended();
        }
        load.settle(result);
    }
}

impl Drop for PageRequest {
    fn drop(&mut self) {
        self.end(Err(PageError::Abandoned));
    }
}

impl fmt::Debug for PageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageRequest(page {})", self.index())
    }
}
