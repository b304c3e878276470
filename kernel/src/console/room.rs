//! Room for what a command wants to allocate: it is refused in a sentence before the memory is gone.

use alloc::string::String;

use super::units::Bytes;
use crate::memory;

/// Frames that a command leaves to everybody else.
const RESERVE: usize = 256;

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
    let bytes = |frames: usize| Bytes((frames * mm::PAGE_SIZE) as u64);
    let (needed, spare) = (bytes(frames), bytes(free.saturating_sub(RESERVE)));
    Err(alloc::format!("that takes {needed} of memory, and {spare} can be had"))
}
