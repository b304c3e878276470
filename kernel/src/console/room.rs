//! Room for what a command wants to allocate, which is refused in a sentence before the memory is gone; and
//! giving it back without holding others up.

use alloc::sync::Arc;
use core::fmt;

use mm::{PageIndex, VmObject};

use super::{CommandError, units::Bytes};
use crate::memory;

/// Frames that a command leaves to everybody else, beside those that the reclaimer would want back at once.
const RESERVE: usize = 256;
/// Pages of an object that are dropped before others get a turn.
const BATCH: u64 = 1024;

/// There is not so much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    needed: Bytes,
    available: Bytes,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of memory are needed, and {} can be had", self.needed, self.available)
    }
}

impl From<NoRoom> for CommandError {
    fn from(error: NoRoom) -> Self {
        Self::Failed(alloc::format!("{error}"))
    }
}

/// Makes sure that `frames` frames are free beside a reserve, giving clean pages back where needed.
///
/// # Errors
/// [`NoRoom`] when so many cannot be had.
///
/// # Cancellation
/// Clean pages may have been given back.
pub(super) async fn make_room(frames: usize) -> Result<(), NoRoom> {
    let memory = memory::memory();
    memory.settle().await;
    let stats = memory.frames().stats();
    let reserve = stats.high + RESERVE;
    let wanted = frames.saturating_add(reserve);
    if stats.free + stats.clean >= wanted && stats.free < wanted {
        mm::reclaim(memory, wanted - stats.free).await;
    }
    let free = memory.frames().stats().free;
    if free >= wanted {
        return Ok(());
    }
    let available = Bytes::of_pages(free.saturating_sub(reserve) as u64);
    Err(NoRoom { needed: Bytes::of_pages(frames as u64), available })
}

/// Drops all pages of an object, some at a time.
///
/// # Cancellation
/// A part has been dropped.
pub(super) async fn drop_pages(object: Arc<VmObject>) {
    for first in (0..object.pages()).step_by(BATCH as usize) {
        object.release(PageIndex::new(first)..PageIndex::new(first + BATCH)).await;
        executor::yield_now().await;
    }
}
