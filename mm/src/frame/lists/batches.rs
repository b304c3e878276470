//! Several frames with one hold of the lists' lock: pages that reclaim looks at, and frames that are free again.

use super::{FrameLists, ListedPage, NONE, PageList, State};
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

    /// Frees frames that somebody owned, as [`free`](Self::free) does.
    pub(crate) fn free_each(&mut self, frames: &[u64]) {
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
