//! Touching a page of private memory: finding it, and making a version's own.

use alloc::sync::Arc;
use core::ops::{DerefMut, Range};
use core::sync::atomic::Ordering;

use executor::lock::Within;

use super::versions::{Found, Settled, VersionId};
use super::{Inner, PrivateObject};
use crate::Advice;
use crate::frame::{Moment, address_of};
use crate::page_state::{PageEntry, PageState};
use crate::settle::{Attempt, Offer};
use crate::{Frame, OutOfMemory, PAGE_SIZE, PageEvent, VmObject};

/// What a page is copied from: a part of a frame; around it come zeros.
struct Source {
    frame: u64,
    part: Range<usize>,
}

impl Source {
    fn whole(frame: u64) -> Self {
        Self { frame, part: 0..PAGE_SIZE }
    }
}

/// Whether a page of the object below is loaded that is not there.
pub(super) enum Load<'a> {
    With(Advice),
    /// Nothing is, in a touch that must not wait.
    Not(Within<'a>),
}

impl PrivateObject {
    /// Looks whether a page of a version is there for reading or writing; as `VmObject::touch`, whose lock is taken
    /// within this one's where a page of the object below is shown or copied. `advice` says how much is read ahead there.
    pub(crate) fn touch(
        &self,
        version: VersionId,
        index: u64,
        write: bool,
        advice: Advice,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
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
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
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
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
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
        match found {
            None => Attempt::Again,
            Some(Found::Own(entry)) => self.use_own(&mut inner, version, index, write, entry, spare, commit),
            Some(Found::Past(_, entry)) if !write => match entry.frame() {
                Some(frame) => commit(Offer::new(frame, false), spare),
                None => Attempt::Again,
            },
            Some(Found::Past(past, entry)) => {
                match inner.versions.settled(past) {
                    Settled::At(moment) if self.memory.frames().is_over(moment) => {}
                    Settled::At(moment) => return Attempt::Forgetting(moment),
                    // It is being done in a poll, which is over when all CPUs were waited for.
                    Settled::NotYet => return Attempt::Forgetting(self.memory.frames().moment()),
                }
                if inner.versions.is_seen_by_others(version, past, index) {
                    let source = entry.frame().map(Source::whole);
                    return self.copy(&mut inner, version, index, source, spare, commit);
                }
                // Another version may have copied the page, or ended, whose CPUs still remember this frame.
                let left = self.left();
                if !self.memory.has_one_cpu() && !self.memory.frames().is_over(left) {
                    return Attempt::Forgetting(left);
                }
                if inner.make_room(version, index).is_err() {
                    return Attempt::heap_is_full(spare);
                }
                inner.versions.take(version, past, index);
                self.use_own(&mut inner, version, index, write, entry, spare, commit)
            }
            Some(Found::Nothing) => match &self.base {
                Some(base) => {
                    let (below, part) = (base.first + index, base.part_of(index));
                    let copied = write || part != (0..PAGE_SIZE);
                    let use_it = |frame, _, spare: &mut Option<Frame>| {
                        if copied {
                            let source = Source { frame, part };
                            self.copy(&mut inner, version, index, Some(source), spare, commit)
                        } else {
                            commit(Offer::new(frame, false), spare)
                        }
                    };
                    let advice = match load {
                        Load::With(advice) => advice,
                        Load::Not(within) => {
                            return base.object.touch_at_once(below, false, within, spare, use_it);
                        }
                    };
                    let touched = base.object.touch_or_begin(below, false, spare, use_it);
                    drop(inner);
                    base.object.hand_over(touched, advice)
                }
                None if write => self.copy(&mut inner, version, index, None, spare, commit),
                None => match self.memory.zero_page() {
                    Some(zero) => commit(Offer::new(zero, false), spare),
                    None => Attempt::needs_table(self.memory),
                },
            },
        }
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
    #[expect(clippy::too_many_arguments, reason = "what a touch is made of")]
    fn use_own(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        write: bool,
        entry: PageEntry,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        if let Some(low) = entry.copied_at() {
            let moment = self.memory.frames().recent(low);
            if !self.memory.frames().is_over(moment) {
                return Attempt::Forgetting(moment);
            }
            inner.set(version, index, PageEvent::Read, entry.settled());
        }
        let Some(frame) = entry.frame() else { return Attempt::Again };
        let merged = inner.versions.merged(version);
        if !self.memory.frames().is_over(merged) {
            return if write { Attempt::Forgetting(merged) } else { commit(Offer::new(frame, false), spare) };
        }
        if entry.is_dirty() {
            return commit(Offer::new(frame, true), spare);
        }
        // What its slot has is the same until it is written.
        let attempt = commit(Offer::new(frame, write), spare);
        if write && matches!(attempt, Attempt::Done) {
            inner.set(version, index, PageEvent::Write, PageEntry::new(PageState::Dirty { frame }));
            if let Some((_, area)) = self.swap {
                area.written(frame);
            }
        }
        attempt
    }

    /// Makes a page of the version's own: a copy of what it shows now, or of zeros.
    fn copy(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        source: Option<Source>,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        let has_heap = || self.memory.hardware().heap_has_room();
        let Some(pages) = inner.versions.own(version) else { return Attempt::Again };
        if !pages.has_room(index) && (!has_heap() || pages.make_room(index).is_err()) {
            return Attempt::heap_is_full(spare);
        }
        let frames = self.memory.frames();
        let frame = match &source {
            Some(_) => spare.take().or_else(|| frames.try_alloc_page()),
            None => frames.zeroed_page(spare),
        };
        let Some(mut frame) = frame else {
            inner.give_up_room(version, index);
            return Attempt::NeedsFrame;
        };
        if let Some(Source { frame: source, part }) = &source {
            frames.window().copy(address_of(*source), frame.address());
            if *part != (0..PAGE_SIZE) {
                let bytes = frame.as_bytes_mut();
                bytes[..part.start].fill(0);
                bytes[part.end..].fill(0);
            }
        }
        let frame = frame.into_number();
        let entry = PageEntry::new(PageState::Dirty { frame });
        let mut old = source.map(|source| source.frame).or(self.memory.zero_page_if_any());
        if !self.memory.has_one_cpu() {
            let shown = old.take().is_some_and(|old| self.hide(inner, version, index, old));
            if shown || self.may_be_remembered() {
                let moment = self.memory.frames().moment();
                if shown {
                    self.left.store(moment.number(), Ordering::Release);
                }
                inner.set(version, index, PageEvent::Write, entry.copied(moment));
                self.list(index, frame);
                return Attempt::Forgetting(moment);
            }
        }
        inner.set(version, index, PageEvent::Write, entry);
        self.list(index, frame);
        let attempt = commit(Offer { frame, writable: true, instead_of: old }, spare);
        // One CPU forgets the old page at once, and nobody else has seen it.
        let is_replaced = matches!(attempt, Attempt::Done) && inner.versions.users(version) == 1;
        if let Some(old) = old.filter(|_| !is_replaced) {
            self.exchange(inner, version, index, old, frame);
        }
        attempt
    }
}

impl Inner {
    fn make_room(&mut self, version: VersionId, index: u64) -> Result<(), OutOfMemory> {
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
