//! Transfers: what a page waits for while its pager reads or writes it. One record, shared by those who wait
//! and by the request in the pager's hands.
//!
//! The outcome is set once, after the page's state has been changed and with no lock held.

use core::future::Future;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::fallible::Shared;
use crate::serving::Waiting;
use crate::{Memory, OutOfMemory, PageError, PageIndex};
use executor::{WaitQueue, WaitReason};

/// One load or store of a page, as those see it who wait for its end.
pub(crate) struct Transfer {
    memory: &'static Memory,
    index: u64,
    /// 0 until the transfer ends, then `LOOK_AGAIN` or a `PageError`'s number, with `NOT_STORED` if it was a store.
    outcome: AtomicU8,
    waiters: WaitQueue,
}

const LOOK_AGAIN: u8 = u8::MAX;
/// The number is why a page could not be stored: whoever waits to see the page looks again all the same.
const NOT_STORED: u8 = 1 << 6;

impl Transfer {
    pub(crate) fn new(memory: &'static Memory, index: u64) -> Result<Shared<Self>, OutOfMemory> {
        let waiters = WaitQueue::new(WaitReason::Page);
        Shared::try_new_in(&memory.transfers, Self { memory, index, outcome: AtomicU8::new(0), waiters })
    }

    /// The same with what is kept for write-back, which is small: without a page for more of them.
    pub(crate) fn new_by_reserve(memory: &'static Memory, index: u64) -> Result<Shared<Self>, OutOfMemory> {
        let waiters = WaitQueue::new(WaitReason::Page);
        let transfer = Self { memory, index, outcome: AtomicU8::new(0), waiters };
        Shared::try_new_in_or_alone(&memory.transfers, transfer)
    }

    pub(crate) fn memory(&self) -> &'static Memory {
        self.memory
    }

    /// The page that is read or written.
    pub(crate) fn page(&self) -> PageIndex {
        PageIndex::new(self.index)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.load(Ordering::Acquire) != 0
    }

    /// Waits for the end. `Ok` means that it is worth looking at the page again, not that it is there; a wait that would
    /// close a circle is an error at once.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing for the transfer or for others who wait.
    pub(crate) fn wait(&self) -> impl Future<Output = Result<(), PageError>> + Send {
        let mut waiting = Waiting::new(self);
        self.waiters.wait_for(move || self.outcome().or_else(|| waiting.begin().err().map(Err)))
    }

    /// What those are told who wait, if it has ended.
    pub(crate) fn outcome(&self) -> Option<Result<(), PageError>> {
        match self.outcome.load(Ordering::Acquire) {
            0 => None,
            number if number & NOT_STORED != 0 => Some(Ok(())),
            number => Some(Err(PageError::from_number(number))),
        }
    }

    /// Of a store that has ended: whether the page was written.
    pub(crate) fn stored(&self) -> Result<(), PageError> {
        match self.outcome.load(Ordering::Acquire) {
            LOOK_AGAIN => Ok(()),
            number => Err(PageError::from_number(number & !NOT_STORED)),
        }
    }

    /// Tells everyone who waits for a load, once.
    pub(crate) fn settle(&self, result: Result<(), PageError>) {
        self.end(result.map_or_else(|error| error as u8, |()| LOOK_AGAIN));
    }

    /// Tells everyone who waits for a store, once. The error is for who stores.
    pub(crate) fn settle_store(&self, result: Result<(), PageError>) {
        self.end(result.map_or_else(|error| error as u8 | NOT_STORED, |()| LOOK_AGAIN));
    }

    fn end(&self, outcome: u8) {
        self.outcome.store(outcome, Ordering::Release);
        self.waiters.wake_all();
    }
}
