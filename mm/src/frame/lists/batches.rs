//! Several frames with one hold of the lists' lock: pages that reclaim looks at, and frames that are free again.

use super::{FrameLists, ListedPage, NONE, PageList, Record, State, close};
use crate::policy::Age;

/// A page that reclaim looks at, and what came of that.
#[derive(Clone, Copy, Default)]
pub(crate) struct Candidate {
    pub(crate) page: ListedPage,
    pub(crate) age: Age,
    pub(crate) outcome: Outcome,
}

/// What came of a look at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Outcome {
    /// It stays as it is.
    #[default]
    Kept,
    /// It stays, with this age.
    Aged(Age),
    /// No page table shows it any more. When all CPUs were waited for, it can be taken out.
    Leaving,
}

/// Pages that stand one after the other on one list, and were taken off it together.
struct Chain {
    on: PageList,
    first: u32,
    last: u32,
    pages: usize,
}

/// Frames beside each other, which are freed together: then they need not be merged one by one.
#[derive(Default)]
struct Beside {
    first: u64,
    frames: u64,
}

impl Beside {
    fn add(&mut self, frame: u64, lists: &mut FrameLists) {
        if frame == self.first + self.frames {
            self.frames += 1;
        } else if frame + 1 == self.first {
            (self.first, self.frames) = (frame, self.frames + 1);
        } else {
            lists.free(self.first, self.frames);
            (self.first, self.frames) = (frame, 1);
        }
    }
}

impl FrameLists {
    /// The pages of a list that were seen longest ago, of those of an age or of the first age that there is, as many as
    /// there are places at most. They become the last of those, in the same order: whoever decides to keep one as it is
    /// need not do anything. Returns how many.
    pub(crate) fn oldest(&mut self, on: PageList, of: Age, places: &mut [Candidate]) -> usize {
        let ages = [of, Age::New, Age::Old, Age::Young];
        let mut list = self.pages[on as usize];
        let Some(age) = ages.into_iter().find(|&age| list[age as usize].first != NONE) else { return 0 };
        let list = &mut list[age as usize];
        let (mut slot, mut last, mut found) = (list.first, NONE, 0);
        for place in places {
            let Some(record) = self.records.get(slot as usize) else { break };
            let frame = self.base + u64::from(slot);
            let page = ListedPage { frame, object: record.object, page: record.page };
            *place = Candidate { page, age, outcome: Outcome::Kept };
            (last, slot) = (slot, record.next);
            found += 1;
        }
        // What was looked at goes behind the rest, if there is a rest and anything was looked at.
        if slot != NONE && last != NONE {
            let (first, end) = (list.first, list.last);
            self.records[last as usize].next = NONE;
            self.records[slot as usize].previous = NONE;
            self.records[end as usize].next = first;
            self.records[first as usize].previous = end;
            (list.first, list.last) = (slot, last);
            self.pages[on as usize][age as usize] = *list;
        }
        found
    }

    /// Takes those of some pages that are listed from among those of their age: with one change of a list where they follow
    /// each other there as they do here, as pages do that were looked at together. Each gets the state that `becomes`
    /// says, and keeps its links; `then` is told what was taken out together.
    fn pick_chains<T>(
        &mut self,
        pages: &[T],
        frame: impl Fn(&T) -> u64,
        becomes: impl Fn(PageList) -> State,
        mut then: impl FnMut(&mut Self, Chain),
    ) {
        let mut rest = pages.iter().map(frame).peekable();
        while let Some(frame) = rest.next() {
            let first = self.slot(frame);
            let Record { previous, mut next, state, .. } = self.records[first as usize];
            let State::Listed(on, age) = state else { continue };
            let becomes = becomes(on);
            self.records[first as usize].state = becomes;
            let mut chain = Chain { on, first, last: first, pages: 1 };
            while rest.next_if_eq(&(self.base + u64::from(next))).is_some() {
                let record = &mut self.records[next as usize];
                record.state = becomes;
                (chain.last, chain.pages, next) = (next, chain.pages + 1, record.next);
            }
            close(self.records, &mut self.pages[on as usize][age as usize], previous, next);
            self.ages[on as usize][age as usize] -= chain.pages;
            then(self, chain);
        }
    }

    /// Gives listed pages the ages that looks at them have brought, and makes them the last of those.
    pub(crate) fn set_ages(&mut self, candidates: &[Candidate]) {
        for alike in candidates.chunk_by(|one, next| one.outcome == next.outcome) {
            let Outcome::Aged(age) = alike[0].outcome else { continue };
            self.pick_chains(
                alike,
                |candidate| candidate.page.frame,
                |on| State::Listed(on, age),
                |lists, chain| lists.put_chain(chain, age),
            );
        }
    }

    /// Puts pages behind those of their age.
    fn put_chain(&mut self, chain: Chain, age: Age) {
        let list = &mut self.pages[chain.on as usize][age as usize];
        let before = core::mem::replace(&mut list.last, chain.last);
        self.records[chain.first as usize].previous = before;
        self.records[chain.last as usize].next = NONE;
        match before {
            NONE => list.first = chain.first,
            before => self.records[before as usize].next = chain.first,
        }
        self.ages[chain.on as usize][age as usize] += chain.pages;
    }

    /// Takes pages off their lists, as [`unlist`](Self::unlist) does.
    fn unlist_each(&mut self, frames: &[u64]) {
        let becomes = |_| State::Used;
        self.pick_chains(
            frames,
            |&frame| frame,
            becomes,
            |lists, chain| {
                lists.listed[chain.on as usize] -= chain.pages;
            },
        );
    }

    /// Frees frames that somebody owned, as [`free`](Self::free) does.
    pub(crate) fn free_each(&mut self, frames: &[u64]) {
        self.unlist_each(frames);
        let mut beside = Beside::default();
        frames.iter().for_each(|&frame| beside.add(frame, self));
        self.free(beside.first, beside.frames);
    }

    /// Frees up to `most` frames that stay in quarantine until `now` or less, after `each` has seen it. Returns how many.
    pub(crate) fn free_quarantined(&mut self, now: u64, most: usize, mut each: impl FnMut(u64)) -> usize {
        let (mut beside, mut freed) = (Beside::default(), 0);
        while freed < most {
            let slot = self.quarantine.first;
            let Some(record) = self.records.get_mut(slot as usize).filter(|record| record.page <= now) else {
                break;
            };
            record.state = State::Used;
            // The next becomes the first; what its record says of the one before is not asked.
            self.quarantine.first = record.next;
            if self.quarantine.first == NONE {
                self.quarantine.last = NONE;
            }
            let frame = self.base + u64::from(slot);
            each(frame);
            freed += 1;
            beside.add(frame, self);
        }
        self.free(beside.first, beside.frames);
        self.quarantined -= freed;
        freed
    }
}
