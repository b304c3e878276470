//! Pages of private memory that leave: in two steps with a wait for all CPUs between them. Pages that leave together are
//! changed under one hold of the object's lock, and of the lock of each table that shows them in a row. What they meet
//! is in `swap`.

use core::sync::atomic::Ordering;

use super::{Inner, PrivateObject, VersionId};
use crate::frame::{Candidate, ListedPage, Outcome, address_of};
use crate::page_state::{PageEntry, PageState};
use crate::reverse_map::ReverseMap;
use crate::swap::SwapArea;
use crate::table::Held;
use crate::{Observation, PAGE_SIZE, PageEvent, PageKind, Verdict};

/// Bytes that are compared with zeros at a time.
const PIECE: usize = 256;
/// Mappings that are looked at with one hold of the lock, for as many pages as that makes: each may show each page.
const LOOKS: usize = 64;
/// Pages that are compared with zeros with one hold of the lock.
pub(crate) const AT_ONCE: usize = 16;

impl PrivateObject {
    /// Takes pages out of all page tables, notes what came of each, and answers how many are leaving. One stays where the
    /// policy wants to keep it, and where it is not what its frame's record said: the records were read without this object's
    /// lock.
    pub(crate) fn begin_swap_outs(&self, area: &SwapArea, candidates: &mut [Candidate]) -> usize {
        let at_once = LOOKS / self.inner.lock().mappings.len().max(1);
        candidates.chunks_mut(at_once.max(1)).map(|some| self.begin_some(area, some)).sum()
    }

    fn begin_some(&self, area: &SwapArea, candidates: &mut [Candidate]) -> usize {
        let mut guard = self.inner.lock();
        let Inner { versions, mappings, .. } = &mut *guard;
        let mut held = Held::default();
        let (mut leaving, mut aged) = (0, false);
        for candidate in candidates.iter_mut() {
            let ListedPage { page: index, frame, .. } = candidate.page;
            if area.is_writing(frame) {
                continue;
            }
            let is_it = |entry: PageEntry| entry.frame() == Some(frame);
            versions.change(index, is_it, |entry, _| self.look(candidate, entry, mappings, &mut held));
            aged |= matches!(candidate.outcome, Outcome::Aged(_));
            leaving += usize::from(candidate.outcome == Outcome::Leaving);
        }
        drop(held);
        if leaving > 0 {
            self.left.store(self.memory.frames().moment().number(), Ordering::Release);
        }
        if aged {
            self.memory.frames().set_ages(candidates);
        }
        leaving
    }

    /// Looks at one page, with its entry. Answers what becomes of that.
    #[inline]
    fn look<'a>(
        &self,
        candidate: &mut Candidate,
        entry: PageEntry,
        mappings: &'a ReverseMap<VersionId>,
        held: &mut Held<'a>,
    ) -> Option<(PageEvent, PageEntry)> {
        let ListedPage { page: index, frame, .. } = candidate.page;
        match entry.state() {
            PageState::Dirty { .. } | PageState::Loaded { .. } => {}
            PageState::SwappingOut { .. } => {
                // Whoever began with it has left it there.
                candidate.outcome = Outcome::Leaving;
                return None;
            }
            _ => return None,
        }
        let mut used = entry.referenced();
        mappings.for_each(index, |mapping, page| {
            let leaf = held.tables(&mapping.table).take_accessed(page, frame);
            used |= leaf.is_some_and(|leaf| leaf.accessed);
        });
        let is_settled = |low| self.memory.frames().is_over(self.memory.frames().recent(low));
        let verdict = match entry.copied_at().is_none_or(is_settled) {
            true => {
                let seen = Observation { kind: PageKind::Anonymous, age: candidate.age, used };
                self.memory.policy().judge(seen)
            }
            false => Verdict::Keep(candidate.age),
        };
        if let Verdict::Keep(age) = verdict {
            if age != candidate.age {
                candidate.outcome = Outcome::Aged(age);
            }
            let unused = entry.with_referenced(false);
            return (unused != entry).then_some((PageEvent::Evict, unused));
        }
        mappings.for_each(index, |mapping, page| {
            if held.tables(&mapping.table).unmap_shown(page, frame).is_some() {
                self.memory.hardware().invalidate(mapping.table.root(), page);
            }
        });
        candidate.outcome = Outcome::Leaving;
        Some((PageEvent::Evict, PageEntry::new(PageState::SwappingOut { frame })))
    }

    /// All CPUs were waited for: those pages go at once whose slots have them, or that are zeros, and their frames are
    /// free. Puts those in front that have to be written before, and answers how many; the others somebody has touched.
    pub(crate) fn leave(&self, area: &SwapArea, pages: &mut [ListedPage]) -> usize {
        let mut to_write = 0;
        for from in (0..pages.len()).step_by(AT_ONCE) {
            let until = pages.len().min(from + AT_ONCE);
            let some = self.leave_some(area, &mut pages[from..until]);
            pages.copy_within(from..from + some, to_write);
            to_write += some;
        }
        to_write
    }

    fn leave_some(&self, area: &SwapArea, pages: &mut [ListedPage]) -> usize {
        let (mut gone, mut count) = ([0; AT_ONCE], 0);
        let (mut to_write, mut with_slots) = (0, 0);
        let mut guard = self.inner.lock();
        for number in 0..pages.len() {
            let ListedPage { page: index, frame, .. } = pages[number];
            let leaving = PageEntry::new(PageState::SwappingOut { frame });
            guard.versions.change(
                index,
                |entry| entry == leaving,
                |_, is_first| {
                    let kept = area.take_kept(frame);
                    let entry = match kept {
                        Some(slot) => PageEntry::new(PageState::Swapped { slot }),
                        None if !self.is_zero(frame) => {
                            pages[to_write] = pages[number];
                            to_write += 1;
                            return None;
                        }
                        // Zeros are below.
                        None if is_first && self.base.is_none() => PageEntry::ABSENT,
                        None => PageEntry::new(PageState::Swapped { slot: 0 }),
                    };
                    gone[count] = frame;
                    count += 1;
                    with_slots += usize::from(kept.is_some());
                    Some((PageEvent::Forgotten, entry))
                },
            );
        }
        if count > 0 {
            // The frame lists' lock comes after this one.
            self.memory.frames().free_listed(&gone[..count]);
            area.left_unwritten(count, with_slots);
        }
        drop(guard);
        to_write
    }

    fn is_zero(&self, frame: u64) -> bool {
        let (window, mut piece) = (self.memory.frames().window(), [0; PIECE]);
        (0..PAGE_SIZE).step_by(PIECE).all(|offset| {
            window.read(address_of(frame), offset, &mut piece);
            piece == [0; PIECE]
        })
    }
}
