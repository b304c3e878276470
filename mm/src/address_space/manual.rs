//! Given frames in a space. What meets what is in `crate::manual`.

use alloc::sync::Arc;

use super::AddressSpace;
use super::mappings::distance;
use crate::backing::Backing;
use crate::{Frame, ManualObject, MapError, PageIndex, Placement, Protection, VirtAddr};

impl AddressSpace {
    /// Maps `pages` pages of `object` from `first` on, and says where. They show the frames that the object has, and those
    /// that it is given later; a page without one is denied with [`Denial::ManualPageMissing`](crate::Denial). A fork shows
    /// the same object. Never waits.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `Overlap`, `BeyondObject`, `NoSpace`, `NoMemory`; nothing is
    /// mapped then.
    pub fn map_manual(
        &self,
        object: &Arc<ManualObject>,
        first: PageIndex,
        pages: u64,
        protection: Protection,
        placement: Placement,
    ) -> Result<VirtAddr, MapError> {
        self.enter(Backing::Manual(object.clone()), first.as_u64(), pages, protection, placement)
    }

    /// Replaces the frame of the page that is shown at `page`, for all who show it: [`ManualObject::replace`], by address.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`, `NotMapped`, `NotManual`; then nothing is changed, and `frame` is freed.
    ///
    /// # Cancellation
    /// As for `replace`.
    pub async fn remap_manual(
        &self,
        page: VirtAddr,
        frame: Option<Frame>,
    ) -> Result<Option<Frame>, MapError> {
        let (object, index) = {
            let mappings = self.mappings.lock();
            if !page.is_page_aligned() {
                return Err(MapError::Unaligned);
            }
            if page < self.range.start || page >= self.range.end {
                return Err(MapError::OutOfRange);
            }
            let mapping = mappings.at(page).filter(|mapping| mapping.going.is_none());
            let mapping = mapping.ok_or(MapError::NotMapped)?;
            let Backing::Manual(object) = &mapping.shows else { return Err(MapError::NotManual) };
            (object.clone(), mapping.first + distance(mapping.start, page))
        };
        object.replace(PageIndex::new(index), frame).await
    }
}
