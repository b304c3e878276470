//! Taking away what is mapped: unmap, protect, and the end of a space.

use core::ops::Range;

use super::AddressSpace;
use crate::frame::Moment;
use crate::mapping::{Going, Mapping};
use crate::page_table::LOOKS;
use crate::{MapError, Protection, VirtAddr};

impl AddressSpace {
    /// Removes all mappings in `range`, or the parts of them that lie in it; where nothing is mapped,
    /// nothing happens. When it is done, no processor reaches the pages any more, and the range is free.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, and `NoMemory` where a mapping has to be split; nothing is changed then.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing. After the first poll faults find no mapping, and what
    /// follows happens without the future as well, with help of the background task: the range is not free until
    /// all CPUs have forgotten the pages, and the mapping holds its object until somebody maps, unmaps or looks at
    /// the numbers after that, or the space ends.
    pub async fn unmap(&self, range: Range<VirtAddr>) -> Result<(), MapError> {
        if let Some(leaving) = self.clear(range)? {
            leaving.forgotten().await;
        }
        Ok(())
    }

    /// Marks the mappings in a range and clears their pages. `None` when there are none.
    ///
    /// What another has marked is cleared as well, and not waited for: it may be a thread that does not run.
    fn clear(&self, range: Range<VirtAddr>) -> Result<Option<Leaving<'_>>, MapError> {
        {
            let mut mappings = self.mappings.lock();
            mappings.check(&range)?;
            mappings.split(range.start, self.memory.number_mapping())?;
            mappings.split(range.end, self.memory.number_mapping())?;
            mappings.change_within(&range, |mapping| {
                mapping.going.get_or_insert(Going::Marked);
            });
            self.table.advance_generation();
        }
        Ok(self.clear_going(range))
    }

    /// Clears the mappings in a range that are marked. `None` when there are none any more.
    pub(super) fn clear_going(&self, range: Range<VirtAddr>) -> Option<Leaving<'_>> {
        let mut rest = range;
        let mut last = None;
        while !rest.is_empty()
            && let Some(mapping) = self.first_going(&rest)
        {
            rest.start = mapping.end();
            let at = match mapping.going {
                Some(Going::Cleared(at)) => Some(at),
                _ => self.take_down_and_note(&mapping),
            };
            last = last.max(at);
        }
        last.map(|at| Leaving { space: self, at })
    }

    /// Clears a mapping that is marked, and says since when it is cleared. `None` if it is gone meanwhile.
    pub(super) fn take_down_and_note(&self, mapping: &Mapping) -> Option<Moment> {
        self.take_down(mapping);
        self.mappings.lock().note_cleared(self.memory.frames(), mapping.start, mapping.id)
    }

    /// Removes the mappings whose pages all CPUs have forgotten.
    pub(super) fn remove_forgotten(&self) {
        loop {
            let forgotten = self.mappings.lock().take_forgotten(self.memory.frames());
            if forgotten.is_none() {
                return;
            }
        }
    }

    /// The first mapping that is being unmapped.
    pub(super) fn first_going(&self, range: &Range<VirtAddr>) -> Option<Mapping> {
        self.mappings.lock().within(range).find(|mapping| mapping.going.is_some()).cloned()
    }

    /// Clears a mapping's pages and makes its object forget it. Two may do so at a time, or one after the other.
    fn take_down(&self, mapping: &Mapping) {
        mapping.shows.hide_range(mapping, mapping.end(), &self.table);
        mapping.shows.forget(mapping);
    }

    /// Changes what may be done in `range`, all of which is mapped. When it is done, no processor can do
    /// more; what it may do in addition comes by faults. Waits for nothing where rights are only given, unless
    /// others are just being taken in this space.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `NotMapped`, and `NoMemory` where a mapping has to be split; nothing is
    /// changed then.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing. After the first poll the change is made, but other
    /// CPUs may do for a while what they remember that they may.
    pub async fn protect(&self, range: Range<VirtAddr>, protection: Protection) -> Result<(), MapError> {
        let less = {
            let mut mappings = self.mappings.lock();
            mappings.check_mapped(&range)?;
            mappings.split(range.start, self.memory.number_mapping())?;
            mappings.split(range.end, self.memory.number_mapping())?;
            let less = mappings.protect(self.memory.frames(), &range, protection);
            self.table.advance_generation();
            less
        };
        if !less {
            return Ok(());
        }
        if protection == (Protection { user: protection.user, ..Protection::default() }) {
            self.hide_all(range);
        } else {
            self.restrict(range, protection);
        }
        self.mappings.lock().note_taken(self.memory.frames());
        self.memory.settle().await;
        Ok(())
    }

    /// Takes rights from the pages that are shown.
    pub(super) fn restrict(&self, range: Range<VirtAddr>, protection: Protection) {
        let mut rest = range;
        while !rest.is_empty() {
            self.restrict_some(&mut rest, protection);
        }
    }

    /// The part of `restrict` that is done without giving up the lock. What is done is taken off the front of
    /// `rest`.
    pub(super) fn restrict_some(&self, rest: &mut Range<VirtAddr>, protection: Protection) {
        let mut tables = self.table.tables.lock();
        let mut looks = LOOKS;
        while let Some(page) = tables.next_present(rest, &mut looks) {
            if tables.restrict(page, protection) {
                self.memory.hardware().invalidate(self.table.root(), page);
            }
        }
    }

    /// Takes all pages out of the tables, and leaves the mappings: the hardware has no way to forbid
    /// reading a page that is there.
    pub(super) fn hide_all(&self, range: Range<VirtAddr>) {
        let mut rest = range;
        while !rest.is_empty() {
            let found = self.mappings.lock().within(&rest).next().cloned();
            let Some(mapping) = found else { return };
            let hidden = mapping.shows.hide_range(&mapping, mapping.end().min(rest.end), &self.table);
            // Another has split it meanwhile, or unmapped it: then it is looked for again, or cleared already.
            if hidden || mapping.going.is_some() {
                rest.start = mapping.end();
            }
        }
    }
}

/// Mappings of a space that are cleared, and go when all CPUs have forgotten their pages.
pub(super) struct Leaving<'a> {
    space: &'a AddressSpace,
    at: Moment,
}

impl Leaving<'_> {
    /// All CPUs have forgotten them, and they are gone.
    pub(super) async fn forgotten(self) {
        self.space.memory.forgotten(self.at).await;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.space.memory.forget_soon(self.at);
        self.space.remove_forgotten();
    }
}

impl Drop for AddressSpace {
    /// A processor may have the tables loaded still, or remember pages: the frames of tables and of objects that
    /// end go into quarantine.
    fn drop(&mut self) {
        while let Some(mapping) = self.mappings.get_mut().pop() {
            self.take_down(&mapping);
        }
    }
}
