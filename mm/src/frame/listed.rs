//! The pages that frames hold, on the lists that reclaim and write-back look through.

use super::FramePool;
use super::lists::{Candidate, ListedPage, PageList};
use crate::policy::{Age, Ages, PageKind, ReclaimPolicy};

impl FramePool {
    /// Notes that a frame holds a page that reclaim may look at. Who gives the frame up unlists it first: a cache
    /// does not ask.
    pub(crate) fn list(&self, on: PageList, page: ListedPage) {
        let waiting = {
            let mut guarded = self.lists.lock();
            guarded.lists.list(on, page);
            guarded.applicants.unanswered > 0
        };
        if waiting {
            self.short.notify_one();
        }
    }

    /// How many pages are on a list.
    pub(crate) fn listed(&self, on: PageList) -> usize {
        self.lists.lock().lists.listed[on as usize]
    }

    /// How many pages are dirty, those that were stored among them.
    pub(crate) fn dirty(&self) -> usize {
        self.lists.lock().lists.dirty()
    }

    /// Notes that it does not any more.
    pub(crate) fn unlist(&self, frame: u64) {
        self.lists.lock().lists.unlist(frame);
    }

    /// The pages of a list that are to be looked at next, as many as there are places at most, all of one age; they count
    /// as looked at from now on. Returns how many.
    pub(crate) fn next_to_look_at(
        &self,
        on: PageList,
        policy: &dyn ReclaimPolicy,
        places: &mut [Candidate],
    ) -> usize {
        let mut guarded = self.lists.lock();
        let of = policy.look_next(guarded.lists.ages(on));
        guarded.lists.oldest(on, of, places)
    }

    /// The page of a list that was looked at longest ago, which counts as looked at from now on: where no policy is asked.
    pub(crate) fn oldest(&self, on: PageList) -> Option<ListedPage> {
        let mut place = [Candidate::default()];
        (self.lists.lock().lists.oldest(on, Age::New, &mut place) > 0).then_some(place[0].page)
    }

    /// How many pages of a kind are on the lists that reclaim looks through, by age.
    pub fn ages(&self, kind: PageKind) -> Ages {
        let guarded = self.lists.lock();
        match kind {
            PageKind::Clean => guarded.lists.ages(PageList::Clean),
            PageKind::Dirty => Ages { new: guarded.lists.dirty(), ..Ages::default() },
            PageKind::Anonymous => guarded.lists.ages(PageList::Anonymous),
        }
    }

    /// Makes a listed page the first that reclaim looks at.
    pub(crate) fn look_first_at(&self, frame: u64, policy: &dyn ReclaimPolicy) {
        self.lists.lock().lists.make_first(frame, |ages| policy.look_next(ages));
    }

    /// Gives listed pages the ages that looks at them have brought.
    pub(crate) fn set_ages(&self, candidates: &[Candidate]) {
        self.lists.lock().lists.set_ages(candidates);
    }

    /// Frees frames, which are on no list of pages from then on. Nobody sees them any more.
    pub(crate) fn free_listed(&self, frames: &[u64]) {
        frames.iter().for_each(|&frame| self.checks.takes_back(frame, 1));
        let promised = {
            let mut guarded = self.lists.lock();
            guarded.lists.free_each(frames);
            let promised = guarded.promise(frames.len(), &self.marks);
            // More free frames close nothing.
            self.decide(&guarded);
            promised
        };
        self.answer_promised(promised);
    }
}
