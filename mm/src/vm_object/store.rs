//! Storing: writing dirty pages to the pager, in order of their offsets.
//!
//! A page that is stored stays dirty, until a mark makes it clean. See `store_request` for what a store meets, and
//! `page_state` for how writes are noticed.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::{Inner, VmObject};
use crate::fallible::Shared;
use crate::frame::PageList;
use crate::page_state::{PageEntry, PageState};
use crate::trace::Asked;
use crate::transfer::Transfer;
use crate::{Memory, OutOfMemory, PageError, PageEvent, PageIndex, Pager, Requests, StoreRequest};

/// Pages whose requests are with the pager at a time.
const BATCH: usize = 32;

/// A page that could not be stored. It stays dirty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// The page of the object.
    pub page: PageIndex,
    /// What the pager answered, or [`PageError::OutOfMemory`] where the heap is full.
    pub error: PageError,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} could not be stored: {}", self.page, self.error)
    }
}

/// Requests that are made and not yet with the pager, in order of their pages. When they are dropped, their pages are dirty
/// as before, and that is nobody's error.
struct Batch {
    requests: Vec<StoreRequest>,
    /// Page tables have said that pages were written: what CPUs remember of that has to be waited for.
    written: bool,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.requests.drain(..).for_each(StoreRequest::withdraw);
    }
}

/// Gathers requests for pages that follow each other, as many as the pager takes at once.
struct Runs<'a> {
    pager: Asked<'a>,
    most: usize,
    run: Option<Requests<StoreRequest>>,
}

impl Runs<'_> {
    fn add(&mut self, request: StoreRequest) {
        if self.most == 1 {
            return self.pager.store(request);
        }
        match &mut self.run {
            Some(run) if run.first() + run.len() as u64 == request.index() && run.len() < self.most => {
                run.push(request);
            }
            _ => {
                self.hand_over();
                match Requests::try_with_room(self.most) {
                    Ok(mut run) => {
                        run.push(request);
                        self.run = Some(run);
                    }
                    Err(OutOfMemory) => self.pager.store(request),
                }
            }
        }
    }

    fn hand_over(&mut self) {
        if let Some(run) = self.run.take() {
            self.pager.store_range(run);
        }
    }
}

/// Where a store takes memory for its requests.
#[derive(Clone, Copy)]
enum From {
    Heap,
    /// The same, and where it is full, what is kept for write-back.
    Reserve,
}

impl From {
    /// What waits for a transfer's end.
    fn transfer(self, memory: &'static Memory, index: u64) -> Result<Shared<Transfer>, OutOfMemory> {
        match self {
            From::Heap => Transfer::new(memory, index),
            From::Reserve => Transfer::new_by_reserve(memory, index),
        }
    }

    fn take<T>(self, memory: &Memory, make: impl FnOnce() -> T) -> T {
        let From::Reserve = self else { return make() };
        let (mut make, mut made) = (Some(make), None);
        memory.hardware().with_reserve(&mut || made = make.take().map(|make| make()));
        made.expect("what is made with the reserve is made")
    }
}

/// What came of the attempt to begin a page's store.
enum Begun {
    /// The request, and whether all CPUs are to be waited for first: a page table has noted a write, or is no more there
    /// to note it.
    Store(StoreRequest, bool),
    /// Another of the same family is storing it.
    Wait(Shared<Transfer>),
}

/// What comes next in a store.
enum Next {
    Store(Batch),
    /// The page is being stored by somebody else, who may have begun before the latest write.
    Wait(Shared<Transfer>),
    Failed(StoreError),
    Done,
}

impl VmObject {
    /// Writes the dirty pages in a range to the pager, in order of their offsets, and waits for that. They stay dirty
    /// until they are [marked](Self::mark). Where an object has no pager, nothing is written.
    ///
    /// What is written in memory before the call is in the backing store when the answer is `Ok`.
    ///
    /// # Errors
    /// The first page that could not be written. All others were tried, unless the heap is full.
    ///
    /// # Cancellation
    /// What is with the pager goes on. Other pages are not written. A future that is kept and not polled holds up those
    /// who store the same pages, or load them for a base whose overlay this is.
    pub async fn store(self: &Arc<Self>, pages: Range<PageIndex>) -> Result<(), StoreError> {
        let result = self.store_by(pages, From::Heap).await;
        result.inspect_err(|error| self.forget_error(error))
    }

    /// As [`store`](Self::store), for who does not tell errors: the next flush does.
    pub(super) async fn store_quietly(self: &Arc<Self>, pages: Range<PageIndex>) -> Result<(), StoreError> {
        self.store_by(pages, From::Heap).await
    }

    /// The same for who gives memory back by it: requests are made also where the heap is full.
    pub(crate) async fn store_by_reserve(
        self: &Arc<Self>,
        pages: Range<PageIndex>,
    ) -> Result<(), StoreError> {
        self.store_by(pages, From::Reserve).await
    }

    async fn store_by(self: &Arc<Self>, pages: Range<PageIndex>, from: From) -> Result<(), StoreError> {
        let Some(pager) = &self.pager else { return Ok(()) };
        let mut rest = pages.start.as_u64()..pages.end.as_u64();
        let mut result = Ok(());
        loop {
            let next = from.take(self.memory, || self.next_stores(&mut rest, from));
            let mut batch = match next {
                Next::Done => return result,
                Next::Failed(error) => return result.and(Err(error)),
                Next::Wait(transfer) => {
                    // Whether a store has failed or not, the page is looked at again.
                    let Err(error) = transfer.wait().await else { continue };
                    return result.and(Err(StoreError { page: transfer.page(), error }));
                }
                Next::Store(batch) => batch,
            };
            if batch.written {
                self.memory.settle().await;
            }
            let (under_way, refused) = from.take(self.memory, || self.hand_over_stores(&**pager, &mut batch));
            result = result.and(refused);
            for transfer in under_way {
                let error = |error| StoreError { page: transfer.page(), error };
                let stored = transfer.wait().await.and_then(|()| transfer.stored());
                result = result.and(stored.map_err(error));
            }
        }
    }

    /// Hands requests to the pager. Those for which the heap has no room end with an error.
    fn hand_over_stores(
        &self,
        pager: &dyn Pager,
        batch: &mut Batch,
    ) -> (Vec<Shared<Transfer>>, Result<(), StoreError>) {
        let (mut under_way, mut refused) = (Vec::new(), Ok(()));
        let mut runs =
            Runs { pager: Asked::new(self, pager), most: self.pages_at_once() as usize, run: None };
        for mut request in core::mem::take(&mut batch.requests) {
            if under_way.try_reserve(1).is_err() {
                let failed = StoreError { page: request.index(), error: PageError::OutOfMemory };
                refused = refused.and(Err(failed));
                request.complete(Err(PageError::OutOfMemory));
                continue;
            }
            under_way.push(request.transfer().clone());
            request.hand_over();
            runs.add(request);
        }
        runs.hand_over();
        (under_way, refused)
    }

    /// Begins to store the next dirty pages of a range, at most a batch, and takes what was looked at off its front.
    fn next_stores(self: &Arc<Self>, rest: &mut Range<u64>, from: From) -> Next {
        let mut batch = Batch { requests: Vec::new(), written: false };
        while batch.requests.len() < BATCH {
            let mut inner = self.inner.lock();
            let Some((index, entry)) = inner.pages.next_used(rest.clone()) else { break };
            match entry.state() {
                PageState::Dirty { frame } => {
                    if batch.requests.try_reserve(1).is_err() {
                        return self.stop(batch, index);
                    }
                    match self.begin_store(&mut inner, index, frame, from) {
                        Ok(Begun::Store(request, written)) => {
                            batch.requests.push(request);
                            batch.written |= written;
                        }
                        Ok(Begun::Wait(other)) if batch.requests.is_empty() => return Next::Wait(other),
                        Ok(Begun::Wait(_)) => break,
                        Err(OutOfMemory) => {
                            drop(inner);
                            return self.stop(batch, index);
                        }
                    }
                }
                PageState::WritingBack { .. } if batch.requests.is_empty() => {
                    return Next::Wait(inner.pages.transfer(index).expect("it is being stored").clone());
                }
                PageState::WritingBack { .. } => break,
                _ => {}
            }
            rest.start = index + 1;
        }
        if batch.requests.is_empty() { Next::Done } else { Next::Store(batch) }
    }

    /// A dirty page is being stored from now on, unless a base or another overlay is storing the same page.
    fn begin_store(
        self: &Arc<Self>,
        inner: &mut Inner,
        index: u64,
        frame: u64,
        from: From,
    ) -> Result<Begun, OutOfMemory> {
        let mut below = self.base.as_ref().map(|base| base.inner.lock());
        if let Some(other) = below.as_deref().unwrap_or(inner).store_under_way(index) {
            return Ok(Begun::Wait(other.clone()));
        }
        if let Some(below) = &mut below {
            below.above.try_reserve(1).map_err(|_| OutOfMemory)?;
        }
        self.family().stored.lock().make_room(index)?;
        let transfer = from.transfer(self.memory, index)?;
        let entry = inner.pages.get(index).begin_store(frame);
        inner.pages.begin_transfer(transfer.clone(), PageEvent::Store, entry)?;
        if let Some(mut below) = below {
            below.begin_store_above(transfer.clone());
        }
        let mut written = inner.hidden.is_some_and(|moment| !self.memory.frames().is_over(moment));
        self.for_each_shown(inner, index, |tables, page| {
            if tables.take_dirty(page) {
                self.memory.hardware().invalidate(tables.root(), page);
                written = true;
            }
        });
        if written {
            // Also for the next store, if this one is dropped before its wait is over.
            inner.hidden = Some(self.memory.frames().moment());
        }
        Ok(Begun::Store(StoreRequest::new(transfer, self.clone(), frame), written))
    }

    /// The heap is full. What was begun goes on, and may free something.
    fn stop(&self, batch: Batch, index: u64) -> Next {
        if batch.requests.is_empty() {
            Next::Failed(StoreError { page: PageIndex::new(index), error: PageError::OutOfMemory })
        } else {
            Next::Store(batch)
        }
    }

    /// Enters that a store has ended; the answer is for those who wait.
    pub(crate) fn finish_store(&self, index: u64, result: Result<(), PageError>) -> Result<(), PageError> {
        self.tell_overlays(index);
        let mut inner = self.inner.lock();
        if result.is_ok() {
            // In one step with the end of the page's store: a flush that fails finds both or neither.
            self.family().stored.lock().note(index);
            self.stored.lock().note_store();
        }
        let entry = inner.pages.get(index);
        let (entry, freed) = match entry.state() {
            PageState::WritingBack { frame } => {
                self.list_on(if result.is_ok() { PageList::Stored } else { PageList::Dirty }, index, frame);
                (entry.end_store(frame, result.is_ok()), None)
            }
            PageState::WritingBackDiscarded { frame } => {
                let frame = inner.take_out(self.memory, frame);
                let moment = self.memory.frames().quarantine(frame);
                (PageEntry::dropped(moment), Some(moment))
            }
            state => unreachable!("page {index} is {state} while it is being stored"),
        };
        let event = if result.is_ok() { PageEvent::StoreDone } else { PageEvent::StoreFailed };
        let transfer = inner.pages.end_transfer(index, event, entry);
        let below = self.base.as_deref();
        let dropped = below.and_then(|base| Some((base, base.end_store_above(index, result.is_ok())?)));
        drop(inner);
        drop(transfer);
        if let Some((base, moment)) = dropped {
            self.memory.forget_soon(moment);
            base.settle_dropped(index..index + 1);
        }
        let Some(moment) = freed else { return result };
        self.memory.forget_soon(moment);
        self.settle_dropped(index..index + 1);
        // Nobody misses what was forgotten.
        Ok(())
    }
}
