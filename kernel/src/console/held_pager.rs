//! A pager that keeps every request until it is told to answer: a device that stalls.

use alloc::{sync::Arc, vec::Vec};

use executor::lock::SpinLock;
use mm::{PageError, PageIndex, PageRequest, Pager};

use crate::memory;

/// What the pages hold: their number, scrambled, so that a page that was mistaken for another is found out.
const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;

/// A pager whose device answers when [`release`](Self::release) says so.
pub(super) struct HeldPager {
    held: SpinLock<Vec<PageRequest>>,
}

impl HeldPager {
    /// Room for the requests of `pages` pages; `None` when there is no memory.
    pub(super) fn new(pages: usize) -> Option<Arc<Self>> {
        let mut held = Vec::new();
        held.try_reserve_exact(pages).ok()?;
        Some(Arc::new(Self { held: SpinLock::new("held pager", held) }))
    }

    /// How many requests are held back.
    pub(super) fn held(&self) -> usize {
        self.held.lock().len()
    }

    /// The first word of a page.
    pub(super) fn word(page: PageIndex) -> u64 {
        (page.as_u64() + 1).wrapping_mul(SCRAMBLE)
    }

    /// Answers what is held back, the latest first, waiting for frames where there are none. Whoever waited
    /// for a page gets a turn before the next is answered, so that what they give back is there.
    ///
    /// # Cancellation
    /// A request that waits for a frame is abandoned; the rest stays held.
    pub(super) async fn release(&self) {
        loop {
            let next = self.held.lock().pop();
            let Some(request) = next else { return };
            answer(request).await;
            executor::yield_now().await;
        }
    }
}

async fn answer(mut request: PageRequest) {
    let Ok(mut frame) = memory::memory().frames().alloc().await else {
        return request.complete(Err(PageError::OutOfMemory));
    };
    frame.zero();
    frame.as_bytes_mut()[..8].copy_from_slice(&HeldPager::word(request.index()).to_le_bytes());
    request.attach(frame);
    request.complete(Ok(()));
}

impl Pager for HeldPager {
    fn name(&self) -> &str {
        "held"
    }

    fn load(&self, request: PageRequest) {
        let mut held = self.held.lock();
        if held.len() < held.capacity() {
            return held.push(request);
        }
        // More than it was made for: not a request that is kept, but one that fails.
        drop(held);
        request.complete(Err(PageError::OutOfMemory));
    }
}
