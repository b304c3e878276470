//! Dirty pages as write-back sees them: on the list of those who wait to be stored, in order of their becoming dirty.
//!
//! A page is listed from the write that makes it dirty to the moment at which it counts as clean or goes; also while it
//! is being stored, as it is dirty again after that.

use core::ops::Range;

use super::VmObject;
use crate::PageIndex;
use crate::frame::{ListedPage, PageList};
use crate::page_state::PageState;

impl VmObject {
    /// A page has just become dirty, or was just looked at: it is the youngest.
    pub(super) fn list_dirty(&self, index: u64, frame: u64) {
        if self.pager.is_some() {
            self.memory
                .frames()
                .list(PageList::Dirty, ListedPage { frame, object: self.number, page: index });
        }
    }

    /// If a page with this frame is dirty, and nobody is storing it: that, and dirty pages beside it, at most so many in
    /// all. They become the youngest.
    pub(crate) fn dirty_around(&self, index: u64, frame: u64, most: u64) -> Option<Range<PageIndex>> {
        let inner = self.inner.lock();
        if inner.pages.get(index).state() != (PageState::Dirty { frame }) {
            return None;
        }
        let dirty = |index: u64| match inner.pages.get(index).state() {
            PageState::Dirty { frame } => Some(frame),
            _ => None,
        };
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
