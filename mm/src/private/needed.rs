//! Pages on the swap disk that somebody will need soon: they are read before anybody touches them, and nobody waits.
//!
//! Such a page is as one that is read along with another: it takes a frame only if there is one to spare, its error is
//! nobody's, and it counts as not used. What it meets is in the table of `swap`.

use core::ops::Range;

use super::versions::VersionId;
use super::{BATCH, PrivateObject};
use crate::PageEvent;
use crate::page_state::PageState;
use crate::swap::{Reading, SwapArea};

impl PrivateObject {
    /// Begins to read those of these pages that are on the disk, those in a row together. Where frames are short, or much is
    /// being read already, the rest is left.
    pub(crate) fn begin_to_bring_back(&self, version: VersionId, pages: Range<u64>) {
        let mut from = pages.start;
        while from < pages.end {
            let mut some = from..pages.end.min(from + BATCH as u64);
            from = some.end;
            while let Some((area, read)) = self.begin_next(version, &mut some) {
                area.read(read);
            }
        }
    }

    /// The next read, if there is any; takes its pages, and what is before them, off the front.
    fn begin_next(&self, version: VersionId, rest: &mut Range<u64>) -> Option<(&'static SwapArea, Reading)> {
        let inner = &mut *self.inner.lock();
        let area = inner.swaps.area?;
        let (place, index, slot) = rest.find_map(|index| {
            let (place, entry) = inner.versions.find_place(version, index)?;
            match entry.state() {
                PageState::Swapped { slot } if slot != 0 => Some((place, index, slot)),
                _ => None,
            }
        })?;
        if area.reads_much() || !self.memory.hardware().heap_has_room() {
            return None;
        }
        let frame = self.memory.try_alloc_ahead()?;
        let most = (rest.end - index).min(area.slots_at_once());
        let pages = inner.in_a_row(version, (index, slot), most);
        let room = Reading::try_room(pages as usize - 1).ok()?;
        let page = self.begin_read(area, inner, (place, index, slot), PageEvent::Ahead, frame).ok()?;
        let mut read = Reading::new(inner.swaps.name, index, slot, page, room);
        self.read_along(area, inner, version, &mut read, pages);
        rest.start = index + read.len() as u64;
        Some((area, read))
    }
}
