//! Dirty pages as write-back sees them: on the list of those who wait to be stored, in order of their becoming dirty, and on
//! that of those who were stored, in order of that.
//!
//! A page is listed from the write that makes it dirty to the moment at which it counts as clean or goes; also while it
//! is being stored, as it is dirty again after that.

use core::ops::Range;

use super::VmObject;
use crate::PageIndex;
use crate::frame::{ListedPage, PageList};
use crate::page_state::{PageEntry, PageState};

impl VmObject {
    /// A page has just become dirty, or was just looked at: it is the youngest.
    pub(super) fn list_dirty(&self, index: u64, frame: u64) {
        self.list_on(PageList::Dirty, index, frame);
    }

    /// Puts a page behind all others of a list that write-back goes through.
    pub(super) fn list_on(&self, list: PageList, index: u64, frame: u64) {
        if self.pager.is_some() {
            self.memory.frames().list(list, ListedPage { frame, object: self.number, page: index });
        }
    }

    /// If a page with this frame is dirty, and nobody is storing it: that, and dirty pages beside it, at most so many in
    /// all. They become the youngest.
    pub(crate) fn dirty_around(&self, index: u64, frame: u64, most: u64) -> Option<Range<PageIndex>> {
        self.around(index, frame, most, |_| true)
    }

    /// The same of pages that were stored and are not known to be written since: they leave the list of those. So does the
    /// page alone where it was written.
    pub(crate) fn stored_around(&self, index: u64, frame: u64, most: u64) -> Option<Range<PageIndex>> {
        self.around(index, frame, most, |entry| entry.is_stored() && entry.may_be_clean())
    }

    fn around(
        &self,
        index: u64,
        frame: u64,
        most: u64,
        is_meant: impl Fn(PageEntry) -> bool,
    ) -> Option<Range<PageIndex>> {
        let inner = self.inner.lock();
        let dirty = |index: u64| {
            let entry = inner.pages.get(index);
            match entry.state() {
                PageState::Dirty { frame } if is_meant(entry) => Some(frame),
                _ => None,
            }
        };
        if dirty(index) != Some(frame) {
            if inner.pages.get(index).state() == (PageState::Dirty { frame }) {
                self.list_dirty(index, frame);
            }
            return None;
        }
        let mut pages = index..index + 1;
        while pages.end - pages.start < most && pages.end < self.pages && dirty(pages.end).is_some() {
            pages.end += 1;
        }
        while pages.end - pages.start < most
            && let Some(before) = pages.start.checked_sub(1)
            && dirty(before).is_some()
        {
            pages.start = before;
        }
        for page in pages.clone() {
            if let Some(frame) = dirty(page) {
                self.list_dirty(page, frame);
            }
        }
        Some(PageIndex::new(pages.start)..PageIndex::new(pages.end))
    }
}
