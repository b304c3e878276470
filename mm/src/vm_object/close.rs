//! Closing: the end of an object's use of its pager.
//!
//! Touches are denied from the first moment on, with [`PageError::Closed`], also where mappings remain. Then nobody
//! writes any more, what is dirty is stored, what is under way is waited for, and all pages go.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | touch, also one that waits | denied; the pages are taken out of all page tables, so every access faults |
//! | load under way | its data is thrown away; the close waits for its end, as the pager has the request until then |
//! | store under way | the close waits for its end |
//! | store that fails | the close fails with its error, and the object is open as it was. Who wants to lose the changes discards them before |
//! | mark, discard, release | they find pages or not, as ever |
//! | map, unmap | as ever; a mapping of a closed object denies each touch |
//! | close, close | each does all of it, and denies touches for itself; the second finds little to do |
//! | fold into a closed base | no fold |
//! | an overlay's mappings, pages of its base | taken out as well: they show nothing any more. The base's own mappings do |
//! | overlay over a closed base | what it has of its own can be used and stored; touches of other pages are denied |
//! | close, its future dropped | the object is open again, with what it has |
//! | close of an overlay with its base, an error or its end in between | both are open again: neither is closed for good before both are empty |

use alloc::sync::Arc;

use super::{StoreError, VmObject};
use crate::fallible::Shared;
use crate::page_state::PageState;
use crate::transfer::Transfer;
use crate::{OutOfMemory, PageError, PageIndex};

/// Touches of an object are denied while this is there.
struct Closing<'a>(&'a Arc<VmObject>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().closers -= 1;
    }
}

impl<'a> Closing<'a> {
    /// Denies touches, and takes all pages out of all page tables.
    fn begin(object: &'a Arc<VmObject>) -> Self {
        object.inner.lock().closers += 1;
        let closing = Self(object);
        object.hide_all();
        if let Some(base) = &object.base {
            object.hide_all_below(base);
        }
        closing
    }

    /// Stores what is dirty, waits for what is under way, and forgets all pages.
    async fn empty(&self) -> Result<(), StoreError> {
        let object = self.0;
        let all = PageIndex::new(0)..PageIndex::new(object.pages);
        object.memory.settle().await;
        object.store(all.clone()).await?;
        // What still is loaded is thrown away when it comes.
        drop(object.drop_own(all.clone()));
        while let Some(transfer) = object.under_way()? {
            // However it ends.
            let _ = transfer.wait().await;
        }
        object.drop_own(all).await;
        Ok(())
    }

    /// Leaves the object closed.
    fn for_good(self) {
        core::mem::forget(self);
    }
}

impl VmObject {
    /// Ends the object's use of its pager: stores what is dirty, waits for all loads and stores under way, and forgets
    /// all pages. When it is done the pager has no request of the object and gets none any more. Touches are denied with
    /// [`PageError::Closed`] from the call on, also by mappings that remain. The changes of an object without a pager
    /// are lost.
    ///
    /// # Errors
    /// The first page that could not be stored; then the object is open as before.
    ///
    /// # Cancellation
    /// The object is open again. Pages are shown again when they are touched.
    pub async fn close(self: &Arc<Self>) -> Result<(), StoreError> {
        let closing = Closing::begin(self);
        closing.empty().await?;
        closing.for_good();
        Ok(())
    }

    /// Closes an overlay as [`close`](Self::close) does, and its base with it: in the end both are closed, or none. An
    /// object that is no overlay is closed alone.
    ///
    /// # Errors
    /// The first page of either that could not be stored; then both are open.
    ///
    /// # Cancellation
    /// Both are open again. Pages are shown again when they are touched.
    pub async fn close_with_base(self: &Arc<Self>) -> Result<(), StoreError> {
        let closing = Closing::begin(self);
        let below = self.base.as_ref().map(Closing::begin);
        // What the overlay stores is the base's to load, so it comes first.
        closing.empty().await?;
        if let Some(below) = below {
            below.empty().await?;
            below.for_good();
        }
        closing.for_good();
        Ok(())
    }

    /// Takes all pages out of all page tables.
    fn hide_all(&self) {
        let mut rest = 0..self.pages;
        loop {
            let mut inner = self.inner.lock();
            let Some((index, _)) = inner.pages.next_used(rest.clone()) else { return };
            if self.hide(&inner, index) {
                self.note_written(&mut inner, index);
                inner.hidden = Some(self.memory.frames().moment());
            }
            self.note_left();
            rest.start = index + 1;
        }
    }

    /// A load or store under way, if there is one.
    fn under_way(&self) -> Result<Option<Shared<Transfer>>, StoreError> {
        let mut rest = 0..self.pages;
        loop {
            let mut inner = self.inner.lock();
            let Some((index, entry)) = inner.pages.next_used(rest.clone()) else { return Ok(None) };
            match entry.state() {
                PageState::Loading
                | PageState::LoadingInvalidated
                | PageState::WritingBack { .. }
                | PageState::WritingBackDiscarded { .. } => {
                    let full = |OutOfMemory| StoreError {
                        page: PageIndex::new(index),
                        error: PageError::OutOfMemory,
                    };
                    return inner.load(self.memory, index).map(Some).map_err(full);
                }
                _ => rest.start = index + 1,
            }
        }
    }
}
