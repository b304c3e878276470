//! Dropping pages with their contents, which has two steps: see `page_state`.

use core::ops::Range;

use super::VmObject;
use crate::frame::Moment;
use crate::page_state::{PageEntry, PageState};

/// Pages that were dropped, whose frames may still be in quarantine.
pub(super) struct Dropped<'a> {
    object: &'a VmObject,
    pages: Range<u64>,
    /// When the last of them was dropped; `None` when none of them had a frame.
    pub(super) last: Option<Moment>,
}

impl VmObject {
    /// Drops all pages in a range, without waiting.
    pub(super) fn drop_pages(&self, pages: Range<u64>) -> Dropped<'_> {
        let mut last = None;
        let mut rest = pages.clone();
        while let Some((index, moment)) = self.drop_first(rest.clone()) {
            last = last.max(moment);
            rest.start = index + 1;
        }
        Dropped { object: self, pages, last }
    }

    /// Drops the first page in the range that is not absent. Says which, and the moment since when all CPUs are to
    /// be waited for, if they are.
    fn drop_first(&self, range: Range<u64>) -> Option<(u64, Option<Moment>)> {
        let mut inner = self.inner.lock();
        let (index, entry) = inner.pages.next_used(range)?;
        if let Some(before) = entry.dropped_at() {
            return Some((index, Some(before)));
        }
        let (entry, moment) = match entry.state() {
            PageState::Loading | PageState::LoadingInvalidated => {
                (PageEntry::new(PageState::LoadingInvalidated), None)
            }
            PageState::Loaded { frame } | PageState::Dirty { frame } => {
                self.hide(&inner, index);
                let frame = inner.take_out(self.memory, frame);
                let moment = self.memory.frames().quarantine(frame);
                (PageEntry::dropped(moment), Some(moment))
            }
            PageState::Absent | PageState::Failed => (PageEntry::ABSENT, None),
        };
        inner.pages.set(index, entry);
        Some((index, moment))
    }

    /// Forgets that pages in a range were dropped, where no CPU uses them any more.
    fn settle_dropped(&self, mut range: Range<u64>) {
        loop {
            let mut inner = self.inner.lock();
            let Some((index, entry)) = inner.pages.next_used(range.clone()) else { return };
            if entry.dropped_at().is_some_and(|moment| self.memory.frames().is_over(moment)) {
                inner.pages.set(index, PageEntry::ABSENT);
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
