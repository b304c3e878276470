//! The end of a version: what it had is freed, each past that nobody is left of ends as well, and the next is merged with
//! the one that goes on. Or of pages of it that no mapping shows any more. In steps, so that who ends much lets others run
//! between them.

use alloc::sync::Arc;

use core::ops::Range;

use super::versions::{Ended, VersionId};
use super::{BATCH, Inner, PrivateObject};
use crate::PageEvent;
use crate::frame::{Moment, QuarantineBatch};
use crate::page_state::PageEntry;

/// Chunks of pages that are freed in one step, after the first: what a step takes for itself is little beside them.
const CHUNKS: u64 = 7;

/// What nobody shows any more, and what is left to do. Dropping it does the rest at once.
pub(crate) struct Ending {
    object: Arc<PrivateObject>,
    next: Next,
    /// When the latest of the frames becomes free.
    last: Option<Moment>,
}

enum Next {
    /// These pages of a version go that no mapping shows. Another may: what was moved.
    Unshown(VersionId, Range<u64>),
    /// The pages of these are freed, from one on.
    Free(Ended, u64),
    /// This past is merged, if it can be.
    Merge(u32),
    Nothing,
}

impl Ending {
    pub(super) fn new(object: &Arc<PrivateObject>, ended: Ended) -> Self {
        Self { object: object.clone(), next: Next::Free(ended, 0), last: None }
    }

    /// The end of pages of a version that goes on.
    pub(super) fn of_pages(object: &Arc<PrivateObject>, version: VersionId, pages: Range<u64>) -> Self {
        Self { object: object.clone(), next: Next::Unshown(version, pages), last: None }
    }

    /// Does a part of it. Answers how much that was in pages: some hundred at most, and not fewer than what a step takes.
    pub(crate) fn step(&mut self) -> usize {
        let mut done = BATCH;
        self.next = match core::mem::replace(&mut self.next, Next::Nothing) {
            Next::Unshown(version, rest) => self.give_up_some(version, rest),
            Next::Free(ended, from) => self.free_some(ended, from, &mut done),
            Next::Merge(past) => self.merge_some(past),
            Next::Nothing => Next::Nothing,
        };
        done
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    /// When the latest frame so far becomes free, if there was any. Whoever asks sees to it that it does.
    pub(crate) fn take_last(&mut self) -> Option<Moment> {
        self.last.take()
    }

    fn give_up_some(&mut self, version: VersionId, mut rest: Range<u64>) -> Next {
        let object = &*self.object;
        let Inner { versions, mappings, swaps, .. } = &mut *object.inner.lock();
        let Some(own) = versions.own(version) else { return Next::Nothing };
        for _ in 0..BATCH {
            let Some((index, entry)) = own.next_used(rest.clone()) else { return Next::Nothing };
            rest.start = index + 1;
            let mut shown = false;
            mappings.for_each(index, |mapping, _| shown |= mapping.of == version);
            if !shown {
                own.set(index, PageEvent::Unshown, PageEntry::ABSENT);
                self.last = self.last.max(object.give_up(swaps, entry));
            }
        }
        Next::Unshown(version, rest)
    }

    fn free_some(&mut self, ended: Ended, from: u64, done: &mut usize) -> Next {
        let memory = self.object.memory;
        let mut batch = QuarantineBatch::new(memory.frames());
        let mut add = |frame: Option<u64>| {
            *done += 1;
            if let Some(frame) = frame {
                batch.add(frame);
            }
        };
        // The choice is made once, not for each page. A page that was not listed before there was swap has no slot.
        let next = match memory.swap() {
            Some(area) => ended.pages.for_some(from, CHUNKS, |_, entry| add(area.give_up(entry))),
            None => ended.pages.for_some(from, CHUNKS, |_, entry| add(entry.frame())),
        };
        self.last = self.last.max(batch.end());
        if let Some(next) = next {
            return Next::Free(ended, next);
        }
        let Some(past) = ended.past else { return Next::Nothing };
        let above = self.object.inner.lock().versions.end_childless(past);
        above.map_or(Next::Merge(past), |above| Next::Free(above, 0))
    }

    /// Merges some pages of a past with its only child, if it is settled. Without memory for it, that is left for another
    /// time.
    fn merge_some(&mut self, past: u32) -> Next {
        let (object, memory) = (&*self.object, self.object.memory);
        let Inner { versions, swaps, .. } = &mut *object.inner.lock();
        let is_over = |moment| memory.frames().is_over(moment);
        let Some(child) = versions.only_child(past, is_over) else { return Next::Nothing };
        // The last of who ended was taken out of its page tables before.
        let ended = if memory.has_one_cpu() { Moment::from_number(0) } else { object.left() };
        let unseen = |entry| self.last = self.last.max(object.give_up(swaps, entry));
        match versions.merge(past, child, BATCH, ended, unseen) {
            Ok(false) => Next::Merge(past),
            Ok(true) | Err(crate::OutOfMemory) => Next::Nothing,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        while !self.is_over() {
            self.step();
        }
        if let Some(last) = self.last {
            self.object.memory.forget_soon(last);
        }
    }
}
