//! Replaying recorded events against the table of states and events.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;

use super::{Event, ObjectName, PageWord, StateChange};
use crate::page_event::Wrong;
use crate::{PageEvent, PageIndex};

/// Changes that are kept of each page.
const HISTORY: usize = 8;

/// What has become of one page.
#[derive(Clone, Copy)]
struct Page {
    now: PageWord,
    /// The latest changes, the latest last.
    history: [Option<(PageEvent, PageWord)>; HISTORY],
}

/// Follows the pages of any number of memories by their recorded events, and finds the first change that the table of
/// states and events does not have, or that does not begin where the last one ended. For the host: it allocates.
#[derive(Default)]
pub struct Checker {
    pages: BTreeMap<(u16, ObjectName, PageIndex), Page>,
    /// Whether nothing is missing: then a page that was never heard of is absent.
    complete: bool,
    changes: u64,
}

/// A change that cannot have happened.
#[derive(Clone)]
pub struct Impossible {
    change: StateChange,
    /// What is wrong with it; `None`: the page was in another state.
    wrong: Option<Wrong>,
    expected: PageWord,
    history: [Option<(PageEvent, PageWord)>; HISTORY],
}

impl Checker {
    /// For events of which some may be missing at the beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// For all events of memories, from their first on.
    pub fn from_the_start() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// How many changes were followed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Events were lost: nothing is known of any page.
    pub fn lost(&mut self) {
        self.complete = false;
        self.pages.clear();
    }

    /// Follows the next event of a memory.
    ///
    /// # Errors
    /// The change that is impossible, with what came before it. The checker goes on from there.
    pub fn follow(&mut self, memory: u16, event: &Event) -> Result<(), Box<Impossible>> {
        match event {
            Event::State(change) => self.change(memory, change),
            Event::Ended(object) => {
                let first = (memory, *object, PageIndex::new(0));
                let its = |key: &(u16, ObjectName, PageIndex)| (key.0, key.1) == (memory, *object);
                while let Some((&key, _)) = self.pages.range(first..).next().filter(|(key, _)| its(key)) {
                    self.pages.remove(&key);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, memory: u16, change: &StateChange) -> Result<(), Box<Impossible>> {
        self.changes += 1;
        let key = (memory, change.object, change.page);
        let absent = PageWord::from_bits(0);
        let unknown =
            Page { now: if self.complete { absent } else { change.from }, history: [None; HISTORY] };
        let mut page = self.pages.get(&key).copied().unwrap_or(unknown);
        let (expected, history) = (page.now, page.history);
        page.now = change.to;
        page.history.rotate_left(1);
        page.history[HISTORY - 1] = Some((change.event, change.to));
        if change.to.is_absent() && self.complete {
            self.pages.remove(&key);
        } else {
            self.pages.insert(key, page);
        }
        let impossible = |wrong| Box::new(Impossible { change: *change, wrong, expected, history });
        if expected != change.from {
            return Err(impossible(None));
        }
        change.check().map_err(|wrong| impossible(Some(wrong)))
    }
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "impossible: {}", self.change)?;
        match self.wrong {
            Some(wrong) => write!(f, ": {wrong}")?,
            None => write!(f, ": the page was {}", self.expected)?,
        }
        if let (Some(before), Some(after)) = (self.change.from.frame(), self.change.to.frame()) {
            write!(f, " (frames {before:#x}, {after:#x})")?;
        }
        f.write_str("; before:")?;
        if self.history.iter().all(Option::is_none) {
            f.write_str(" nothing")?;
        }
        self.history.iter().flatten().try_for_each(|(event, to)| write!(f, " {event} -> {to};"))
    }
}

impl fmt::Debug for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
