//! The loop around every touch of a page: try under short locks; wait for what is missing with none held;
//! try again from the start, because nothing seen before a wait is believed after it.

use alloc::sync::Arc;
use core::future::Future;

use crate::memory::Counters;
use crate::page_request::Load;
use crate::{Denial, Frame, Memory, PageError, PageIndex};

/// What one try came to.
pub(crate) enum Attempt {
    /// The page was used as wanted.
    Done,
    /// Something changed between the look and the commit.
    Again,
    /// A frame is needed, for the page or for a page table, and there is none.
    NeedsFrame,
    /// The page is being loaded.
    Wait(Arc<Load>),
    /// It cannot be.
    Denied(Denial),
}

/// Tries until the attempt is done or denied. The answer says whether a load was waited for. A plain
/// function around an `async` block, because that makes a smaller future than an `async fn`.
///
/// # Cancellation
/// Dropping the future frees the frame it was given, if any, and leaves loads to themselves.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
pub(crate) fn settle(
    memory: &'static Memory,
    mut attempt: impl FnMut(&mut Option<Frame>) -> Attempt,
) -> impl Future<Output = Result<bool, Denial>> {
    async move {
        let mut spare = None;
        let mut waited = false;
        loop {
            let load = match attempt(&mut spare) {
                Attempt::Done => return Ok(waited),
                Attempt::Denied(why) => return Err(why),
                Attempt::Again => {
                    Counters::count(&memory.counters.retries);
                    continue;
                }
                Attempt::NeedsFrame => None,
                Attempt::Wait(load) => Some(load),
            };
            match load {
                None => match memory.frames().alloc().await {
                    Ok(frame) => spare = Some(frame),
                    Err(_) => return Err(Denial::OutOfMemory),
                },
                Some(load) => {
                    waited = true;
                    if let Err(error) = load.wait().await {
                        return Err(denial(load.page(), error));
                    }
                }
            }
        }
    }
}

fn denial(page: PageIndex, error: PageError) -> Denial {
    match error {
        PageError::OutOfMemory => Denial::OutOfMemory,
        error => Denial::Io { page, error },
    }
}
