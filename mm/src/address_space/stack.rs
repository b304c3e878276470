//! Stacks: mappings that grow down when they are touched below their lowest page, as far as a limit.
//!
//! A stack is private memory of as many pages as it may have, of which the mapping shows the last ones; so growing moves
//! the mapping's start and takes memory for its note, and nothing else.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | growth, growth | one after the other, by the space's lock: the second finds the page mapped |
//! | growth, commit of another fault in the stack | a page keeps its number in the private memory: what was peeked stays true |
//! | growth, map | the first takes the page. What is mapped at a fixed place may lie in the room that is left: the stack stops a page above it |
//! | growth, fork | one after the other; each side's stack grows for itself |
//! | growth, unmap or protect of a part | the mapping is split, and the lowest part is the one that grows. When it is gone, the stack is as large as it will be |

use core::ops::Range;

use super::AddressSpace;
use super::fault::check_rights;
use super::mappings::Mappings;
use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::mapping::Mapping;
use crate::private::PrivateObject;
use crate::{Denial, Fault, MapError, Protection, VirtAddr};

impl AddressSpace {
    /// Maps a stack: the `pages` pages at the end of `room`, zero until they are written, and private. It grows down, page
    /// by page or by many at once, to the page that is touched, as far as the start of `room`; at least one page between
    /// it and what is mapped below stays free, and a touch of that is [`Denial::StackOverflow`]. Mappings that are
    /// placed anywhere stay out of its room; one at a fixed place may be in what is left of it.
    ///
    /// A fork has the same stack, which grows for itself. Never waits.
    ///
    /// # Errors
    /// `Empty` (also for no pages), `Unaligned`, `WrapsAround`, `OutOfRange`, `BeyondLimit` for more pages than
    /// `room` has, `Overlap` if anything is mapped in it, `NoMemory`; nothing is mapped then.
    pub fn set_stack(
        &self,
        room: Range<VirtAddr>,
        pages: u64,
        protection: Protection,
    ) -> Result<(), MapError> {
        self.remove_forgotten();
        let mut mappings = self.mappings.lock();
        mappings.check(&room)?;
        let limit = (room.end.as_u64() - room.start.as_u64()) / PAGE_BYTES;
        if pages == 0 {
            return Err(MapError::Empty);
        }
        let below = limit.checked_sub(pages).ok_or(MapError::BeyondLimit)?;
        mappings.check_free(room.start, limit)?;
        let (object, version) = PrivateObject::try_new(self.memory, None, limit)?;
        let shows = (Backing::Private(object, version), below);
        let start = room.start.page_add(below);
        let mut mapping = Mapping::new(self.memory.number_mapping(), (start, pages), shows, protection);
        mapping.grows_to = Some(room.start);
        mappings.prepare(mapping, 1)?.enter(&mut mappings, &self.table)
    }

    /// Lets a stack grow down to an address where nothing is mapped, if there is one above that may. Otherwise nothing
    /// happens.
    pub(super) fn grow_stack(
        &self,
        mappings: &mut Mappings,
        address: VirtAddr,
        fault: Fault,
    ) -> Result<(), Denial> {
        if mappings.at(address).is_some() {
            return Ok(());
        }
        let page = address.page_start();
        let Some(stack) = mappings.above(page).filter(|above| above.going.is_none()) else { return Ok(()) };
        let (start, Some(limit)) = (stack.start, stack.grows_to) else { return Ok(()) };
        if page.page_add(1) < limit {
            return Ok(());
        }
        let guard_is_free = mappings.end_below(page).is_none_or(|end| end.page_add(1) <= page);
        if page < limit || !guard_is_free {
            return Err(Denial::StackOverflow);
        }
        check_rights(stack, fault)?;
        mappings.grow_down(start, page, &self.table).map_err(|_| Denial::OutOfMemory)
    }
}
