//! Flush requests: what has been stored is to be durable, in the hands of a pager.
//!
//! One is made by a flush when its stores have ended, so it covers all that the pager has completed before it was asked.
//! What a request means for pages is in `vm_object/flush`.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | flush request, store that ends after it was made | not covered: the next flush asks again |
//! | flush request, another of the same object | the second is made when the first has ended |
//! | flush request, another of the same pager | the pager may answer both by one command, if that is given to the device after both were asked for |
//! | flush request, its future dropped | it ends as ever, and its error is kept for the next flush |
//! | pager drops the request | counts as a completion with `PageError::Abandoned` |

use alloc::sync::Arc;
use core::fmt;

use crate::fallible::Shared;
use crate::transfer::Transfer;
use crate::{PageError, VmObject};

/// A flush, in the hands of a pager. It ends whether or not anybody still waits.
///
/// Dropping a request ends it with [`PageError::Abandoned`]. Neither that nor [`FlushRequest::complete`] may be
/// done by an interrupt handler.
pub struct FlushRequest {
    /// Always there until the end.
    flush: Option<Shared<Transfer>>,
    /// A base, not an overlay.
    object: Arc<VmObject>,
}

impl FlushRequest {
    pub(crate) fn new(flush: Shared<Transfer>, object: Arc<VmObject>) -> Self {
        Self { flush: Some(flush), object }
    }

    /// Ends the flush: all stores that were complete when it was asked for are durable, or nobody knows which of them
    /// are. Everyone who waits is woken.
    pub fn complete(mut self, result: Result<(), PageError>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), PageError>) {
        let Some(flush) = self.flush.take() else { return };
        self.object.finish_flush(result);
        flush.settle_store(result);
    }
}

impl Drop for FlushRequest {
    fn drop(&mut self) {
        self.end(Err(PageError::Abandoned));
    }
}

impl fmt::Debug for FlushRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlushRequest({:?})", self.object)
    }
}
