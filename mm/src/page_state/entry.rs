//! A page's state as the index keeps it: one word.

use super::PageState;
use crate::address::PAGE_BYTES;
use crate::frame::Moment;

/// A page's state and its bits in one word: bits 0..4 the state's code, bits 4..9 as below, bits 12..52 the number of
/// the frame, or of the slot. For a page that was dropped, bits 12..64 the moment since when all CPUs are to be
/// waited for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct PageEntry(u64);

/// The page was loaded or touched since reclaim last looked. Set by a load's end and by touches of a clean
/// page, cleared by reclaim; never set while the page is not `Loaded`.
pub(crate) const REFERENCED: u64 = 1 << 4;

/// The page is between two steps. `Loaded`: on its way out; no page table shows it, and CPUs that still use it are
/// waited for. Set by reclaim, cleared by every touch; never set with `REFERENCED`. `Dirty`: about to count as clean;
/// no page table allows to write it, and CPUs that still may are waited for. Set by mark, cleared by every touch for
/// writing. Never set in other states.
pub(crate) const BETWEEN: u64 = 1 << 5;

/// The page was stored before it had this frame, or a store has begun since. Set by a load's end (see `vm_object/stored`) and
/// when a store begins, kept when the page counts as clean;
/// never set while the page is not `Dirty`, `WritingBack` or `Loaded`.
pub(crate) const STORED: u64 = 1 << 6;

/// The page was written since its last store began, or that failed: see the page tables' dirty bits for what is not
/// noted yet. Cleared when a store begins; means nothing without `STORED`, and is never set while the page is `Loaded`.
pub(crate) const WRITTEN: u64 = 1 << 7;

/// The page of a version is a copy, and CPUs that may still use the page that was shown before are waited for: bits 9..12
/// and 52..64 are the low bits of the moment. Set when it is copied, cleared by the first touch after that moment; only
/// where the page is `Dirty` or `WritingBack`. A page of an overlay is one, too.
pub(crate) const COPIED: u64 = 1 << 8;

/// `COPIED` and the bits of its moment.
const COPY: u64 = COPIED | 7 << 9 | 0xfff << 52;

/// How many of a moment's bits are kept with a copied page.
pub(crate) const COPIED_BITS: u32 = 15;

/// The codes of states.
pub(crate) const ABSENT: u64 = 0;
pub(crate) const LOADING: u64 = 1;
pub(crate) const INVALIDATED: u64 = 2;
pub(crate) const LOADED: u64 = 3;
pub(crate) const DIRTY: u64 = 4;
pub(crate) const FAILED: u64 = 5;
/// Of a page that was dropped.
pub(crate) const DROPPED: u64 = 6;
pub(crate) const WRITING_BACK: u64 = 7;
pub(crate) const DISCARDED: u64 = 8;
pub(crate) const SWAPPED: u64 = 9;
pub(crate) const SWAPPING_OUT: u64 = 10;
pub(crate) const SWAPPING_IN: u64 = 11;

impl PageEntry {
    pub(crate) const ABSENT: Self = Self(0);

    /// The word, for a record of the page.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The other way round.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn new(state: PageState) -> Self {
        let code = match state {
            PageState::Absent => ABSENT,
            PageState::Loading => LOADING,
            PageState::LoadingInvalidated => INVALIDATED,
            PageState::Loaded { .. } => LOADED,
            PageState::Dirty { .. } => DIRTY,
            PageState::Failed => FAILED,
            PageState::WritingBack { .. } => WRITING_BACK,
            PageState::WritingBackDiscarded { .. } => DISCARDED,
            PageState::Swapped { .. } => SWAPPED,
            PageState::SwappingOut { .. } => SWAPPING_OUT,
            PageState::SwappingIn { .. } => SWAPPING_IN,
        };
        let number = match state {
            PageState::Swapped { slot } | PageState::SwappingIn { slot } => slot,
            state => state.frame().unwrap_or(0),
        };
        Self(code | (number * PAGE_BYTES))
    }

    /// The frame of a page whose entry stays what it is when the page is read, and whether it may be shown writable.
    #[inline]
    pub(crate) fn as_it_is(self) -> Option<(u64, bool)> {
        let is_dirty = matches!(self.0 & (15 | BETWEEN), 4 | 7);
        let is_clean = self.0 & (15 | REFERENCED) == 3 | REFERENCED;
        (is_dirty || is_clean).then_some(((self.0 / PAGE_BYTES) & ((1 << 40) - 1), is_dirty))
    }

    /// Whether the page has a frame that may be shown.
    #[inline]
    pub(crate) fn can_be_shown(self) -> bool {
        matches!(self.0 & 15, 3 | 4 | 7)
    }

    /// Whether the page is being loaded, or stored for nobody.
    pub(crate) fn is_under_way(self) -> bool {
        matches!(self.0 & 15, 1 | 2 | 8)
    }

    #[inline]
    pub(crate) fn state(self) -> PageState {
        let frame = (self.0 & ((1 << 52) - 1)) / PAGE_BYTES;
        // One that was dropped is absent to all who need not know better.
        match self.0 & 15 {
            ABSENT | DROPPED => PageState::Absent,
            LOADING => PageState::Loading,
            INVALIDATED => PageState::LoadingInvalidated,
            LOADED => PageState::Loaded { frame },
            DIRTY => PageState::Dirty { frame },
            WRITING_BACK => PageState::WritingBack { frame },
            DISCARDED => PageState::WritingBackDiscarded { frame },
            SWAPPED => PageState::Swapped { slot: frame },
            SWAPPING_OUT => PageState::SwappingOut { frame },
            SWAPPING_IN => PageState::SwappingIn { slot: frame },
            _ => PageState::Failed,
        }
    }

    /// The frame of a page that has one, as its state says.
    #[inline]
    pub(crate) fn frame(self) -> Option<u64> {
        const WITH_FRAME: u64 = 1 << 3 | 1 << 4 | 1 << 7 | 1 << 8 | 1 << 10;
        (WITH_FRAME >> (self.0 & 15) & 1 != 0).then_some((self.0 / PAGE_BYTES) & ((1 << 40) - 1))
    }

    /// The frame of a clean page: of one that is `Loaded`.
    #[inline]
    pub(crate) fn clean_frame(self) -> Option<u64> {
        self.frame().filter(|_| self.0 & 15 == LOADED)
    }

    /// Whether the page is dirty: as each page of private memory is where there is no swap.
    #[inline]
    pub(crate) fn is_dirty(self) -> bool {
        self.0 & 15 == DIRTY
    }

    /// The slot of a page that is in swap and nowhere else, as its state says; none for zeros.
    pub(crate) fn slot(self) -> Option<u64> {
        match self.state() {
            PageState::Swapped { slot } | PageState::SwappingIn { slot } => {
                Some(slot).filter(|&slot| slot != 0)
            }
            _ => None,
        }
    }

    pub(crate) fn referenced(self) -> bool {
        self.0 & REFERENCED != 0
    }

    pub(crate) fn with_referenced(self, referenced: bool) -> Self {
        let others = self.0 & !(REFERENCED | BETWEEN);
        Self(if referenced { others | REFERENCED } else { others })
    }

    /// A clean page on its way out, or a dirty one about to count as clean.
    pub(crate) fn is_between(self) -> bool {
        self.0 & BETWEEN != 0
    }

    /// A clean page that no page table shows, or a dirty one that no page table allows to write.
    pub(crate) fn between(self) -> Self {
        Self(self.0 & !REFERENCED | BETWEEN)
    }

    /// A dirty page, or one that is being stored, that was written since its last store, or may have been.
    pub(crate) fn written(self) -> Self {
        Self(self.0 & !BETWEEN | WRITTEN)
    }

    /// A clean page that is written.
    pub(crate) fn dirtied(self, frame: u64) -> Self {
        let since = if self.is_stored() { STORED | WRITTEN } else { 0 };
        Self(Self::new(PageState::Dirty { frame }).0 | since)
    }

    /// A clean page that was stored before it had this frame.
    pub(crate) fn with_stored(self) -> Self {
        Self(self.0 | STORED)
    }

    /// A dirty page that counts as clean.
    pub(crate) fn cleaned(self, frame: u64) -> Self {
        Self(Self::new(PageState::Loaded { frame }).0 | REFERENCED | self.0 & STORED)
    }

    /// Whether what a dirty page holds may count as clean, as far as the entry knows.
    pub(crate) fn may_be_clean(self) -> bool {
        self.0 & (STORED | WRITTEN) != STORED | WRITTEN
    }

    /// Whether a page was ever stored.
    pub(crate) fn is_stored(self) -> bool {
        self.0 & STORED != 0
    }

    /// A dirty page that is not about to count as clean any more.
    pub(crate) fn not_between(self) -> Self {
        Self(self.0 & !BETWEEN)
    }

    /// A page whose store begins.
    pub(crate) fn begin_store(self, frame: u64) -> Self {
        Self(Self::new(PageState::WritingBack { frame }).0 | STORED | self.0 & COPY)
    }

    /// The page when its store has ended.
    pub(crate) fn end_store(self, frame: u64, stored: bool) -> Self {
        let written = if stored { self.0 & WRITTEN } else { WRITTEN };
        Self(Self::new(PageState::Dirty { frame }).0 | STORED | written | self.0 & COPY)
    }

    /// A dirty page that is not to be shown before this moment is over.
    pub(crate) fn copied(self, at: Moment) -> Self {
        let low = at.number() & ((1 << COPIED_BITS) - 1);
        Self(self.0 | COPIED | (low & 7) << 9 | (low >> 3) << 52)
    }

    /// The low bits of that moment, `COPIED_BITS` of them.
    pub(crate) fn copied_at(self) -> Option<u64> {
        let low = (self.0 >> 9 & 7) | (self.0 >> 52) << 3;
        (self.0 & 15 != DROPPED && self.0 & COPIED != 0).then_some(low)
    }

    /// The page when that moment is over.
    pub(crate) fn settled(self) -> Self {
        Self(self.0 & !COPY)
    }

    /// A page that was dropped at this moment.
    pub(crate) fn dropped(at: Moment) -> Self {
        Self(DROPPED | (at.number() * PAGE_BYTES))
    }

    /// The moment at which the page was dropped, while it does not count as absent.
    pub(crate) fn dropped_at(self) -> Option<Moment> {
        (self.0 & 15 == DROPPED).then(|| Moment::from_number(self.0 / PAGE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_packing() {
        let frame = (1 << 40) - 1;
        for state in [
            PageState::Absent,
            PageState::Loading,
            PageState::LoadingInvalidated,
            PageState::Loaded { frame },
            PageState::Dirty { frame },
            PageState::WritingBack { frame },
            PageState::WritingBackDiscarded { frame },
            PageState::Failed,
            PageState::Swapped { slot: frame },
            PageState::Swapped { slot: 0 },
            PageState::SwappingOut { frame },
            PageState::SwappingIn { slot: frame },
        ] {
            assert_eq!(PageEntry::new(state).state(), state);
            assert_eq!(PageEntry::new(state).frame(), state.frame());
            assert_eq!(PageEntry::new(state).with_referenced(true).state(), state);
            assert_eq!(PageEntry::new(state).dropped_at(), None);
        }
        let leaving = PageEntry::new(PageState::Loaded { frame }).between();
        assert_eq!(leaving.state(), PageState::Loaded { frame });
        assert!(leaving.is_between() && !leaving.with_referenced(true).is_between());
        let dropped = PageEntry::dropped(Moment::from_number((1 << 52) - 1));
        assert_eq!(dropped.state(), PageState::Absent);
        assert_eq!(dropped.dropped_at().map(Moment::number), Some((1 << 52) - 1));
    }

    #[test]
    fn numbers_of_slots_and_frames_are_kept_in_whole_by_every_step() {
        for number in [1, 0xfff, 0x1000, 0x1001, 0x1234_5678, (1 << 40) - 1] {
            let (slot, frame) = (number, number);
            for entry in
                [PageEntry::new(PageState::Swapped { slot }), PageEntry::new(PageState::SwappingIn { slot })]
            {
                assert_eq!((entry.slot(), entry.frame()), (Some(slot), None));
                assert_eq!((entry.settled(), entry.copied_at(), entry.as_it_is()), (entry, None, None));
                assert!(!entry.can_be_shown() && !entry.is_dirty());
            }
            let dirty = PageEntry::new(PageState::Dirty { frame });
            let leaving = PageEntry::new(PageState::SwappingOut { frame });
            let copied = dirty.copied(Moment::from_number(0x7fff));
            for entry in [
                dirty,
                leaving,
                copied,
                copied.settled(),
                dirty.written(),
                dirty.between(),
                dirty.cleaned(frame),
                PageEntry::new(PageState::Loaded { frame }).with_referenced(true),
                PageEntry::new(PageState::Loaded { frame }).dirtied(frame),
                dirty.begin_store(frame).end_store(frame, true),
            ] {
                assert_eq!((entry.frame(), entry.slot()), (Some(frame), None));
            }
            assert!(!leaving.can_be_shown() && leaving.as_it_is().is_none());
        }
    }

    #[test]
    fn a_page_that_reading_does_not_change_is_dirty_or_used_lately() {
        let frame = (1 << 40) - 1;
        let dirty = PageEntry::new(PageState::Dirty { frame });
        let loaded = PageEntry::new(PageState::Loaded { frame });
        for entry in [dirty, dirty.begin_store(frame), dirty.written()] {
            assert_eq!((entry.as_it_is(), entry.between().as_it_is()), (Some((frame, true)), None));
        }
        assert_eq!(loaded.as_it_is(), None);
        assert_eq!(loaded.with_referenced(true).as_it_is(), Some((frame, false)));
        assert_eq!(loaded.between().as_it_is(), None);
        for state in [PageState::Absent, PageState::Loading, PageState::WritingBackDiscarded { frame }] {
            assert_eq!(PageEntry::new(state).as_it_is(), None);
        }
        assert_eq!(PageEntry::dropped(Moment::from_number(3)).as_it_is(), None);
    }

    #[test]
    fn a_copied_page_keeps_the_low_bits_of_its_moment() {
        let dirty = PageEntry::new(PageState::Dirty { frame: (1 << 40) - 1 });
        for low in [0, 1, 7, 8, (1 << COPIED_BITS) - 1] {
            let copied = dirty.copied(Moment::from_number(low + (5 << COPIED_BITS)));
            assert_eq!((copied.copied_at(), copied.state()), (Some(low), dirty.state()));
            assert!(copied.settled() == dirty);
            let stored = copied.begin_store((1 << 40) - 1);
            assert_eq!(
                (stored.copied_at(), stored.end_store((1 << 40) - 1, true).copied_at()),
                (Some(low), Some(low))
            );
        }
        assert_eq!(dirty.copied_at(), None);
        assert_eq!(PageEntry::dropped(Moment::from_number((1 << 52) - 1)).copied_at(), None);
    }

    #[test]
    fn a_store_that_failed_or_was_overtaken_by_a_write_makes_nothing_clean() {
        let frame = 77;
        assert!(PageEntry::new(PageState::Dirty { frame }).may_be_clean(), "it was never stored");
        let storing = PageEntry::default().begin_store(frame);
        assert_eq!(storing.state(), PageState::WritingBack { frame });
        assert_eq!(storing.written().state(), PageState::WritingBack { frame });
        for (ended, clean) in [
            (storing.end_store(frame, true), true),
            (storing.end_store(frame, false), false),
            (storing.written().end_store(frame, true), false),
            (storing.end_store(frame, true).between().written(), false),
        ] {
            assert_eq!(ended.state(), PageState::Dirty { frame });
            assert_eq!((ended.may_be_clean(), ended.is_stored(), ended.is_between()), (clean, true, false));
        }
    }
}
