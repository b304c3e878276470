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
//! '-' cannot happen: only a request's end is a 'load done', and only clean pages are listed for eviction.
//! Writing back and swap come with their own states; the codes are 4 bits wide.

use core::fmt;

use crate::address::PAGE_BYTES;

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

/// A page's state and its bits in one word: bits 0..4 the state's code, bit 4 `REFERENCED`, bits 12..52 the
/// frame's address.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PageEntry(u64);

/// The page was loaded or touched since reclaim last looked. Set by a load's end and by touches of a clean
/// page, cleared by reclaim; never set while the page is not `Loaded`.
const REFERENCED: u64 = 1 << 4;

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
        match self.0 & 15 {
            0 => PageState::Absent,
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
        Self(if referenced { self.0 | REFERENCED } else { self.0 & !REFERENCED })
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
        }
    }
}
