//! Room for what a command wants to allocate, which is refused in a sentence before the memory is gone; and
//! giving it back without holding others up.

use alloc::{string::String, sync::Arc};

use mm::{PageIndex, VmObject};

use super::units::Bytes;
use crate::memory;

/// Frames that a command leaves to everybody else.
const RESERVE: usize = 256;
/// Pages of an object that are dropped before others get a turn.
const BATCH: u64 = 1024;

/// Makes sure that `frames` frames are free beside a reserve, giving clean pages back where needed.
///
/// # Errors
/// A clause for the user when so many cannot be had.
///
/// # Cancellation
/// Clean pages may have been given back.
pub(super) async fn make_room(frames: usize) -> Result<(), String> {
    let wanted = frames.saturating_add(RESERVE);
    let memory = memory::memory();
    let stats = memory.frames().stats();
    if stats.free + stats.clean >= wanted && stats.free < wanted {
        mm::reclaim(memory, wanted - stats.free).await;
    }
    let free = memory.frames().stats().free;
    if free >= wanted {
        return Ok(());
    }
    let needed = Bytes::of_pages(frames as u64);
    let spare = Bytes::of_pages(free.saturating_sub(RESERVE) as u64);
    Err(alloc::format!("that takes {needed} of memory, and {spare} can be had"))
}

/// Drops all pages of an object, some at a time.
///
/// # Cancellation
/// A part has been dropped.
pub(super) async fn drop_pages(object: Arc<VmObject>) {
    for first in (0..object.pages()).step_by(BATCH as usize) {
        object.release(PageIndex::new(first)..PageIndex::new(first + BATCH));
        executor::yield_now().await;
    }
}
