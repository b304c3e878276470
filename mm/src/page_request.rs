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
//! | load that nobody has asked for, its failure | the page is `Absent` again; who waits by now looks again, and loads it for itself |

use alloc::sync::Weak;
use core::fmt;
use core::sync::atomic::Ordering;

use crate::fallible::Shared;
use crate::transfer::Transfer;
use crate::{Frame, Memory, OutOfMemory, PageError, PageIndex, PhysAddr, VmObject};

/// Loads that end under one hold of the object's lock.
const TOGETHER: usize = 32;

/// A load of one page, in the hands of a pager. It owns the frame that is filled, and ends whether or not
/// anybody still waits.
///
/// Dropping a request ends it with [`PageError::Abandoned`]. Neither that nor [`PageRequest::complete`]
/// may be done by an interrupt handler.
pub struct PageRequest {
    memory: &'static Memory,
    index: u64,
    /// Always there until the end.
    object: Option<Weak<VmObject>>,
    frame: Option<Frame>,
    /// What those wait for who asked for the page. There is none when it is read ahead: who comes later finds one with
    /// the object.
    load: Option<Shared<Transfer>>,
}

impl PageRequest {
    /// A request for a page that somebody waits for.
    pub(crate) fn new(load: Shared<Transfer>, object: Weak<VmObject>) -> Self {
        let (memory, index) = (load.memory(), load.page().as_u64());
        Self { memory, index, object: Some(object), frame: None, load: Some(load) }
    }

    /// What those wait for who wait for the page; `None` when the object is gone.
    pub(crate) fn transfer(&self) -> Result<Option<Shared<Transfer>>, OutOfMemory> {
        if let Some(load) = &self.load {
            return Ok(Some(load.clone()));
        }
        let object = self.object.as_ref().and_then(Weak::upgrade);
        object.map(|object| object.load_under_way(self.index)).transpose()
    }

    /// A request for a page that nobody has asked for.
    pub(crate) fn ahead(memory: &'static Memory, index: u64, object: Weak<VmObject>) -> Self {
        Self { memory, index, object: Some(object), frame: None, load: None }
    }

    /// The page that is wanted.
    pub fn index(&self) -> PageIndex {
        PageIndex::new(self.index)
    }

    /// Whether nobody has asked for the page: it is read ahead. Then no frame is waited for, see
    /// [`try_attach`](Self::try_attach), and a failure is nobody's: whoever touches the page meanwhile or later loads
    /// it again.
    pub fn is_ahead(&self) -> bool {
        self.load.is_none()
    }

    /// The memory that the page belongs to, whose pool has a frame for it.
    pub fn memory(&self) -> &'static Memory {
        self.memory
    }

    /// Gives the request the frame that will be filled; to be done when the device can take the request,
    /// so that waiting requests cost no memory. An earlier frame is freed.
    pub fn attach(&mut self, frame: Frame) {
        if self.frame.replace(frame).is_none() {
            self.memory().filling.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Gives the request a frame if there is one to spare: any for a page that is wanted, for one that is read ahead
    /// only while there is plenty (see [`ReadAhead`](crate::ReadAhead)), so that nothing is given back for it. False if not.
    pub fn try_attach(&mut self) -> bool {
        let memory = self.memory();
        let frame =
            if self.is_ahead() { memory.try_alloc_ahead() } else { memory.frames().try_alloc_page(None) };
        frame.map(|frame| self.attach(frame)).is_some()
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
        let Some(object) = self.object.take() else { return };
        let frame = self.frame.take();
        let had_frame = usize::from(frame.is_some());
        let result = match (result, frame) {
            (Ok(()), Some(frame)) => Ok(frame),
            (Ok(()), None) => Err(PageError::Abandoned),
            (Err(error), _) => Err(error),
        };
        let failed = result.is_err() && !self.is_ahead();
        self.memory.counters.loads_failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        let (result, load) = match object.upgrade() {
            Some(object) => {
                object.tell_end(false, self.index(), result.is_err());
                object.finish_load(self.index, result, self.is_ahead())
            }
            None => (Ok(()), self.load.clone()),
        };
        self.memory.filling_ended(had_frame);
        if let Some(load) = load {
            load.settle(result);
        }
    }

    /// Ends loads of one object whose pages have all come.
    pub(crate) fn complete_all(requests: &mut [Self]) {
        for some in requests.chunks_mut(TOGETHER) {
            let Some(object) = some.first().and_then(|first| first.object.as_ref()?.upgrade()) else {
                some.iter_mut().for_each(|request| request.end(Ok(())));
                continue;
            };
            // One without a frame ends by being dropped.
            for some in some.chunk_by_mut(|one, next| one.frame.is_some() == next.frame.is_some()) {
                if some[0].frame.is_none() {
                    continue;
                }
                some.iter().for_each(|request| object.tell_end(false, request.index(), false));
                object.finish_loads(some);
                object.memory().filling_ended(some.len());
                for request in some {
                    request.object = None;
                    if let Some(load) = &request.load {
                        load.settle(Ok(()));
                    }
                }
            }
        }
    }

    /// The page is loaded, or was invalidated: whoever waits for it waits for this. Answers whether nobody did when the load
    /// began.
    pub(crate) fn wake_at_end(&mut self, load: Option<Shared<Transfer>>) -> bool {
        let was_ahead = self.is_ahead();
        self.load = load;
        was_ahead
    }

    /// The frame, if there is one, which the page takes.
    pub(crate) fn filled(&mut self) -> &mut Option<Frame> {
        &mut self.frame
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
