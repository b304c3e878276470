//! What happens in `mm`, as fixed-size events for whoever records them: off by default.
//!
//! [`Memory::record_as`] turns it on, and each event goes to [`Hardware::record`](crate::Hardware::record), with spin
//! locks held. While it is off, an event costs one load and a branch. Every change of a page's state is told where the
//! entry is set (`page_index_map`), with its object's lock held: so the changes of one page are told in their order.

mod asked;
mod checker;

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

pub(crate) use asked::Asked;
pub use checker::{Checker, Impossible};

use crate::page_event::{self, Wrong};
use crate::page_state::{self, PageEntry};
use crate::{Memory, PageEvent, PageIndex, PhysAddr, VirtAddr};

/// Names an index of pages for good: an object, or one version of private memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ObjectName(u64);

/// The bit of those that are private.
const PRIVATE: u64 = 1 << 63;

impl ObjectName {
    pub(crate) fn object(number: u32) -> Self {
        Self(number.into())
    }

    /// Index `number` of some private memory.
    pub(crate) fn private(memory: u32, number: u32) -> Self {
        Self(PRIVATE | u64::from(memory & !(1 << 31)) << 32 | u64::from(number))
    }

    /// The name as a number, for a record.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The other way round.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 & PRIVATE {
            0 => write!(f, "object {}", self.0),
            _ => write!(f, "private {}.{}", (self.0 & !PRIVATE) >> 32, self.0 as u32),
        }
    }
}

/// The beginning of a pager's name, filled up with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerName([u8; 32]);

impl PagerName {
    pub(crate) fn new(name: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        Self(bytes)
    }

    /// Its bytes: where the name is longer, the last may be a part of a letter.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0);
        &self.0[..end.unwrap_or(self.0.len())]
    }
}

/// A page's state and its bits: what is known about it at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageWord(u64);

impl PageWord {
    /// As it is recorded.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The other way round. Any number is some word.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number of the frame, where the page has one.
    pub fn frame(self) -> Option<u64> {
        PageEntry::from_bits(self.0).state().frame()
    }

    /// Whether nothing is known: as each page is before its first change.
    pub fn is_absent(self) -> bool {
        self.0 == PageEntry::ABSENT.bits()
    }
}

impl fmt::Display for PageWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |bit| self.0 & bit != 0;
        let between = is(page_state::BETWEEN);
        f.write_str(match self.0 & 15 {
            page_state::DROPPED => "dropped",
            page_state::DISCARDED => "writeback, discarded",
            page_state::LOADED if between => "loaded, leaving",
            page_state::DIRTY if between => "dirty, cleaning",
            _ => return write!(f, "{}", PageEntry::from_bits(self.0).state()).and_then(|()| self.bits(f)),
        })?;
        self.bits(f)
    }
}

impl PageWord {
    fn bits(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (page_state::REFERENCED, "used"),
            (page_state::STORED, "stored"),
            (page_state::WRITTEN, "written"),
            (page_state::COPIED, "copied"),
        ];
        names.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

/// A page's state has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateChange {
    /// Whose page.
    pub object: ObjectName,
    /// Which.
    pub page: PageIndex,
    /// What it was.
    pub from: PageWord,
    /// Why.
    pub event: PageEvent,
    /// What it is.
    pub to: PageWord,
}

impl StateChange {
    /// Looks the change up in the table of states and events.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), Wrong> {
        page_event::check((self.from.0, self.from.frame()), self.event, (self.to.0, self.to.frame()))
    }
}

impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} of {}: {} -- {} --> {}", self.page, self.object, self.from, self.event, self.to)
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A page's state has changed.
    State(StateChange),
    /// An object is made over a pager.
    Made(ObjectName, PagerName),
    /// Pages that follow each other are handed to the object's pager.
    Request {
        /// Whose pages.
        object: ObjectName,
        /// Whether they are stored, or loaded.
        store: bool,
        /// The first of them.
        first: PageIndex,
        /// How many.
        pages: u64,
    },
    /// The pager is done with one of them. Told unless the object has ended before.
    Complete {
        /// Whose page.
        object: ObjectName,
        /// Whether it was stored, or loaded.
        store: bool,
        /// Which.
        page: PageIndex,
        /// Whether that has failed.
        failed: bool,
    },
    /// An object or a version ends, with all its pages.
    Ended(ObjectName),
    /// A fault has entered a page in a page table.
    Map {
        /// The table's root: the space.
        root: PhysAddr,
        /// Where.
        page: VirtAddr,
        /// The number of the frame that is shown.
        frame: u64,
        /// Whether it may be written.
        writable: bool,
    },
    /// Somebody waits for all CPUs from now on: the number of the wait.
    ShootdownBegin(u64),
    /// That is over.
    ShootdownEnd(u64),
    /// A clean page was given back.
    Evict {
        /// Whose page.
        object: ObjectName,
        /// Which.
        page: PageIndex,
    },
}

impl Memory {
    /// From now on events are told, with this number in front, which tells memories apart; 0 ends that.
    pub fn record_as(&self, number: u16) {
        self.recorded_as.store(number, Relaxed);
    }

    /// Whether events are told.
    #[inline]
    pub fn is_recorded(&self) -> bool {
        self.recorded_as.load(Relaxed) != 0
    }

    /// Tells an event, if events are recorded. It is made before that is known: where every instruction counts, ask
    /// first, and make it in a function of its own.
    #[inline]
    pub(crate) fn tell(&self, event: Event) {
        if self.is_recorded() {
            self.record(event);
        }
    }

    #[cold]
    #[inline(never)]
    fn record(&self, event: Event) {
        self.hardware().record(self.recorded_as.load(Relaxed), &event);
    }

    /// A fault has entered a page: what it takes is in registers, so that nothing of it costs anything while it is off.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_map(&self, root: PhysAddr, page: VirtAddr, frame: u64, writable: bool) {
        self.record(Event::Map { root, page, frame, writable });
    }
}

/// Whose pages an index has.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) memory: &'static Memory,
    pub(crate) name: ObjectName,
}

impl Owner {
    /// A page's entry was changed, and events are recorded. Not told where it is what it was.
    #[cold]
    #[inline(never)]
    pub(crate) fn changed(self, index: u64, from: PageEntry, event: PageEvent, to: PageEntry) {
        if from != to {
            let (from, to) = (PageWord(from.bits()), PageWord(to.bits()));
            let change = StateChange { object: self.name, page: PageIndex::new(index), from, event, to };
            self.memory.record(Event::State(change));
        }
    }
}
