//! Clean pages are given back, in two steps with a wait for all CPUs between them. Pages that leave together are changed
//! under one hold of the object's lock, and of the lock of each table that shows them in a row.

use core::sync::atomic::Ordering;

use super::VmObject;
use crate::frame::{Candidate, ListedPage, Outcome};
use crate::page_state::PageEntry;
use crate::reclaim::BATCH;
use crate::reverse_map::ReverseMap;
use crate::table::{Held, Table};
use crate::trace::{Event, ObjectName};
use crate::{Observation, PageEvent, PageIndex, PageKind, ReclaimPolicy, Verdict, VirtAddr};

/// Who says whether a clean page is given back.
#[derive(Clone, Copy)]
pub(crate) enum Judge {
    /// A policy, which is told what the frame's record says of the page's age.
    Policy(&'static dyn ReclaimPolicy),
    /// The caller, who knows best which page goes.
    Evict,
}

impl Judge {
    fn judge(self, page: Observation) -> Verdict {
        match self {
            Self::Policy(policy) => policy.judge(page),
            Self::Evict => Verdict::Evict,
        }
    }
}

/// The tables that are held, and what was done so far.
#[derive(Default)]
struct Holding<'a> {
    held: Held<'a>,
    /// Pages that are leaving.
    leaving: usize,
    /// A page gets another age.
    aged: bool,
    /// A page was taken out that is written: a CPU may still write to it by what it remembers.
    hid_written: bool,
}

impl VmObject {
    /// Begins to give clean pages back, notes what came of each, and answers how many are leaving. One stays where
    /// the judge wants to keep it, and where it is not what its frame's record said: the records were read without
    /// this object's lock.
    pub(crate) fn begin_evictions(&self, candidates: &mut [Candidate], judge: Judge) -> usize {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let (pages, mappings) = (&mut inner.pages, &inner.mappings);
        let mut holding = Holding::default();
        pages.update_each(
            candidates,
            |candidate| candidate.page.page,
            |candidate, entry| {
                if entry.clean_frame() != Some(candidate.page.frame) {
                    return None;
                }
                self.look(candidate, entry, judge, mappings, &mut holding)
            },
        );
        let Holding { held, leaving, aged, hid_written } = holding;
        drop(held);
        if hid_written {
            // A store that comes now waits for that CPU first.
            inner.hidden = Some(self.memory.frames().moment());
        }
        if leaving > 0 || hid_written {
            self.note_left();
        }
        if aged {
            self.memory.frames().set_ages(candidates);
        }
        leaving
    }

    /// Looks at one clean page, with its entry. Answers what becomes of that.
    #[inline]
    fn look<'a>(
        &self,
        candidate: &mut Candidate,
        entry: PageEntry,
        judge: Judge,
        mappings: &'a ReverseMap,
        holding: &mut Holding<'a>,
    ) -> Option<(PageEvent, PageEntry)> {
        let ListedPage { page: index, frame, .. } = candidate.page;
        let (mut used, mut written) = (entry.referenced(), false);
        let (mut first, mut more) = (None, false);
        mappings.for_each(index, |mapping, page| {
            if let Some(leaf) = holding.held.tables(&mapping.table).take_accessed(page, frame) {
                used |= leaf.accessed;
                written |= leaf.dirty;
                more |= first.replace((&*mapping.table, page)).is_some();
            }
        });
        let seen = Observation { kind: PageKind::Clean, age: candidate.age, used };
        let verdict = if written { Verdict::Keep(candidate.age) } else { judge.judge(seen) };
        if verdict == Verdict::Evict {
            // Most pages are shown once, and nobody shows one while this object's lock is held.
            match first {
                Some((table, page)) if !more => written |= self.hide_at(table, page, frame, holding),
                Some(_) => mappings.for_each(index, |mapping, page| {
                    written |= self.hide_at(&mapping.table, page, frame, holding);
                }),
                None => {}
            }
        }
        if written {
            holding.hid_written |= verdict == Verdict::Evict;
            self.list_dirty(index, frame);
            return Some((PageEvent::Noted, entry.dirtied(frame)));
        }
        match verdict {
            Verdict::Keep(age) => {
                if age != candidate.age {
                    candidate.outcome = Outcome::Aged(age);
                    holding.aged = true;
                }
                let next = entry.with_referenced(false);
                (next != entry).then_some((PageEvent::Evict, next))
            }
            Verdict::Evict => {
                candidate.outcome = Outcome::Leaving;
                holding.leaving += 1;
                Some((PageEvent::Evict, entry.between()))
            }
        }
    }

    /// Takes a page out of a page table that shows this frame there. Answers whether that says that it was written.
    #[inline]
    fn hide_at<'a>(&self, table: &'a Table, page: VirtAddr, frame: u64, holding: &mut Holding<'a>) -> bool {
        let Some(leaf) = holding.held.tables(table).unmap_shown(page, frame) else { return false };
        self.memory.hardware().invalidate(table.root(), page);
        leaf.dirty
    }

    /// Takes pages out whose eviction was begun, and frees their frames; those stay that were touched since. Returns how
    /// many are gone. The caller has begun it, or found it begun, and waited for all CPUs since, and nobody else
    /// began one in between.
    pub(crate) fn end_evictions(&self, candidates: &mut [Candidate]) -> usize {
        candidates.chunks_mut(BATCH).map(|some| self.end_some(some)).sum()
    }

    fn end_some(&self, candidates: &mut [Candidate]) -> usize {
        let (mut gone, mut count) = ([0; BATCH], 0);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        inner.pages.update_each(
            candidates,
            |candidate| candidate.page.page,
            |candidate, entry| {
                let ListedPage { page, frame, .. } = candidate.page;
                if !entry.is_between() || entry.clean_frame() != Some(frame) {
                    return None;
                }
                gone[count] = frame;
                count += 1;
                if self.memory.is_recorded() {
                    let object = ObjectName::object(self.number);
                    self.memory.tell(Event::Evict { object, page: PageIndex::new(page) });
                }
                Some((PageEvent::Forgotten, PageEntry::ABSENT))
            },
        );
        inner.resident -= count as u64;
        // The frame lists' lock comes after this one.
        self.memory.frames().free_listed(&gone[..count]);
        drop(guard);
        self.memory.counters.evictions.fetch_add(count as u64, Ordering::Relaxed);
        count
    }
}
