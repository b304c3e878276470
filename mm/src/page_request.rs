//! Page requests: one load of one page, from the pager's side, and the wait for it from the other.
//!
//! The pager holds a [`PageRequest`]; the waiters hold the [`Load`]. They meet in the load's outcome, which
//! is set once, after the page's state has been changed and with no lock held. Neither side keeps the
//! object alive: a load whose object is gone ends like any other, and its frame is freed.
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
use core::future::Future;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::fallible::Shared;
use crate::{Frame, Memory, OutOfMemory, PageError, PageIndex, PhysAddr, VmObject};
use executor::{WaitQueue, WaitReason};

/// One load, as those see it who wait for it.
pub(crate) struct Load {
    object: Weak<VmObject>,
    memory: &'static Memory,
    index: u64,
    /// 0 until the load ends, then `LOOK_AGAIN` or a `PageError`'s number.
    outcome: AtomicU8,
    waiters: WaitQueue,
}

const LOOK_AGAIN: u8 = u8::MAX;

impl Load {
    pub(crate) fn new(
        memory: &'static Memory,
        object: Weak<VmObject>,
        index: u64,
    ) -> Result<Shared<Self>, OutOfMemory> {
        Shared::try_new(Self {
            object,
            memory,
            index,
            outcome: AtomicU8::new(0),
            waiters: WaitQueue::new(WaitReason::Page),
        })
    }

    /// Waits for the load's end. `Ok` means that it is worth looking at the page again, not that it is
    /// there.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing for the load or for other waiters.
    pub(crate) fn wait(&self) -> impl Future<Output = Result<(), PageError>> + Send {
        self.waiters.wait_for(|| self.outcome())
    }

    /// The page that is loaded.
    pub(crate) fn page(&self) -> PageIndex {
        PageIndex::new(self.index)
    }

    fn outcome(&self) -> Option<Result<(), PageError>> {
        match self.outcome.load(Ordering::Acquire) {
            0 => None,
            LOOK_AGAIN => Some(Ok(())),
            number => Some(Err(PageError::from_number(number))),
        }
    }

    fn settle(&self, result: Result<(), PageError>) {
        let number = result.map_or_else(|error| error as u8, |()| LOOK_AGAIN);
        self.outcome.store(number, Ordering::Release);
        self.waiters.wake_all();
    }
}

/// A load of one page, in the hands of a pager. It owns the frame that is filled, and ends whether or not
/// anybody still waits.
///
/// Dropping a request ends it with [`PageError::Abandoned`]. Neither that nor [`PageRequest::complete`]
/// may be done by an interrupt handler.
pub struct PageRequest {
    /// Always there until the end.
    load: Option<Shared<Load>>,
    frame: Option<Frame>,
}

impl PageRequest {
    pub(crate) fn new(load: Shared<Load>) -> Self {
        Self { load: Some(load), frame: None }
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("a request has its load until it ends")
    }

    /// The page that is wanted.
    pub fn index(&self) -> PageIndex {
        self.load().page()
    }

    /// The memory that the page belongs to, whose pool has a frame for it.
    pub fn memory(&self) -> &'static Memory {
        self.load().memory
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
        let counters = &load.memory.counters;
        counters.loads_failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        let result = match load.object.upgrade() {
            Some(object) => object.finish_load(load.index, result),
            None => Ok(()),
        };
        if had_frame {
            load.memory.filling_ended();
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
