//! Touching a page of an object: it is used, or made, or the answer says what to wait for.

use alloc::sync::Arc;

use executor::lock::Within;

use super::{Inner, VmObject};
use crate::fallible::Shared;
use crate::memory::Counters;
use crate::page_state::{PageEntry, PageState};
use crate::settle::Attempt;
use crate::trace::Asked;
use crate::transfer::Transfer;
use crate::{Advice, Denial, Frame, OutOfMemory, PageError, PageEvent, PageIndex, PageRequest};

/// What came of a touch, before the pager is called.
pub(crate) enum Touched {
    Tried(Attempt),
    /// The page is being loaded from now on.
    Begun(Shared<Transfer>),
}

/// A page has to be loaded.
pub(super) struct NotThere;

/// A page that is there.
struct Ready {
    frame: u64,
    /// Whether it may be shown writable.
    writable: bool,
    then: Then,
}

/// What is to be noted when it was used.
enum Then {
    Nothing,
    /// It was dirty already.
    WrittenAgain,
    /// It is clean so far.
    Used,
}

/// Why a page cannot be used now.
enum Unready {
    NotThere,
    /// For this, which is then the answer.
    Because(Attempt),
}

/// The object does not use its pager any more.
pub(super) fn closed(index: u64) -> Touched {
    let (page, error) = (PageIndex::new(index), PageError::Closed);
    Touched::Tried(Attempt::Denied(Denial::Io { page, error }))
}

impl VmObject {
    /// Looks whether a page is there for reading or writing. If it is, `commit` uses it, with the object's
    /// lock held: it gets the frame and whether the page may be shown writable. If not, the answer says what
    /// to wait for; the first to touch an absent page hands the request to the pager.
    ///
    /// A page counts as dirty once a commit that writes is done.
    pub(crate) fn touch(
        self: &Arc<Self>,
        index: u64,
        write: bool,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        self.touch_advised(index, write, Advice::Normal, spare, commit)
    }

    /// The same; `advice` says how much is read ahead if the page has to be loaded.
    pub(crate) fn touch_advised(
        self: &Arc<Self>,
        index: u64,
        write: bool,
        advice: Advice,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        let touched = self.touch_or_begin(index, write, spare, commit);
        self.hand_over(touched, advice)
    }

    /// The rest of a touch, with no lock held: a load that was begun is the pager's from here on.
    pub(crate) fn hand_over(self: &Arc<Self>, touched: Touched, advice: Advice) -> Attempt {
        let load = match (touched, &self.base) {
            (Touched::Tried(attempt), _) => return attempt,
            (begun, Some(base)) => return base.hand_over(begun, advice),
            (Touched::Begun(load), None) => load,
        };
        let index = load.page().as_u64();
        let pages = self.plan(index, advice);
        Counters::count(&self.memory.counters.loads_started);
        let request = || PageRequest::new(load.clone(), Arc::downgrade(self));
        match &self.pager {
            Some(pager) if pages.end - pages.start == 1 => Asked::new(self, &**pager).load(request()),
            Some(_) => self.load_with(Some(request()), pages),
            // Ends as abandoned.
            None => drop(request()),
        }
        Attempt::Wait(load)
    }

    /// The part of a touch that may be done with the lock of private memory held, which is shown over this object.
    pub(crate) fn touch_or_begin(
        &self,
        index: u64,
        write: bool,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Touched {
        match &self.base {
            Some(base) => self.touch_overlay(base, index, write, spare, commit),
            None => self.touch_or_load(index, write, spare, commit),
        }
    }

    /// The same for an object that is no overlay.
    pub(super) fn touch_or_load(
        &self,
        index: u64,
        write: bool,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Touched {
        let mut inner = self.inner.lock();
        if inner.closers > 0 {
            return closed(index);
        }
        let entry = inner.pages.get(index);
        Touched::Tried(match self.try_touch(&mut inner, index, entry, write, spare, commit) {
            Ok(attempt) => attempt,
            Err(NotThere) => match inner.store_above(index) {
                Some(store) => Attempt::Wait(store.clone()),
                None => match inner.begin_load(self.memory, index, PageEvent::touch(write)) {
                    Ok(load) => return Touched::Begun(load),
                    Err(OutOfMemory) => Attempt::heap_is_full(spare),
                },
            },
        })
    }

    /// A touch of a page that is there or can be made: where there is something to wait for, nothing has happened, and
    /// the answer is `Again`. Called with the space's lock held.
    #[inline]
    pub(crate) fn touch_at_once(
        &self,
        index: u64,
        write: bool,
        within: Within<'_>,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        let mut inner = self.inner.lock_within(within);
        if inner.closers > 0 || self.base.is_some() {
            return Attempt::Again;
        }
        let entry = inner.pages.get(index);
        let ready = match entry.as_it_is() {
            Some((frame, writable)) if !write => Ok(Ready { frame, writable, then: Then::Nothing }),
            None if !entry.can_be_shown() && (self.pager.is_some() || entry.is_under_way()) => {
                return Attempt::Again;
            }
            _ => self.ready(&mut inner, index, entry, write, spare),
        };
        match ready {
            Ok(ready) => self.use_page(&mut inner, index, entry, write, ready, spare, commit),
            Err(Unready::Because(attempt)) => attempt,
            Err(Unready::NotThere) => Attempt::Again,
        }
    }

    /// Uses a page that is there or can be made, or says what to wait for.
    pub(super) fn try_touch(
        &self,
        inner: &mut Inner,
        index: u64,
        entry: PageEntry,
        write: bool,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Result<Attempt, NotThere> {
        match self.ready(inner, index, entry, write, spare) {
            Ok(ready) => Ok(self.use_page(inner, index, entry, write, ready, spare, commit)),
            Err(Unready::Because(attempt)) => Ok(attempt),
            Err(Unready::NotThere) => Err(NotThere),
        }
    }

    /// Uses a page that is there, and notes it.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what a touch is made of")]
    fn use_page(
        &self,
        inner: &mut Inner,
        index: u64,
        entry: PageEntry,
        write: bool,
        ready: Ready,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(u64, bool, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        let Ready { frame, writable, then } = ready;
        let attempt = commit(frame, writable, spare);
        let is_written = write && matches!(attempt, Attempt::Done);
        match then {
            Then::WrittenAgain if is_written => inner.pages.set(index, PageEvent::Write, entry.written()),
            Then::Used if is_written => inner.make_dirty(self, index, frame, PageEvent::Write),
            Then::Used if !entry.referenced() => {
                inner.pages.set(index, PageEvent::Read, entry.with_referenced(true));
            }
            _ => {}
        }
        attempt
    }

    /// Whether a page is there, or can be made; or what to wait for.
    fn ready(
        &self,
        inner: &mut Inner,
        index: u64,
        entry: PageEntry,
        write: bool,
        spare: &mut Option<Frame>,
    ) -> Result<Ready, Unready> {
        let counters = &self.memory.counters;
        if let Some(moment) = entry.dropped_at()
            && !self.memory.frames().is_over(moment)
        {
            return Err(Unready::Because(Attempt::Forgetting(moment)));
        }
        Err(Unready::Because(match (entry.state(), &self.pager) {
            (PageState::Dirty { frame } | PageState::WritingBack { frame }, _) => {
                let writable = write || !entry.is_between();
                return Ok(Ready { frame, writable, then: Then::WrittenAgain });
            }
            (PageState::Loaded { .. }, Some(_)) if write && !self.memory.may_dirty() => Attempt::TooManyDirty,
            (PageState::Loaded { frame }, _) => {
                return Ok(Ready { frame, writable: write, then: Then::Used });
            }
            (PageState::Loading | PageState::LoadingInvalidated, _) => match inner.load(self.memory, index) {
                Ok(load) => {
                    Counters::count(&counters.loads_shared);
                    inner.streams.waited(index);
                    Attempt::Wait(load)
                }
                Err(OutOfMemory) => Attempt::heap_is_full(spare),
            },
            (PageState::WritingBackDiscarded { .. }, _) => {
                Attempt::Wait(inner.pages.transfer(index).expect("it is being stored").clone())
            }
            (PageState::Swapped { .. } | PageState::SwappingOut { .. } | PageState::SwappingIn { .. }, _) => {
                unreachable!("only private memory is swapped")
            }
            _ if !self.memory.hardware().heap_has_room() => Attempt::heap_is_full(spare),
            (PageState::Absent | PageState::Failed, None) => {
                if inner.pages.make_room(index).is_err() {
                    return Err(Unready::Because(Attempt::heap_is_full(spare)));
                }
                let Some(frame) = self.memory.frames().zeroed_page(spare, None) else {
                    inner.pages.give_up_room(index);
                    return Err(Unready::Because(Attempt::NeedsFrame));
                };
                let frame = frame.into_number();
                let entry = PageEntry::new(PageState::Dirty { frame });
                inner.pages.set(index, PageEvent::touch(write), entry);
                inner.resident += 1;
                Counters::count(&counters.zero_fills);
                return Ok(Ready { frame, writable: true, then: Then::Nothing });
            }
            (PageState::Absent | PageState::Failed, Some(_)) => return Err(Unready::NotThere),
        }))
    }
}
