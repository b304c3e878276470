//! The states of a page, and what each event does to them.
//!
//! | state | touch for reading | touch for writing | load done | load failed | drop (release, invalidate) | evict |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `Absent` (paged) | `Loading`, one request, wait | the same | - | - | `Absent` | - |
//! | `Absent` (zero) | `Dirty`, a zeroed frame | the same | - | - | `Absent` | - |
//! | `Loading` | wait with the others | the same | `Loaded`, waiters look again | `Failed`, waiters get the error; `Absent`, waiters look again, if nobody had asked for it when it began | `LoadingInvalidated` | - |
//! | `LoadingInvalidated` | wait with the others | the same | `Absent`, data thrown away, waiters look again and so load again | the same | no change | - |
//! | `Loaded` | show read-only | `Dirty`, show writable | - | - | `Absent`, unmapped, frame freed | `Absent`, unless it was used lately; `Dirty` when a page table says that it was written |
//! | `Dirty` | show writable | the same | - | - | `Absent`, unmapped, frame freed, changes lost | no change |
//! | `WritingBack` | show writable | the same; written since | - | - | `WritingBackDiscarded`, unmapped | no change |
//! | `WritingBackDiscarded` | wait for the store's end | the same | - | - | no change | - |
//! | `Failed` | like `Absent` | like `Absent` | - | - | `Absent` | - |
//!
//! And writing out, of pages that have a pager:
//!
//! | state | store | store done | store failed | mark | discard | flush failed |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `Dirty`, never stored | `WritingBack` | - | - | `Loaded`, read-only | `Absent`, unmapped, frame freed | no change |
//! | `Dirty`, stored, not written since | `WritingBack` | - | - | `Loaded`, read-only; `Dirty`, written since, when a page table says that it was written | the same | `Dirty`, written since: so that no mark makes it clean |
//! | `Dirty`, stored, written since | `WritingBack` | - | - | no change | the same | no change |
//! | `WritingBack` | wait for the end, then store again | `Dirty`, stored | `Dirty`, written since: so that no mark makes it clean | no change | `WritingBackDiscarded` | no change |
//! | `WritingBackDiscarded` | no change | `Absent`, frame freed | the same | no change | no change | no change |
//! | `Loaded`, stored | no change | - | no change | no change | no change | `Dirty`, written since, if no flush covers its last store |
//! | all others | no change | - | - | no change | no change | no change |
//!
//! Of an overlay, which has only pages of its own here, see `vm_object/overlay`.
//!
//! A page that was stored, counts as clean and is written again is `Dirty`, stored, written since; also where it was
//! dropped or given back in between, and loaded again: what a mark does must not hang on that.
//!
//! And of private memory, where there is swap (see `private/swap`):
//!
//! | state | touch for reading | touch for writing | load done | load failed | evict | store done | store failed |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `Dirty` | show writable | the same | - | - | unless it was used lately: `SwappingOut`, unmapped | - | - |
//! | `Loaded` | show read-only | `Dirty`, its slot is free | - | - | the same: `SwappingOut`, and its slot still has it; if all stay and swap is full, `Dirty`, its slot is free | no change | `Dirty` |
//! | `SwappingOut` | `Loaded` where its slot has it or gets it, else `Dirty` | `Dirty` | - | - | no change | `Swapped`, frame freed | `Dirty` |
//! | `Swapped` | `SwappingIn`, one load, wait; `Dirty` where it is zeros | the same | - | - | - | - | - |
//! | `SwappingIn` | wait with the others | the same | `Loaded`, waiters look again | `Swapped`, waiters get the error | - | - | - |
//!
//! When all CPUs were waited for, a page that is `SwappingOut` becomes `Swapped` without being written where its slot has
//! it, or where it is zeros: `Absent`, if there are zeros below anyway. Else it is written.
//!
//! That is where each event leads in the end. A page does not change its frame while a CPU may still use the old one
//! (see `shootdown`), so eviction and dropping have two steps, and a state between them; marking has two, because a
//! CPU may write for as long as it remembers that it may:
//!
//! | state | touch for reading | touch for writing | drop | evict, mark | all CPUs were waited for |
//! | --- | --- | --- | --- | --- | --- |
//! | `Loaded`, used lately | show read-only | `Dirty` | `Dropped` | not used lately any more | - |
//! | `Loaded`, else | show read-only, used lately | `Dirty` | `Dropped` | `Loaded` and leaving, unmapped | - |
//! | `Loaded` and leaving | the same: the same frame is shown again | `Dirty`, the same frame | `Dropped` | no change | `Absent`, frame freed |
//! | `Dirty` | show writable | the same | `Dropped` | `Dirty` and cleaning, read-only | - |
//! | `Dirty` and cleaning | show read-only | `Dirty`, written since | `Dropped` | no change | `Loaded`; `Dirty`, written since, when a page table says that it was written |
//! | `Dropped` | wait for all CPUs, then like `Absent` | the same | no change | - | `Absent`, frame freed |
//!
//! `Dropped` has no frame, which is in quarantine; from outside it is `Absent`. Where no other CPU is busy, the second
//! step follows at once.
//!
//! `page_event` has these tables as code reads it, and what is recorded of a page is checked against that.
//!
//! '-' cannot happen: only a request's end is a 'load done' or 'store done', and only clean pages are listed for
//! eviction. The codes are 4 bits wide.
//!
//! # Who has written
//! A dirty page is shown writable, so its writes make no faults. Whether it was written since its store is what the
//! dirty bits of the page tables say: a store clears them, and waits until no CPU remembers that it has set one,
//! before the pager reads the frame. What a page table says when it stops showing the page is noted in the entry.

mod entry;

use core::fmt;

pub(crate) use entry::{
    ABSENT, BETWEEN, COPIED, COPIED_BITS, DIRTY, DISCARDED, DROPPED, FAILED, INVALIDATED, LOADED, LOADING,
    PageEntry, REFERENCED, STORED, SWAPPED, SWAPPING_IN, SWAPPING_OUT, WRITING_BACK, WRITTEN,
};

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
    /// The same, and a request to store it is with the pager.
    WritingBack {
        /// The number of the frame.
        frame: u64,
    },
    /// The changes are forgotten, but a pager may still read the frame, which nobody else sees.
    WritingBackDiscarded {
        /// The number of the frame.
        frame: u64,
    },
    /// The last load failed. The next touch tries again.
    Failed,
    /// Swap holds what no frame does.
    Swapped {
        /// Where; 0 where it is zeros, which take no slot.
        slot: u64,
    },
    /// The frame leaves for swap: no page table shows it.
    SwappingOut {
        /// The number of the frame.
        frame: u64,
    },
    /// The page is being read from swap.
    SwappingIn {
        /// Where it is.
        slot: u64,
    },
}

impl PageState {
    /// The frame of a page that has one.
    pub fn frame(self) -> Option<u64> {
        match self {
            PageState::Loaded { frame }
            | PageState::Dirty { frame }
            | PageState::WritingBack { frame }
            | PageState::WritingBackDiscarded { frame }
            | PageState::SwappingOut { frame } => Some(frame),
            PageState::Absent
            | PageState::Loading
            | PageState::LoadingInvalidated
            | PageState::Failed
            | PageState::Swapped { .. }
            | PageState::SwappingIn { .. } => None,
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
            PageState::WritingBack { .. } | PageState::WritingBackDiscarded { .. } => "writeback",
            PageState::Failed => "failed",
            PageState::Swapped { .. } => "swapped",
            PageState::SwappingOut { .. } => "swapping out",
            PageState::SwappingIn { .. } => "swapping in",
        })
    }
}
