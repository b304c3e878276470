//! Remapping: what is mapped somewhere is from now on mapped elsewhere, or is longer or shorter.
//!
//! Pages belong to objects and to versions of private memory, not to addresses. So a move enters a second mapping of the
//! same thing, and unmaps the first, in one step under the space's lock: what is resident is found at the new place by
//! the next touch, without a copy or a load, private and dirty pages included. The new place can be used at once; the call
//! is done when no CPU remembers the old one.
//!
//! What it meets is in the table of `address_space`.

use alloc::vec::Vec;
use core::ops::Range;

use super::AddressSpace;
use super::mappings::distance;
use crate::mapping::{Going, Mapping};
use crate::{MapError, OutOfMemory, Placement, VirtAddr};

impl AddressSpace {
    /// Moves what is mapped in `from` to a range of `pages` pages, and says where that is. `from` may be a part of a mapping,
    /// or several.
    ///
    /// - Placed anywhere, it stays where it is if it becomes shorter, or there is room behind it; else a place is found.
    /// - At a fixed place, that must be free. If it is where `from` starts, nothing is moved.
    /// - What it becomes longer by shows what follows in the last mapping's object; in anonymous memory, zeros. It is a
    ///   mapping of its own, with the last one's rights.
    /// - What it becomes shorter by is unmapped. A stack that is moved does not grow any more.
    ///
    /// When it is done, no processor reaches the pages by the old addresses, and these are free.
    ///
    /// # Errors
    /// `Empty` (also for no pages), `Unaligned`, `WrapsAround`, `OutOfRange`, `NotMapped`, `Overlap` (also of the two
    /// ranges), `BeyondObject`, `NoSpace`, `NoMemory`; nothing is changed then.
    ///
    /// # Cancellation
    /// A future that was never polled has changed nothing. After the first poll the new place is there, and for the old one
    /// it is as for [`unmap`](Self::unmap).
    pub async fn remap(
        &self,
        from: Range<VirtAddr>,
        pages: u64,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        let (start, old) = self.enter_anew(&from, pages, placement)?;
        if let Some(old) = old
            && let Some(leaving) = self.clear_going(old).await
        {
            leaving.forgotten().await;
        }
        Ok(start)
    }

    /// Enters what is mapped in `from` where it shall be, and marks what goes. Says where it starts, and what goes.
    fn enter_anew(
        &self,
        from: &Range<VirtAddr>,
        pages: u64,
        placement: Placement,
    ) -> Result<(VirtAddr, Option<Range<VirtAddr>>), MapError> {
        self.remove_forgotten();
        let mut mappings = self.mappings.lock();
        mappings.check_mapped(from)?;
        if pages == 0 {
            return Err(MapError::Empty);
        }
        let old = distance(from.start, from.end);
        let more = pages.saturating_sub(old);
        let start = match placement {
            Placement::Fixed(to) if to == from.start => {
                if more > 0 {
                    mappings.check_free(from.end, more)?;
                }
                to
            }
            Placement::Fixed(to) => {
                mappings.check_free(to, pages)?;
                to
            }
            Placement::Anywhere if more == 0 || mappings.check_free(from.end, more).is_ok() => from.start,
            Placement::Anywhere => mappings.find(pages)?,
        };
        let kept = from.start..from.start.page_add(pages.min(old));
        for end in [from.start, kept.end, from.end] {
            mappings.split(end, self.memory.number_mapping())?;
        }
        let mut prepared = Vec::new();
        if more > 0 {
            let last = mappings.last_in(from).ok_or(MapError::NotMapped)?;
            let shows = last.shows.following(self.memory, last.first + last.pages, more)?;
            let at = (start.page_add(old), more);
            let tail = Mapping::new(self.memory.number_mapping(), at, shows, last.protection);
            prepared.try_reserve(1).map_err(|_| OutOfMemory)?;
            prepared.push(mappings.prepare(tail, 1)?);
        }
        let mut at = kept.start;
        while start != from.start && at < kept.end {
            let mapping = mappings.at(at).cloned().ok_or(MapError::NotMapped)?;
            let moved = Mapping {
                id: self.memory.number_mapping(),
                start: start.page_add(distance(from.start, at)),
                grows_to: None,
                ..mapping
            };
            at = at.page_add(moved.pages);
            prepared.try_reserve(1).map_err(|_| OutOfMemory)?;
            prepared.push(mappings.prepare(moved, prepared.len() + 1)?);
        }
        // From here on nothing fails.
        for mapping in prepared {
            mapping.enter(&mut mappings, &self.table)?;
        }
        let goes = if start == from.start { kept.end..from.end } else { from.clone() };
        if goes.is_empty() {
            return Ok((start, None));
        }
        mappings.change_within(&goes, |mapping| {
            mapping.going.get_or_insert(Going::Marked);
        });
        self.table.advance_generation();
        Ok((start, Some(goes)))
    }
}
