//! Flushing: what was written is durable when it is done.
//!
//! A flush stores the dirty pages, waits for stores under way, and then has the pager make durable what it holds. Only
//! when that has been acknowledged do the pages count as clean. The next flush begins where the last one that ended well
//! began: it asks the pager only if the object has stored something since.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | flush, write | written before the call: covered. Later: covered or not; the page stays dirty if it was written since its store began |
//! | flush, store by somebody else | the flush waits for its end, and stores the page again: the store may have begun before the latest write |
//! | flush, flush of the same object, its base or an overlay of it | one after the other, in order of arrival |
//! | flush, flush of another object of the same pager | both ask the pager, which may use one command for both |
//! | flush, mark | what a mark made clean before, after a store that no flush covers, is known here, and covered |
//! | flush, eviction of such a page | the pager has it, and the flush covers it all the same |
//! | flush, discard or release | what is forgotten is not stored, or it is and then forgotten; a failed store of it is nobody's |
//! | flush, store that fails | the page stays dirty, all others are tried, and what could be stored is flushed. The flush says the first error |
//! | store that fails while nobody flushes | kept for the next flush of the object, unless who asked for the store was told: so each error is told once. An error for want of memory is not kept, as the page was not tried |
//! | flush, its request fails | nobody knows which of the stores since the last good flush are durable. Their pages that are in memory, clean ones too, are dirty again, and written since, so that no mark makes them clean before they are stored again |
//! | the same, page that was given back since its store | only the device has it, and nobody can store it again; the error says that it may be lost |
//! | the same, other objects of the same pager | the device was to make their stores durable as well: their pages are dirty again as above, and those who have stored something since their last good flush say so at their next |
//! | flush that has failed, flush | the second stores all of it again, and is `Ok` if it can |
//! | flush, its future dropped | stores and the request that are with the pager go on. What has failed is kept for the next flush |
//!
//! The lock of what was stored comes after those of objects, and is held alone here.

use alloc::sync::Arc;
use core::fmt;

use super::{Inner, StoreError, VmObject};
use crate::fallible::Shared;
use crate::page_state::PageState;
use crate::transfer::Transfer;
use crate::{FlushRequest, OutOfMemory, PageError, PageEvent, PageIndex};

/// Why something that was written may not be durable. What is in memory of it is dirty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushError {
    /// A page could not be stored.
    Page(StoreError),
    /// All could be stored, and then the pager could not make it durable; or the heap is full
    /// ([`PageError::OutOfMemory`]), and it was not asked.
    Pager(PageError),
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(error) => error.fmt(f),
            Self::Pager(error) => write!(f, "what was stored may not be durable: {error}"),
        }
    }
}

impl core::error::Error for FlushError {}

/// What comes of the attempt to ask the pager.
enum Asked {
    /// It has been asked.
    Now(Shared<Transfer>),
    /// An earlier request, whose flush was dropped, is not over.
    After(Shared<Transfer>),
    /// Nothing was stored since the last time.
    NotNeeded,
}

impl VmObject {
    /// Makes durable what is written in memory before the call: stores the dirty pages, waits for stores under way, and
    /// has the pager flush. Pages that were not written meanwhile then count as clean. Where an object has no pager,
    /// nothing is done. Of an overlay its own pages are meant, not those of its base. For tasks, as [`mark`](Self::mark) is.
    ///
    /// # Errors
    /// The first thing that went wrong since the last flush, also in stores that nobody asked for. It is said once; what
    /// is in memory of it is dirty, and the next flush tries again.
    ///
    /// # Cancellation
    /// What is with the pager goes on; errors are kept for the next flush. A future that is kept and not polled holds up
    /// other flushes of the same object.
    pub async fn flush(self: &Arc<Self>) -> Result<(), FlushError> {
        let Some(pager) = &self.pager else { return Ok(()) };
        let base = self.base.as_ref().unwrap_or(self);
        let all = PageIndex::new(0)..PageIndex::new(self.pages);
        let _turn = base.flushing.lock().await;
        let stored = self.store_quietly(all.clone()).await.map_err(FlushError::Page);
        let flushed = loop {
            match self.ask_to_flush(base) {
                Ok(Asked::NotNeeded) => break Ok(()),
                Ok(Asked::Now(request)) => {
                    pager.flush(FlushRequest::new(request.clone(), base.clone()));
                    break request.wait().await.and_then(|()| request.stored());
                }
                // However it ends; a wait that would close a circle does not begin.
                Ok(Asked::After(other)) => match other.wait().await {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(OutOfMemory) => break Err(PageError::OutOfMemory),
            }
        };
        if flushed.is_ok() {
            self.mark_stored(all).await;
        }
        // The last step, after which nothing is waited for: who is told an error is told it now.
        let kept = self.stored.lock().error.take();
        stored.and(kept.map_or(Ok(()), Err)).and(flushed.map_err(FlushError::Pager))
    }

    fn ask_to_flush(&self, base: &Self) -> Result<Asked, OutOfMemory> {
        if let Some(other) = &base.stored.lock().flush {
            return Ok(Asked::After(other.clone()));
        }
        if !self.stored.lock().need_flush() {
            return Ok(Asked::NotNeeded);
        }
        // What was written out with a full heap is flushed with one, too. There is one request of an object at a time.
        let mut request = Err(OutOfMemory);
        self.memory.hardware().with_reserve(&mut || request = Transfer::new_by_reserve(self.memory, 0));
        let request = request?;
        // Only who has the turn makes requests, so there is still none.
        base.stored.lock().flush = Some(request.clone());
        base.each_of_family(|object| object.stored.lock().begin_flush());
        Ok(Asked::Now(request))
    }

    /// Enters that a flush request has ended, of which this is the base.
    pub(crate) fn finish_flush(&self, result: Result<(), PageError>) {
        match result {
            Ok(()) => self.each_of_family(|object| object.stored.lock().end_flush()),
            // The device was not asked: nothing is lost, and the next flush covers it.
            Err(PageError::OutOfMemory) => {}
            Err(error) => self.each_of_pager(|object| object.lose_stores(FlushError::Pager(error))),
        }
        let request = self.stored.lock().flush.take();
        drop(request);
    }

    /// What the object has stored since its last good flush may not be durable.
    fn lose_stores(&self, error: FlushError) {
        {
            let mut stored = self.stored.lock();
            if stored.forget_stores() {
                stored.error.get_or_insert(error);
            }
        }
        let mut next = 0;
        loop {
            let lost = self.stored.lock().take_not_durable(next);
            let Some(index) = lost else { return };
            self.each_of_family(|object| object.inner.lock().not_durable(object, index));
            next = index + 1;
        }
    }

    /// Calls with each object that has the same pager, with no lock held.
    fn each_of_pager(&self, mut each: impl FnMut(&Self)) {
        let its = |object: &Self| object.pager.as_ref().map(|pager| Arc::as_ptr(pager).cast::<()>());
        let mut next = Some(0);
        while let Some((number, object)) = next.and_then(|next| self.memory.object_from(next)) {
            if its(&object) == its(self) {
                each(&object);
            }
            next = number.checked_add(1);
        }
    }

    /// A store has failed: the next flush says so, unless who asked for it is told.
    pub(crate) fn keep_error(&self, page: PageIndex, error: PageError) {
        if error != PageError::OutOfMemory {
            let error = FlushError::Page(StoreError { page, error });
            self.stored.lock().error.get_or_insert(error);
        }
    }

    /// Who asked for a store is told its error.
    pub(super) fn forget_error(&self, told: &StoreError) {
        let mut stored = self.stored.lock();
        if stored.error == Some(FlushError::Page(*told)) {
            stored.error = None;
        }
    }
}

impl Inner {
    /// The last store of a page may be lost. If the page is here, it is to be stored again.
    fn not_durable(&mut self, object: &VmObject, index: u64) {
        let entry = self.pages.get(index);
        match entry.state() {
            _ if !entry.is_stored() => {}
            PageState::Loaded { frame } => {
                self.make_dirty(object, index, frame, PageEvent::NotDurable);
            }
            PageState::Dirty { .. } => self.pages.set(index, PageEvent::NotDurable, entry.written()),
            // One that is being stored is not covered before its end.
            _ => {}
        }
    }
}
