//! Taking away what is mapped: unmap, protect, and the end of a space. What is done in pieces is in `pieces`.

use core::ops::Range;

use super::AddressSpace;
use super::pieces::{Clearing, Taking};
use crate::frame::Moment;
use crate::mapping::{Going, Mapping};
use crate::page_table::LOOKS;
use crate::{MapError, Protection, VirtAddr};

impl AddressSpace {
    /// Removes all mappings in `range`, or the parts of them that lie in it; where nothing is mapped,
    /// nothing happens. When it is done, no processor reaches the pages any more, and the range is free.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, and `NoMemory` where a mapping has to be split; nothing is
    /// changed then.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing. After the first poll faults find no mapping. Pages are taken out
    /// some at each poll; dropping the future takes the rest out at once. What follows happens without it as well, with
    /// help of the background task: the range is not free until all CPUs have forgotten the pages, and the mapping holds its
    /// object until somebody maps, unmaps or looks at the numbers after that, or the space ends.
    pub async fn unmap(&self, range: Range<VirtAddr>) -> Result<(), MapError> {
        self.mark(&range)?;
        if let Some(leaving) = self.clear_going(range).await {
            leaving.forgotten().await;
        }
        Ok(())
    }

    /// Unmaps all there is in one piece, for those who wait for the frames; the background task waits for other CPUs.
    pub(crate) fn empty_at_once(&self) {
        let marked = self.mark(&self.range);
        debug_assert!(marked.is_ok(), "a whole range is not split, so this needs no memory: {marked:?}");
        drop(Clearing::new(self, self.range.clone()));
    }

    /// Marks the mappings in a range, which no fault finds from now on.
    fn mark(&self, range: &Range<VirtAddr>) -> Result<(), MapError> {
        let mut mappings = self.mappings.lock();
        mappings.check(range)?;
        mappings.split(range.start, self.memory.number_mapping())?;
        mappings.split(range.end, self.memory.number_mapping())?;
        mappings.change_within(range, |mapping| {
            mapping.going.get_or_insert(Going::Marked);
        });
        self.table.advance_generation();
        Ok(())
    }

    /// Clears the mappings in a range that are marked, with others' turns between. `None` when there are none any more.
    ///
    /// What another has marked is cleared as well, and not waited for: it may be a thread that does not run.
    pub(super) async fn clear_going(&self, range: Range<VirtAddr>) -> Option<Leaving<'_>> {
        let mut clearing = Clearing::new(self, range);
        while clearing.some() {
            executor::yield_now().await;
        }
        clearing.cleared()
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

    /// Changes what may be done in `range`, all of which is mapped. When it is done, no processor can do
    /// more; what it may do in addition comes by faults. Waits for nothing where rights are only given, unless
    /// others are just being taken in this space.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `NotMapped`, and `NoMemory` where a mapping has to be
    /// split; nothing is changed then.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing. After the first poll the mappings are changed, and the tables with
    /// them some pages at each poll; dropping the future changes the rest at once. Other CPUs may do for a while what they
    /// remember that they may.
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
        let mut taking = Taking::new(self, range, protection);
        while taking.some() {
            executor::yield_now().await;
        }
        drop(taking);
        self.memory.settle().await;
        Ok(())
    }

    /// Takes rights from pages that are shown, as many as is done without giving up the lock. What is done is taken off the
    /// front of `rest`.
    pub(super) fn restrict_some(&self, rest: &mut Range<VirtAddr>, protection: Protection) {
        let mut tables = self.table.tables.lock();
        let mut looks = LOOKS;
        while let Some(page) = tables.next_present(rest, &mut looks) {
            if tables.restrict(page, protection) {
                self.memory.hardware().invalidate(self.table.root(), page);
            }
        }
    }

    /// Takes pages out of the tables, and leaves the mappings: the hardware has no way to forbid reading a page that is
    /// there. As much as is done without giving up the locks, which is taken off the front of `rest`.
    pub(super) fn hide_some(&self, rest: &mut Range<VirtAddr>) {
        let found = self.mappings.lock().within(rest).next().cloned();
        let Some(mapping) = found else { return rest.start = rest.end };
        let mut pages = mapping.start.max(rest.start)..mapping.end().min(rest.end);
        if mapping.shows.hide_some(&mapping, &mut pages, &self.table) {
            rest.start = if pages.is_empty() { mapping.end().min(rest.end) } else { pages.start };
        } else if mapping.going.is_some() {
            rest.start = mapping.end().min(rest.end);
        }
        // Else another has split it meanwhile, and it is looked for again.
    }
}

/// Mappings of a space that are cleared, and go when all CPUs have forgotten their pages.
pub(super) struct Leaving<'a> {
    pub(super) space: &'a AddressSpace,
    pub(super) at: Moment,
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
            mapping.shows.hide_range(&mapping, mapping.end(), &self.table);
            drop(mapping.shows.forget(&mapping));
        }
    }
}
