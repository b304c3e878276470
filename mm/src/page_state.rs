//! The states of a page, and what each event does to them.
//!
//! | state | touch for reading | touch for writing | load done | load failed | drop (release, invalidate) | evict |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `Absent` (paged) | `Loading`, one request, wait | the same | - | - | `Absent` | - |
//! | `Absent` (zero) | `Dirty`, a zeroed frame | the same | - | - | `Absent` | - |
//! | `Loading` | wait with the others | the same | `Loaded`, waiters look again | `Failed`, waiters get the error | `LoadingInvalidated` | - |
//! | `LoadingInvalidated` | wait with the others | the same | `Absent`, data thrown away, waiters look again and so load again | the same | no change | - |
//! | `Loaded` | show read-only | `Dirty`, show writable | - | - | `Absent`, unmapped, frame freed | `Absent`, unless it was used lately; `Dirty` when a page table says that it was written |
//! | `Dirty` | show writable | the same | - | - | `Absent`, unmapped, frame freed, changes lost | no change |
//! | `Failed` | like `Absent` | like `Absent` | - | - | `Absent` | - |
//!
//! That is where each event leads in the end. A page does not change its frame while a CPU may still use the old one (see `shootdown`), so eviction and dropping
//! have two steps, and a state between them:
//!
//! | state | touch for reading | touch for writing | drop | evict | all CPUs were waited for |
//! | --- | --- | --- | --- | --- | --- |
//! | `Loaded`, used lately | show read-only | `Dirty` | `Dropped` | not used lately any more | - |
//! | `Loaded`, else | show read-only, used lately | `Dirty` | `Dropped` | `Loaded` and leaving, unmapped | - |
//! | `Loaded` and leaving | the same: the same frame is shown again | `Dirty`, the same frame | `Dropped` | no change | `Absent`, frame freed |
//! | `Dirty` | show writable | the same | `Dropped` | no change | - |
//! | `Dropped` | wait for all CPUs, then like `Absent` | the same | no change | - | `Absent`, frame freed |
//!
//! `Dropped` has no frame, which is in quarantine; from outside it is `Absent`. Where no other CPU is busy, the second
//! step follows at once.
//!
//! '-' cannot happen: only a request's end is a 'load done', and only clean pages are listed for eviction.
//! Writing back and swap come with their own states; the codes are 4 bits wide.

use core::fmt;

use crate::address::PAGE_BYTES;
use crate::frame::Moment;

/// What is known about one page of an object. A page that is present names its frame, which the object
/// owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PageState {
    /// Nothing: no frame, and nobody wants it.
    #[default]
    Absent,
    /// A request is with the pager.
    Loading,
    /// The same, but what arrives is to be thrown away.
    LoadingInvalidated,
    /// The frame holds what the pager holds.
    Loaded {
        /// The number of the frame.
        frame: u64,
    },
    /// The frame holds what nobody else does.
    Dirty {
        /// The number of the frame.
        frame: u64,
    },
    /// The last load failed. The next touch tries again.
    Failed,
}

impl PageState {
    /// The frame of a page that is present.
    pub fn frame(self) -> Option<u64> {
        match self {
            PageState::Loaded { frame } | PageState::Dirty { frame } => Some(frame),
            _ => None,
        }
    }
}

impl fmt::Display for PageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageState::Absent => "absent",
            PageState::Loading => "loading",
            PageState::LoadingInvalidated => "invalidated",
            PageState::Loaded { .. } => "loaded",
            PageState::Dirty { .. } => "dirty",
            PageState::Failed => "failed",
        })
    }
}

/// A page's state and its bits in one word: bits 0..4 the state's code, bit 4 `REFERENCED`, bit 5 `LEAVING`, bits
/// 12..52 the frame's address. For a page that was dropped, bits 12..64 the moment since when all CPUs are to be
/// waited for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PageEntry(u64);

/// The page was loaded or touched since reclaim last looked. Set by a load's end and by touches of a clean
/// page, cleared by reclaim; never set while the page is not `Loaded`.
const REFERENCED: u64 = 1 << 4;

/// The page is on its way out: no page table shows it, and CPUs that still use it are waited for. Set by reclaim,
/// cleared by every touch; never set while the page is not `Loaded`, nor with `REFERENCED`.
const LEAVING: u64 = 1 << 5;

/// The code of a page that was dropped.
const DROPPED: u64 = 6;

impl PageEntry {
    pub(crate) const ABSENT: Self = Self(0);

    pub(crate) fn new(state: PageState) -> Self {
        let code = match state {
            PageState::Absent => 0,
            PageState::Loading => 1,
            PageState::LoadingInvalidated => 2,
            PageState::Loaded { .. } => 3,
            PageState::Dirty { .. } => 4,
            PageState::Failed => 5,
        };
        Self(code | (state.frame().unwrap_or(0) * PAGE_BYTES))
    }

    pub(crate) fn state(self) -> PageState {
        let frame = (self.0 & ((1 << 52) - 1)) / PAGE_BYTES;
        // One that was dropped is absent to all who need not know better.
        match self.0 & 15 {
            0 | DROPPED => PageState::Absent,
            1 => PageState::Loading,
            2 => PageState::LoadingInvalidated,
            3 => PageState::Loaded { frame },
            4 => PageState::Dirty { frame },
            _ => PageState::Failed,
        }
    }

    pub(crate) fn referenced(self) -> bool {
        self.0 & REFERENCED != 0
    }

    pub(crate) fn with_referenced(self, referenced: bool) -> Self {
        let others = self.0 & !(REFERENCED | LEAVING);
        Self(if referenced { others | REFERENCED } else { others })
    }

    pub(crate) fn is_leaving(self) -> bool {
        self.0 & LEAVING != 0
    }

    /// A clean page that no page table shows.
    pub(crate) fn leaving(self) -> Self {
        Self(self.0 & !REFERENCED | LEAVING)
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
            PageState::Failed,
        ] {
            assert_eq!(PageEntry::new(state).state(), state);
            assert_eq!(PageEntry::new(state).with_referenced(true).state(), state);
            assert_eq!(PageEntry::new(state).dropped_at(), None);
        }
        let leaving = PageEntry::new(PageState::Loaded { frame }).leaving();
        assert_eq!(leaving.state(), PageState::Loaded { frame });
        assert!(leaving.is_leaving() && !leaving.with_referenced(true).is_leaving());
        let dropped = PageEntry::dropped(Moment::from_number((1 << 52) - 1));
        assert_eq!(dropped.state(), PageState::Absent);
        assert_eq!(dropped.dropped_at().map(Moment::number), Some((1 << 52) - 1));
    }
}
