//! Pages that somebody will need soon, or not.

use alloc::sync::Arc;
use core::ops::Range;

use super::{Judge, VmObject};
use crate::frame::{Candidate, ListedPage, Outcome};
use crate::page_state::PageState;
use crate::{PageEvent, PageIndex};

impl VmObject {
    /// Begins to load those of the pages that are not there, if there is a pager, as reading ahead does: nobody waits for
    /// them, and where memory is short or much is under way already, the rest is left.
    pub(crate) fn begin_to_load(self: &Arc<Self>, pages: Range<u64>) {
        if self.base.is_some() {
            // An overlay loads nothing: what it has not is its base's.
            return;
        }
        let most = self.pages_at_once();
        let mut rest = pages;
        while !rest.is_empty() {
            let end = rest.end.min(rest.start + most);
            self.load_with(None, rest.start..end);
            rest.start = end;
        }
    }

    /// Of an overlay: its base, if that is whose page it shows.
    pub(crate) fn below(&self, index: u64) -> Option<&Arc<Self>> {
        self.base.as_ref().filter(|_| self.state(PageIndex::new(index)) == PageState::Absent)
    }

    /// Makes a page that has a frame the first that reclaim looks at, as not used lately.
    pub(crate) fn cool(&self, index: u64) {
        let mut inner = self.inner.lock();
        let entry = inner.pages.get(index);
        let Some(frame) = entry.frame() else { return };
        self.for_each_place(&inner, index, |tables, page, frame| {
            tables.take_accessed(page, frame);
        });
        if entry.referenced() {
            inner.pages.set(index, PageEvent::Evict, entry.with_referenced(false));
        }
        self.memory.frames().look_first_at(frame, self.memory.policy());
    }

    /// Begins to drop a clean page, used lately or not. Answers it: after a wait for all CPUs, `end_evictions` takes
    /// it out, if nobody has touched it meanwhile.
    pub(crate) fn begin_to_drop(&self, index: u64) -> Option<Candidate> {
        let PageState::Loaded { frame } = self.state(PageIndex::new(index)) else { return None };
        let page = ListedPage { frame, object: self.number(), page: index };
        let mut candidate = [Candidate { page, ..Candidate::default() }];
        self.begin_evictions(&mut candidate, Judge::Evict);
        (candidate[0].outcome == Outcome::Leaving).then_some(candidate[0])
    }
}
