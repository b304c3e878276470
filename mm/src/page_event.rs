//! What happens to a page; `table` has what each event may lead to.

mod table;

use core::fmt;

pub use table::Wrong;
pub(crate) use table::check;

/// What has changed a page's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageEvent {
    /// A touch for reading, or one for writing that has not been done yet.
    Read,
    /// A touch for writing.
    Write,
    /// The page is read ahead: nobody has touched it.
    Ahead,
    /// A page table says that the page was written.
    Noted,
    /// The pager has filled the frame.
    LoadDone,
    /// The pager could not.
    LoadFailed,
    /// The page is released or invalidated.
    Drop,
    /// Its changes are forgotten.
    Discard,
    /// Reclaim has come to it.
    Evict,
    /// A store begins.
    Store,
    /// The pager has stored it.
    StoreDone,
    /// The pager could not.
    StoreFailed,
    /// It is to count as clean.
    Mark,
    /// All CPUs were waited for.
    Forgotten,
    /// An overlay's page becomes its base's.
    Fold,
    /// A page of private memory goes to another version, or takes its place there.
    Move,
    /// No mapping shows the page of private memory any more.
    Unshown,
    /// Another object over the same pager has stored the page.
    Overwritten,
    /// A flush has failed that was to make its last store durable.
    NotDurable,
}

/// All of them, in the order of their numbers.
const EVENTS: [PageEvent; 19] = [
    PageEvent::Read,
    PageEvent::Write,
    PageEvent::Ahead,
    PageEvent::Noted,
    PageEvent::LoadDone,
    PageEvent::LoadFailed,
    PageEvent::Drop,
    PageEvent::Discard,
    PageEvent::Evict,
    PageEvent::Store,
    PageEvent::StoreDone,
    PageEvent::StoreFailed,
    PageEvent::Mark,
    PageEvent::Forgotten,
    PageEvent::Fold,
    PageEvent::Move,
    PageEvent::Unshown,
    PageEvent::Overwritten,
    PageEvent::NotDurable,
];

impl PageEvent {
    /// The event with this number, the other way round of `event as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        EVENTS.get(usize::from(number)).copied()
    }

    /// All events, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        EVENTS.into_iter()
    }

    /// A touch.
    pub(crate) fn touch(write: bool) -> Self {
        if write { Self::Write } else { Self::Read }
    }
}

impl fmt::Display for PageEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ahead => "read ahead",
            Self::Noted => "written by a CPU",
            Self::LoadDone => "load done",
            Self::LoadFailed => "load failed",
            Self::Drop => "drop",
            Self::Discard => "discard",
            Self::Evict => "evict",
            Self::Store => "store",
            Self::StoreDone => "store done",
            Self::StoreFailed => "store failed",
            Self::Mark => "mark",
            Self::Forgotten => "all CPUs waited for",
            Self::Fold => "fold",
            Self::Move => "move",
            Self::Unshown => "unshown",
            Self::Overwritten => "overwritten in the pager",
            Self::NotDurable => "not durable",
        })
    }
}
