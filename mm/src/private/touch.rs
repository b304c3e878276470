//! Touching a page of private memory: finding it, and making a version's own.

use alloc::sync::Arc;
use core::ops::DerefMut;
use core::sync::atomic::Ordering;

use executor::lock::Within;

use super::copy::{Room, Source};
use super::versions::{Found, Settled, VersionId};
use super::{Base, Inner, PrivateObject};
use crate::Advice;
use crate::frame::Moment;
use crate::page_state::{PageEntry, PageState};
use crate::settle::{Attempt, Commit, Offer};
use crate::{Frame, OutOfMemory, PAGE_SIZE, PageEvent, VmObject};

/// A page that is ready to be shown.
pub(super) struct Ready {
    pub(super) offer: Offer,
    pub(super) then: Then,
}

/// What is left to do once it is.
pub(super) enum Then {
    Nothing,
    /// The page is as its slot has it, and is written now.
    NoteWrite,
    /// The old frame of a copy goes wherever else it is shown.
    Exchange,
}

impl Ready {
    fn shown(frame: u64, writable: bool) -> Self {
        Self { offer: Offer::new(frame, writable), then: Then::Nothing }
    }
}

/// Whether a page of the object below is loaded that is not there.
pub(super) enum Load<'a> {
    With(Advice),
    /// Nothing is, in a touch that must not wait.
    Not(Within<'a>),
}

impl<'a> Load<'a> {
    fn within(&self) -> Option<Within<'a>> {
        match self {
            Load::With(_) => None,
            Load::Not(within) => Some(*within),
        }
    }
}

impl PrivateObject {
    /// Looks whether a page of a version is there for reading or writing; as `VmObject::touch`, whose lock is taken
    /// within this one's where a page of the object below is shown or copied. `advice` says how much is read ahead there.
    /// Stands apart, so that touches of other objects stay short.
    #[inline(never)]
    pub(crate) fn touch(
        &self,
        version: VersionId,
        index: u64,
        write: bool,
        advice: Advice,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        self.touch_locked(self.inner.lock(), version, index, write, Load::With(advice), spare, commit)
    }

    /// The same as `VmObject::touch_at_once`.
    #[inline]
    pub(crate) fn touch_at_once(
        &self,
        version: VersionId,
        index: u64,
        write: bool,
        within: Within<'_>,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        let inner = self.inner.lock_within(within);
        self.touch_locked(inner, version, index, write, Load::Not(within), spare, commit)
    }

    /// Gives up the lock.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the one body of two touches")]
    fn touch_locked(
        &self,
        mut inner: impl DerefMut<Target = Inner>,
        version: VersionId,
        index: u64,
        write: bool,
        load: Load<'_>,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        // The first write to most pages.
        if write && self.base.is_none() {
            let Inner { versions, mappings, swaps, .. } = &mut *inner;
            if let Some((vacancy, users)) = versions.untouched(version, index) {
                let room = Room { version, index, vacancy, users, mappings, swaps };
                let ready = self.fill(room, None, spare, load.within());
                return self.show(&mut inner, version, index, ready, spare, commit);
            }
        }
        let mut found = inner.versions.find(version, index);
        // Without swap, each page that is found is dirty.
        if let Some(Found::Own(entry) | Found::Past(_, entry)) = found
            && !entry.is_dirty()
        {
            let place = if let Some(Found::Past(place, _)) = found { place } else { version.place };
            match self.bring_back(inner, (version, place, index), write, &load, spare) {
                Ok(kept) => inner = kept,
                Err(attempt) => return attempt,
            }
            found = inner.versions.find(version, index);
        }
        let source = match (found, &self.base) {
            (None, _) => return Attempt::Again,
            (Some(Found::Own(entry)), _) => {
                return self.show_own(&mut inner, version, index, write, entry, spare, commit);
            }
            (Some(Found::Past(_, entry)), _) if !write => {
                return match entry.frame() {
                    Some(frame) => commit.commit(Offer::new(frame, false), spare),
                    None => Attempt::Again,
                };
            }
            (Some(Found::Past(past, entry)), _) => {
                if let Err(attempt) = self.past_is_settled(&inner, past) {
                    return attempt;
                }
                if !inner.versions.is_seen_by_others(version, past, index) {
                    return match self.take_page(&mut inner, version, index, past, spare) {
                        Ok(()) => self.show_own(&mut inner, version, index, true, entry, spare, commit),
                        Err(attempt) => attempt,
                    };
                }
                entry.frame().map(Source::whole)
            }
            (Some(Found::Nothing), Some(base)) => {
                return self.touch_below(inner, base, version, index, write, load, spare, commit);
            }
            (Some(Found::Nothing), None) if write => None,
            (Some(Found::Nothing), None) => {
                return match self.memory.zero_page() {
                    Some(zero) => commit.commit(Offer::new(zero, false), spare),
                    None => Attempt::needs_table(self.memory),
                };
            }
        };
        let ready = self.copy(&mut inner, version, index, source, spare, load.within());
        self.show(&mut inner, version, index, ready, spare, commit)
    }

    /// Shows a page that the version has.
    #[expect(clippy::too_many_arguments, reason = "what a touch is made of")]
    fn show_own(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        write: bool,
        entry: PageEntry,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        let ready = self.own_page(inner, version, index, write, entry);
        self.show(inner, version, index, ready, spare, commit)
    }

    /// Shows a page that is ready, and does what is left.
    #[inline(always)]
    fn show(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        ready: Result<Ready, Attempt>,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        let Ready { offer, then } = match ready {
            Ok(ready) => ready,
            Err(attempt) => return attempt,
        };
        let Offer { frame, instead_of, .. } = offer;
        let attempt = commit.commit(offer, spare);
        let is_done = matches!(attempt, Attempt::Done);
        match (then, instead_of) {
            (Then::NoteWrite, _) if is_done => {
                inner.set(version, index, PageEvent::Write, PageEntry::new(PageState::Dirty { frame }));
                if let Some(area) = inner.swaps.area {
                    area.written(frame);
                }
            }
            // Else it was shown only where it was touched, and is so no more.
            (then, Some(old)) if !is_done || matches!(then, Then::Exchange) => {
                self.exchange(inner, version, index, old, frame);
            }
            _ => {}
        }
        attempt
    }

    /// Shows or copies a page of the object below, under its lock.
    #[expect(clippy::too_many_arguments, reason = "what a touch is made of")]
    fn touch_below(
        &self,
        mut inner: impl DerefMut<Target = Inner>,
        base: &Base,
        version: VersionId,
        index: u64,
        write: bool,
        load: Load<'_>,
        spare: &mut Option<Frame>,
        commit: impl Commit,
    ) -> Attempt {
        let (below, part) = (base.first + index, base.part_of(index));
        let copied = write || part != (0..PAGE_SIZE);
        let use_it = |frame, _, spare: &mut Option<Frame>| {
            let ready = if copied {
                self.copy(&mut inner, version, index, Some(Source { frame, part }), spare, load.within())
            } else {
                Ok(Ready::shown(frame, false))
            };
            self.show(&mut inner, version, index, ready, spare, commit)
        };
        let advice = match load {
            Load::With(advice) => advice,
            // As for the object itself, see `Backing::touch_at_once`.
            Load::Not(_) if !write && base.object.is_in_ranges() => return Attempt::Again,
            Load::Not(within) => return base.object.touch_at_once(below, false, within, spare, use_it),
        };
        let touched = base.object.touch_or_begin(below, false, spare, use_it);
        drop(inner);
        base.object.hand_over(touched, advice)
    }

    /// Whether a page of a version has a frame now: its own, one of the past, or one of the object below.
    pub(crate) fn is_resident(&self, version: VersionId, index: u64) -> bool {
        let found = self.inner.lock().versions.find(version, index);
        match found {
            Some(Found::Own(entry) | Found::Past(_, entry)) => entry.frame().is_some(),
            _ => self.page_below(version, index).is_some_and(|(object, page)| object.is_resident(page)),
        }
    }

    /// The page of the object below that a page of a version shows, if it does.
    pub(crate) fn page_below(&self, version: VersionId, index: u64) -> Option<(Arc<VmObject>, u64)> {
        let base = self.base.as_ref()?;
        let found = self.inner.lock().versions.find(version, index);
        (found == Some(Found::Nothing)).then(|| (base.object.clone(), base.first + index))
    }

    /// Since when pages that were taken out last are in no page table.
    pub(super) fn left(&self) -> Moment {
        Moment::from_number(self.left.load(Ordering::Acquire))
    }

    /// Whether a CPU may still remember a page that no page table shows.
    pub(super) fn may_be_remembered(&self) -> bool {
        let left = self.left();
        let below = || self.base.as_ref().is_some_and(|base| base.object.may_be_remembered());
        !self.memory.frames().is_over(left) || below()
    }

    /// Uses a page that the version has.
    fn own_page(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        write: bool,
        entry: PageEntry,
    ) -> Result<Ready, Attempt> {
        if let Some(low) = entry.copied_at() {
            let moment = self.memory.frames().recent(low);
            if !self.memory.frames().is_over(moment) {
                return Err(Attempt::Forgetting(moment));
            }
            inner.set(version, index, PageEvent::Read, entry.settled());
        }
        let Some(frame) = entry.frame() else { return Err(Attempt::Again) };
        let merged = inner.versions.merged(version);
        if !self.memory.frames().is_over(merged) {
            return if write { Err(Attempt::Forgetting(merged)) } else { Ok(Ready::shown(frame, false)) };
        }
        if entry.is_dirty() {
            return Ok(Ready::shown(frame, true));
        }
        // What its slot has is the same until it is written.
        let then = if write { Then::NoteWrite } else { Then::Nothing };
        Ok(Ready { offer: Offer::new(frame, write), then })
    }

    /// Whether no CPU may write to the pages of a past any more; what to wait for if one may.
    #[inline]
    fn past_is_settled(&self, inner: &Inner, past: u32) -> Result<(), Attempt> {
        match inner.versions.settled(past) {
            Settled::At(moment) if self.memory.frames().is_over(moment) => Ok(()),
            Settled::At(moment) => Err(Attempt::Forgetting(moment)),
            // It is being done in a poll, which is over when all CPUs were waited for.
            Settled::NotYet => Err(Attempt::Forgetting(self.memory.frames().moment())),
        }
    }
}

impl Inner {
    pub(super) fn make_room(&mut self, version: VersionId, index: u64) -> Result<(), OutOfMemory> {
        self.versions.own(version).map_or(Ok(()), |pages| pages.make_room(index))
    }

    /// There is room for it.
    pub(super) fn set(&mut self, version: VersionId, index: u64, event: PageEvent, entry: PageEntry) {
        if let Some(pages) = self.versions.own(version) {
            pages.set(index, event, entry);
        }
    }

    pub(super) fn give_up_room(&mut self, version: VersionId, index: u64) {
        if let Some(pages) = self.versions.own(version) {
            pages.give_up_room(index);
        }
    }
}
