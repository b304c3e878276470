//! Making a page of a version's own: a copy, a page of zeros, or one of the past that nobody else sees.

use core::ops::Range;
use core::sync::atomic::Ordering;

use executor::lock::Within;

use super::swap::Swaps;
use super::touch::{Ready, Then};
use super::versions::VersionId;
use super::{Inner, PrivateObject};
use crate::frame::address_of;
use crate::page_index_map::Vacancy;
use crate::page_state::{PageEntry, PageState};
use crate::reverse_map::ReverseMap;
use crate::settle::{Attempt, Offer};
use crate::{Frame, PAGE_SIZE, PageEvent};

/// What a page is copied from: a part of a frame; around it come zeros.
pub(super) struct Source {
    pub(super) frame: u64,
    pub(super) part: Range<usize>,
}

impl Source {
    pub(super) fn whole(frame: u64) -> Self {
        Self { frame, part: 0..PAGE_SIZE }
    }
}

/// The room for a page that a version is to have for itself.
pub(super) struct Room<'a> {
    pub(super) version: VersionId,
    pub(super) index: u64,
    pub(super) vacancy: Vacancy<'a>,
    /// How many mappings show the version.
    pub(super) users: usize,
    pub(super) mappings: &'a ReverseMap<VersionId>,
    pub(super) swaps: &'a Swaps,
}

impl PrivateObject {
    /// A page of the past that nobody else sees becomes the version's own.
    #[inline(never)]
    pub(super) fn take_page(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        past: u32,
        spare: &mut Option<Frame>,
    ) -> Result<(), Attempt> {
        // Another version may have copied the page, or ended, whose CPUs still remember this frame.
        let left = self.left();
        if !self.memory.has_one_cpu() && !self.memory.frames().is_over(left) {
            return Err(Attempt::Forgetting(left));
        }
        if inner.make_room(version, index).is_err() {
            return Err(Attempt::heap_is_full(spare));
        }
        inner.versions.take(version, past, index);
        Ok(())
    }

    /// Makes a page of the version's own: a copy of what it shows now, or of zeros.
    #[inline(always)]
    pub(super) fn copy(
        &self,
        inner: &mut Inner,
        version: VersionId,
        index: u64,
        source: Option<Source>,
        spare: &mut Option<Frame>,
        within: Option<Within<'_>>,
    ) -> Result<Ready, Attempt> {
        let Inner { versions, mappings, swaps, .. } = inner;
        let Some((pages, users)) = versions.own_and_users(version) else { return Err(Attempt::Again) };
        let vacancy = match pages.vacancy(index) {
            Some(vacancy) => vacancy,
            None => {
                if !self.memory.hardware().heap_has_room() || pages.make_room(index).is_err() {
                    return Err(Attempt::heap_is_full(spare));
                }
                pages.vacancy(index).expect("room was made")
            }
        };
        let room = Room { version, index, vacancy, users, mappings, swaps };
        let filled = self.fill(room, source, spare, within);
        if matches!(filled, Err(Attempt::NeedsFrame)) {
            pages.give_up_room(index);
        }
        filled
    }

    /// Fills the room for a page of a version's own. Where there is no frame the room stays.
    #[inline(always)]
    pub(super) fn fill(
        &self,
        Room { version, index, vacancy, users, mappings, swaps }: Room<'_>,
        source: Option<Source>,
        spare: &mut Option<Frame>,
        within: Option<Within<'_>>,
    ) -> Result<Ready, Attempt> {
        let frames = self.memory.frames();
        let frame = match &source {
            Some(_) => spare.take().or_else(|| frames.try_alloc_page(within)),
            None => frames.zeroed_page(spare, within),
        };
        let Some(mut frame) = frame else { return Err(Attempt::NeedsFrame) };
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
            let shown = old.take().is_some_and(|old| self.hide(mappings, version, index, old));
            if shown || self.may_be_remembered() {
                let moment = frames.moment();
                if shown {
                    self.left.store(moment.number(), Ordering::Release);
                }
                vacancy.fill(PageEvent::Write, entry.copied(moment));
                swaps.list(self.memory, index, frame);
                return Err(Attempt::Forgetting(moment));
            }
        }
        vacancy.fill(PageEvent::Write, entry);
        swaps.list(self.memory, index, frame);
        // One CPU forgets the old page at once, where it was touched; nobody else has seen it if no other mapping shows it.
        let then = if users > 1 { Then::Exchange } else { Then::Nothing };
        Ok(Ready { offer: Offer { frame, writable: true, instead_of: old }, then })
    }
}
