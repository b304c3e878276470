//! Marking: dirty pages count as clean. In two steps, because a CPU may write for as long as it remembers that it may;
//! see `page_state`.

use alloc::sync::Arc;
use core::ops::Range;

use super::{StoreError, VmObject};
use crate::frame::{ListedPage, PageList};
use crate::page_state::PageState;
use crate::{PageEvent, PageIndex};

/// Pages between two steps at a time.
const BATCH: usize = 64;

/// Which dirty pages are marked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that were never stored as well.
    All,
    Stored,
}

/// Pages that are about to count as clean.
struct Batch {
    pages: [u64; BATCH],
    count: usize,
}

impl VmObject {
    /// Makes the dirty pages in a range count as clean, those that were never stored included, but not those that
    /// were written since their last store began or whose last store failed. They become read-only, and the next
    /// write makes them dirty again. An overlay's pages become its base's. Returns how many. Pages that are being
    /// stored, and those of objects without a pager, stay as they are.
    ///
    /// For tasks, which poll it until it is done or drop it: reclaim waits for its turns. See the crate's head.
    ///
    /// # Cancellation
    /// The pages of the batch under way, at most 64, stay dirty; what is marked stays so.
    pub async fn mark(&self, pages: Range<PageIndex>) -> usize {
        self.mark_those(pages, Which::All).await
    }

    async fn mark_those(&self, pages: Range<PageIndex>, which: Which) -> usize {
        if self.pager.is_none() {
            return 0;
        }
        let mut rest = pages.start.as_u64()..pages.end.as_u64();
        let mut marked = 0;
        while !rest.is_empty() {
            let _turn = self.memory.two_steps.lock().await;
            let batch = self.begin_marks(&mut rest, which);
            if batch.count > 0 {
                self.memory.settle().await;
                let clean = |&&index: &&u64| self.end_mark(index);
                let clean = batch.pages[..batch.count].iter().filter(clean).count();
                self.memory.write_back.note_marked(clean);
                marked += clean;
            }
        }
        marked
    }

    /// Stores the dirty pages in a range, and marks those that were stored and not written since; see
    /// [`store`](Self::store) and [`mark`](Self::mark). A page that became dirty meanwhile stays so: no change is lost.
    /// Returns how many pages count as clean now. For tasks, as `mark` is.
    ///
    /// # Errors
    /// As for `store`; pages that could be stored are marked even so.
    ///
    /// # Cancellation
    /// As for both.
    pub async fn store_and_mark(self: &Arc<Self>, pages: Range<PageIndex>) -> Result<usize, StoreError> {
        let stored = self.store_quietly(pages.clone()).await;
        let marked = self.mark_stored(pages).await;
        if let Err(told) = &stored {
            self.forget_error(told);
        }
        stored.map(|()| marked)
    }

    /// Marks only what was stored, and not written since.
    pub(crate) async fn mark_stored(&self, pages: Range<PageIndex>) -> usize {
        self.mark_those(pages, Which::Stored).await
    }

    /// The first step, for the next pages of a range, at most a batch. What was looked at is taken off its front.
    fn begin_marks(&self, rest: &mut Range<u64>, which: Which) -> Batch {
        let mut batch = Batch { pages: [0; BATCH], count: 0 };
        while batch.count < BATCH {
            let mut inner = self.inner.lock();
            let Some((index, entry)) = inner.pages.next_used(rest.clone()) else {
                rest.start = rest.end;
                break;
            };
            rest.start = index + 1;
            let is_meant = entry.is_stored() || which == Which::All;
            if !matches!(entry.state(), PageState::Dirty { .. }) || !is_meant || !entry.may_be_clean() {
                continue;
            }
            let mut written = false;
            if entry.is_stored() {
                self.for_each_shown(&inner, index, |tables, page| written |= tables.is_dirty(page));
            }
            if written {
                continue;
            }
            if self.base.as_ref().is_some_and(|base| !base.make_way(index)) {
                continue;
            }
            self.for_each_shown(&inner, index, |tables, page| {
                if let Some(leaf) = tables.begin_clean(page) {
                    self.memory.hardware().invalidate(tables.root(), page);
                    written |= leaf.dirty;
                }
            });
            if written {
                // A store that takes the page from here waits for the CPUs that may still write to it.
                inner.hidden = Some(self.memory.frames().moment());
            }
            if entry.is_stored() && written {
                // Just now.
                inner.pages.set(index, PageEvent::Noted, entry.written());
                continue;
            }
            inner.pages.set(index, PageEvent::Mark, entry.between());
            batch.pages[batch.count] = index;
            batch.count += 1;
        }
        batch
    }

    /// The second step, when all CPUs were waited for. True if the page counts as clean.
    fn end_mark(&self, index: u64) -> bool {
        let mut inner = self.inner.lock();
        let entry = inner.pages.get(index);
        let PageState::Dirty { frame } = entry.state() else { return false };
        if !entry.is_between() {
            return false;
        }
        let mut written = false;
        self.for_each_shown(&inner, index, |tables, page| written |= tables.take_dirty(page));
        if written {
            inner.pages.set(index, PageEvent::Noted, entry.written());
            return false;
        }
        if let Some(base) = &self.base {
            let folded = self.fold(&mut inner, base, index, frame);
            if !folded {
                inner.pages.set(index, PageEvent::Forgotten, entry.not_between());
            }
            return folded;
        }
        inner.pages.set(index, PageEvent::Forgotten, self.entered(index, entry.cleaned(frame)));
        self.memory.frames().list(PageList::Clean, ListedPage { frame, object: self.number, page: index });
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::TestPager;
    use crate::address::PAGE_BYTES;
    use crate::window::arena;

    #[test]
    fn what_a_mark_has_made_clean_counts_where_the_mark_is_dropped() {
        let memory = arena::memory(300);
        let object = VmObject::new(memory, TestPager::new(memory, Box::new(|_, _| {})), 100);
        let mut context = Context::from_waker(Waker::noop());
        for page in 0..100 {
            assert_eq!(pin!(object.write(page * PAGE_BYTES, &[1])).poll(&mut context), Poll::Ready(Ok(())));
        }
        let turn = memory.two_steps.try_lock().expect("nobody else marks");
        let mut mark = pin!(object.mark(PageIndex::new(0)..PageIndex::new(100)));
        assert!(mark.as_mut().poll(&mut context).is_pending());
        // Somebody stands in line behind it, and has the turn after its first batch.
        let mut next = pin!(memory.two_steps.lock());
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(turn);
        assert!(mark.as_mut().poll(&mut context).is_pending());
        assert_eq!(memory.write_back.marked(), BATCH as u64);
    }
}
