//! Reading and writing an object's bytes without a mapping.

use alloc::sync::Arc;

use super::VmObject;
use crate::address::PAGE_BYTES;
use crate::frame::address_of;
use crate::settle::{Attempt, plain, settle};
use crate::{Denial, PAGE_SIZE, PageError};

impl VmObject {
    /// Reads bytes at `offset`, waiting for pages that are not there. An error leaves `to` filled up to the
    /// page that failed.
    ///
    /// # Errors
    /// What the pager says; [`PageError::OutOfRange`] for bytes beyond the last page, with nothing read.
    ///
    /// # Cancellation
    /// Dropping the future leaves `to` partly filled.
    pub async fn read(self: &Arc<Self>, offset: u64, to: &mut [u8]) -> Result<(), PageError> {
        self.check(offset, to.len())?;
        let mut done = 0;
        while done < to.len() {
            let (index, within, count) = piece(offset + done as u64, to.len() - done);
            let part = &mut to[done..done + count];
            let touch = plain(|spare| {
                self.touch(index, false, spare, |frame, _, _| {
                    self.memory.frames().window().read(address_of(frame), within, part);
                    Attempt::Done
                })
            });
            settle(self.memory, touch).await.map_err(page_error)?;
            done += count;
        }
        Ok(())
    }

    /// Writes bytes at `offset`, waiting for pages that are not there; the pages become dirty.
    ///
    /// # Errors
    /// As for [`VmObject::read`]; the pages before the one that failed are written.
    ///
    /// # Cancellation
    /// Dropping the future leaves a part written.
    pub async fn write(self: &Arc<Self>, offset: u64, from: &[u8]) -> Result<(), PageError> {
        self.check(offset, from.len())?;
        let mut done = 0;
        while done < from.len() {
            let (index, within, count) = piece(offset + done as u64, from.len() - done);
            let part = &from[done..done + count];
            let touch = plain(|spare| {
                self.touch(index, true, spare, |frame, _, _| {
                    self.memory.frames().window().write(address_of(frame), within, part);
                    Attempt::Done
                })
            });
            settle(self.memory, touch).await.map_err(page_error)?;
            done += count;
        }
        Ok(())
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), PageError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.pages * PAGE_BYTES => Ok(()),
            _ => Err(PageError::OutOfRange),
        }
    }
}

/// The first page that `length` bytes at `offset` lie in, where in it they start, and how many are in it.
pub(crate) fn piece(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE_BYTES) as usize;
    (offset / PAGE_BYTES, within, length.min(PAGE_SIZE - within))
}

fn page_error(denial: Denial) -> PageError {
    match denial {
        Denial::Io { error, .. } => error,
        Denial::Corrupted { .. } => PageError::Corrupted,
        Denial::OutOfMemory => PageError::OutOfMemory,
        Denial::Deadlock => PageError::Deadlock,
        // A touch without a mapping is denied for no other reason.
        _ => PageError::Abandoned,
    }
}
