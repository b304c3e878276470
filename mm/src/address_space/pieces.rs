//! What an unmapping or a protection takes out of the page tables, in pieces: others have their turn after 1,024 pages.
//!
//! | meets, between two pieces | what resolves it |
//! | --- | --- |
//! | fault in what is unmapped | it finds no mapping: all of them are marked before the first piece |
//! | fault in what is protected | it is allowed what the mapping says since before the first piece; what a page that comes later in turn still allows is as if the fault had come before the call |
//! | unmap of the same | does what is left in the tables, and so does the first; it may come to its end while the first still frees what was private |
//! | protect of the same that only gives rights | waits as if all rights were being taken until the last piece, see `Mappings::protect` |
//! | map at the same place | `Overlap` until all is cleared and forgotten |
//! | end of what was private | its pages go in pieces as well, before the mapping counts as cleared for whoever frees them |
//! | the future is dropped | what is left is done at once |

use core::ops::Range;

use super::AddressSpace;
use super::change::Leaving;
use crate::frame::Moment;
use crate::mapping::{Going, Mapping};
use crate::page_table::LOOKS;
use crate::private::Ending;
use crate::{Protection, VirtAddr};

/// Pages that are gone through in one poll, or few more.
const PAGES: usize = 1024;

/// Mappings that are marked and are being cleared. Dropping it clears the rest at once.
pub(super) struct Clearing<'a> {
    space: &'a AddressSpace,
    /// Where the next of them is looked for.
    rest: Range<VirtAddr>,
    now: Option<(Mapping, Stage)>,
    /// When the last of them was cleared.
    at: Option<Moment>,
}

/// How far one mapping is.
enum Stage {
    /// These pages are still in the tables.
    Hide(Range<VirtAddr>),
    /// No object lists it any more. What it had alone may be ending.
    Forgotten(Option<Ending>),
}

impl<'a> Clearing<'a> {
    pub(super) fn new(space: &'a AddressSpace, range: Range<VirtAddr>) -> Self {
        Self { space, rest: range, now: None, at: None }
    }

    /// One mapping that was marked when the caller looked.
    #[cfg(test)]
    pub(super) fn of(space: &'a AddressSpace, mapping: Mapping) -> Self {
        let (rest, pages) = (mapping.end()..mapping.end(), mapping.start..mapping.end());
        Self { space, rest, now: Some((mapping, Stage::Hide(pages))), at: None }
    }

    /// Does some of it. True if there is more.
    pub(super) fn some(&mut self) -> bool {
        let mut done = 0;
        while done < PAGES {
            match self.piece() {
                Some(pages) => done += pages,
                None => return false,
            }
        }
        true
    }

    /// Does a piece of it. Answers how many pages it has gone through; `None` when there is no more.
    fn piece(&mut self) -> Option<usize> {
        let Some((mapping, stage)) = &mut self.now else { return self.next() };
        match stage {
            // Two may do so at a time, or one after the other: then the object does not list it any more.
            Stage::Hide(pages) => {
                if !mapping.shows.hide_some(mapping, pages, &self.space.table) || pages.is_empty() {
                    *stage = Stage::Forgotten(mapping.shows.forget(mapping));
                }
                Some(LOOKS)
            }
            Stage::Forgotten(ending) => {
                let done = ending.as_mut().map_or(0, Ending::step);
                if ending.as_ref().is_some_and(|ending| !ending.is_over()) {
                    return Some(done);
                }
                let freed = ending.as_mut().and_then(Ending::take_last);
                let (start, id) = (mapping.start, mapping.id);
                self.now = None;
                let frames = self.space.memory.frames();
                let cleared = self.space.mappings.lock().note_cleared(frames, start, id);
                self.at = self.at.max(freed).max(cleared);
                Some(done)
            }
        }
    }

    /// Begins with the next mapping that is marked.
    fn next(&mut self) -> Option<usize> {
        let found = if self.rest.is_empty() { None } else { self.space.first_going(&self.rest) };
        let Some(mapping) = found else {
            self.rest.start = self.rest.end;
            return None;
        };
        self.rest.start = mapping.end().min(self.rest.end);
        match mapping.going {
            Some(Going::Cleared(at)) => self.at = self.at.max(Some(at)),
            _ => self.now = Some((mapping.clone(), Stage::Hide(mapping.start..mapping.end()))),
        }
        Some(0)
    }

    /// What is to be waited for, when all is done: [`Self::some`] has said so.
    pub(super) fn cleared(mut self) -> Option<Leaving<'a>> {
        self.at.take().map(|at| Leaving { space: self.space, at })
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        while self.some() {}
        drop(self.at.take().map(|at| Leaving { space: self.space, at }));
    }
}

/// Rights that are being taken out of the tables. Dropping it takes the rest at once, and notes that they are taken.
pub(super) struct Taking<'a> {
    space: &'a AddressSpace,
    rest: Range<VirtAddr>,
    protection: Protection,
}

impl<'a> Taking<'a> {
    /// The mappings say it already.
    pub(super) fn new(space: &'a AddressSpace, range: Range<VirtAddr>, protection: Protection) -> Self {
        Self { space, rest: range, protection }
    }

    /// Does some of it. True if there is more.
    pub(super) fn some(&mut self) -> bool {
        let nothing = Protection { user: self.protection.user, ..Protection::default() };
        for _ in 0..PAGES / LOOKS {
            if self.rest.is_empty() {
                return false;
            }
            if self.protection == nothing {
                self.space.hide_some(&mut self.rest);
            } else {
                self.space.restrict_some(&mut self.rest, self.protection);
            }
        }
        !self.rest.is_empty()
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        while self.some() {}
        self.space.mappings.lock().note_taken(self.space.memory.frames());
    }
}
