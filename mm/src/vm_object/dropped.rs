//! Dropping pages with their contents, which has two steps: see `page_state`.

use core::future::Future;
use core::ops::Range;

use super::{Inner, VmObject};
use crate::frame::Moment;
use crate::page_state::{PageEntry, PageState};
use crate::{PageEvent, PageIndex};

/// Pages that were dropped, whose frames may still be in quarantine.
struct Dropped<'a> {
    object: &'a VmObject,
    pages: Range<u64>,
    /// When the last of them was dropped; `None` when none of them had a frame.
    last: Option<Moment>,
}

/// Which pages are dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that were changed.
    Dirty,
}

impl VmObject {
    /// Drops pages with their contents, changes included: they are unmapped wherever they are shown. The next touch
    /// makes or loads them again. An overlay's base drops its pages as well. What a load under way brings is thrown
    /// away when it comes, and loaded again if somebody waits for it.
    ///
    /// All that is done at the call, which never waits; the time taken grows with the number of pages that are
    /// present. The future is done when no CPU can use the old pages any more and their frames are free. Where no
    /// other CPU is busy, that is so after the first poll, or when the future is dropped.
    ///
    /// # Cancellation
    /// Dropping the future leaves the rest to the background task; touches of these pages wait until it is done.
    pub fn release(&self, pages: Range<PageIndex>) -> impl Future<Output = ()> + Send + use<'_> {
        self.drop_and_wait(pages, Which::All)
    }

    /// Drops a page that changed behind the object's back; see [`VmObject::release`].
    ///
    /// # Cancellation
    /// As for `release`.
    pub fn invalidate(&self, page: PageIndex) -> impl Future<Output = ()> + Send + use<'_> {
        // There is no page after the last number.
        self.release(page..PageIndex::new(page.as_u64().saturating_add(1)))
    }

    /// Forgets changes: drops the pages that were written and not counted as clean since by a [`mark`](Self::mark),
    /// as [`release`](Self::release) does. What a store under way writes, it may write or not.
    ///
    /// # Cancellation
    /// As for `release`.
    pub fn discard(&self, pages: Range<PageIndex>) -> impl Future<Output = ()> + Send + use<'_> {
        self.drop_and_wait(pages, Which::Dirty)
    }

    fn drop_and_wait(
        &self,
        pages: Range<PageIndex>,
        which: Which,
    ) -> impl Future<Output = ()> + Send + use<'_> {
        let pages = pages.start.as_u64()..pages.end.as_u64();
        let dropped = self.drop_pages(pages.clone(), which);
        let base = self.base.as_ref().filter(|_| which == Which::All);
        let below = base.map(|base| base.drop_pages(pages, which));
        async move {
            let last = dropped.last.max(below.as_ref().and_then(|below| below.last));
            if let Some(last) = last {
                self.memory.forgotten(last).await;
            }
            drop((dropped, below));
        }
    }

    /// As [`release`](Self::release), but for what an overlay shows of its base.
    pub(super) fn drop_own(&self, pages: Range<PageIndex>) -> impl Future<Output = ()> + Send + use<'_> {
        let dropped = self.drop_pages(pages.start.as_u64()..pages.end.as_u64(), Which::All);
        async move {
            if let Some(last) = dropped.last {
                self.memory.forgotten(last).await;
            }
            drop(dropped);
        }
    }

    /// Drops pages in a range, without waiting.
    fn drop_pages(&self, pages: Range<u64>, which: Which) -> Dropped<'_> {
        let mut last = None;
        let mut rest = pages.clone();
        while let Some((index, moment)) = self.drop_first(rest.clone(), which) {
            last = last.max(moment);
            rest.start = index + 1;
        }
        Dropped { object: self, pages, last }
    }

    /// Looks at the first page in the range that is not absent, and drops it if it is one of those. Says which it
    /// was, and the moment since when all CPUs are to be waited for, if they are.
    fn drop_first(&self, range: Range<u64>, which: Which) -> Option<(u64, Option<Moment>)> {
        let mut inner = self.inner.lock();
        let (index, entry) = inner.pages.next_used(range)?;
        if let Some(before) = entry.dropped_at() {
            return Some((index, Some(before)));
        }
        let (entry, moment) = match entry.state() {
            PageState::Dirty { frame } => self.drop_present(&mut inner, index, frame),
            PageState::WritingBack { frame } => {
                self.hide(&inner, index);
                (
                    PageEntry::new(PageState::WritingBackDiscarded { frame }),
                    Some(self.memory.frames().moment()),
                )
            }
            // Whoever discarded it may not have waited for all CPUs yet.
            PageState::WritingBackDiscarded { .. } => (entry, Some(self.memory.frames().moment())),
            _ if which == Which::Dirty => return Some((index, None)),
            PageState::Loading | PageState::LoadingInvalidated => {
                (PageEntry::new(PageState::LoadingInvalidated), None)
            }
            PageState::Loaded { frame } => self.drop_present(&mut inner, index, frame),
            PageState::Absent | PageState::Failed => (PageEntry::ABSENT, None),
            PageState::Swapped { .. } | PageState::SwappingOut { .. } | PageState::SwappingIn { .. } => {
                unreachable!("only private memory is swapped")
            }
        };
        let event = if which == Which::All { PageEvent::Drop } else { PageEvent::Discard };
        inner.pages.set(index, event, entry);
        Some((index, moment))
    }

    /// Drops a page that has a frame which nobody but CPUs may still use. Answers the page's entry from now on, and
    /// since when they are to be waited for.
    pub(super) fn drop_present(
        &self,
        inner: &mut Inner,
        index: u64,
        frame: u64,
    ) -> (PageEntry, Option<Moment>) {
        self.hide(inner, index);
        let frame = inner.take_out(self.memory, frame);
        let moment = self.memory.frames().quarantine(frame);
        (PageEntry::dropped(moment), Some(moment))
    }

    /// Forgets that pages in a range were dropped, where no CPU uses them any more.
    pub(super) fn settle_dropped(&self, mut range: Range<u64>) {
        loop {
            let mut inner = self.inner.lock();
            let Some((index, entry)) = inner.pages.next_used(range.clone()) else { return };
            if entry.dropped_at().is_some_and(|moment| self.memory.frames().is_over(moment)) {
                inner.pages.set(index, PageEvent::Forgotten, PageEntry::ABSENT);
            }
            range.start = index + 1;
        }
    }
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(last) = self.last {
            self.object.memory.forget_soon(last);
            self.object.settle_dropped(self.pages.clone());
        }
    }
}
