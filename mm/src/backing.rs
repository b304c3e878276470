//! What a mapping shows: an object that it shares, a version of private memory, or given frames.

use alloc::sync::Arc;
use core::ops::Range;

use executor::lock::Within;

use crate::mapping::Mapping;
use crate::private::{Ending, PrivateObject, VersionId};
use crate::reverse_map::{NoteRoom, ReverseMap, Shown};
use crate::settle::{Attempt, Commit, Offer};
use crate::table::Table;
use crate::vm_object::{Around, ObjectRoom};
use crate::{Advice, Frame, ManualObject, MapError, Memory, OutOfMemory, PageIndex, VirtAddr, VmObject};

#[derive(Clone, Debug)]
pub(crate) enum Backing {
    Shared(Arc<VmObject>),
    Private(Arc<PrivateObject>, VersionId),
    Manual(Arc<ManualObject>),
}

/// Memory to note one mapping wherever it has to be.
pub(crate) enum Rooms {
    Shared(ObjectRoom),
    Manual(NoteRoom),
    Private(NoteRoom<VersionId>, Option<ObjectRoom>),
}

impl Backing {
    /// Whether a fork gets its own copy.
    pub(crate) fn is_copied(&self) -> bool {
        matches!(self, Backing::Private(object, _) if !object.is_shared())
    }

    pub(crate) fn rooms(&self) -> Result<Rooms, OutOfMemory> {
        Ok(match self {
            Backing::Shared(object) => Rooms::Shared(object.room()?),
            Backing::Manual(_) => Rooms::Manual(ReverseMap::room()?),
            Backing::Private(object, _) => {
                let below = object.base().map(|base| base.object.room()).transpose()?;
                Rooms::Private(ReverseMap::room()?, below)
            }
        })
    }

    /// Notes a mapping of it, which is not entered in its space yet.
    pub(crate) fn note(&self, rooms: Rooms, mapping: &Mapping, table: &Arc<Table>) -> Result<(), MapError> {
        let Mapping { id, start, pages, first, .. } = *mapping;
        let below = Shown::new(pages, start, table.clone(), ());
        match (self, rooms) {
            (Backing::Shared(object), Rooms::Shared(room)) => object.note_mapping(room, id, first, below),
            (Backing::Manual(object), Rooms::Manual(room)) => object.note_mapping(room, id, first, below),
            (Backing::Private(object, version), Rooms::Private(room, room_below)) => {
                let shown = Shown::new(pages, start, table.clone(), *version);
                object.note_mapping(room, id, first, shown)?;
                match (object.base(), room_below) {
                    (Some(base), Some(room)) => base.object.note_mapping(room, id, base.first + first, below),
                    _ => Ok(()),
                }
            }
            _ => unreachable!("the room is for this"),
        }
    }

    /// What follows after page `next` in the same object, for so many pages; fresh private memory where it is private and
    /// not shared.
    pub(crate) fn following(
        &self,
        memory: &'static Memory,
        next: u64,
        pages: u64,
    ) -> Result<(Self, u64), MapError> {
        let base = match self {
            Backing::Shared(object) => {
                check_pages(object, next, pages)?;
                return Ok((self.clone(), next));
            }
            Backing::Manual(object) => {
                object.check_pages(next, pages)?;
                return Ok((self.clone(), next));
            }
            Backing::Private(object, _) if object.is_shared() => {
                let is_within = object.has_pages(next, pages);
                return if is_within { Ok((self.clone(), next)) } else { Err(MapError::BeyondObject) };
            }
            Backing::Private(object, _) => object.base(),
        };
        let base = base.map_or(Ok(None), |base| base.from(next, pages))?;
        let (object, version) = PrivateObject::try_new(memory, base, pages)?;
        Ok((Backing::Private(object, version), 0))
    }

    /// Forgets a mapping of private memory that has grown, and is noted anew.
    pub(crate) fn forget_covered(&self, mapping: &Mapping) {
        match self {
            Backing::Private(object, _) => object.forget_covered(mapping.id, mapping.first, mapping.pages),
            Backing::Shared(_) | Backing::Manual(_) => unreachable!("stacks are private memory over zeros"),
        }
    }

    /// Forgets a mapping whose pages are no longer shown. Answers what of private memory ends with that.
    pub(crate) fn forget(&self, mapping: &Mapping) -> Option<Ending> {
        let Mapping { id, pages, first, .. } = *mapping;
        match self {
            Backing::Shared(object) => {
                object.forget_mapping(id, first, pages);
                None
            }
            Backing::Manual(object) => {
                object.forget_mapping(id, first, pages);
                None
            }
            Backing::Private(object, _) => {
                if let Some(base) = object.base() {
                    base.object.forget_mapping(id, base.first + first, pages);
                }
                object.forget_mapping(id, first, pages)
            }
        }
    }

    /// Replaces a mapping by its two parts: the first `before` pages keep the number.
    pub(crate) fn split(&self, rooms: [Rooms; 2], mapping: &Mapping, before: u64, second: u64) {
        let Mapping { id, pages, first, .. } = *mapping;
        match (self, rooms) {
            (Backing::Shared(object), [Rooms::Shared(one), Rooms::Shared(two)]) => {
                object.split_mapping([one, two], id, first, pages, before, second);
            }
            (Backing::Manual(object), [Rooms::Manual(one), Rooms::Manual(two)]) => {
                object.split_mapping([one, two], mapping, before, second);
            }
            (
                Backing::Private(object, _),
                [Rooms::Private(one, one_below), Rooms::Private(two, two_below)],
            ) => {
                if let (Some(base), Some(one), Some(two)) = (object.base(), one_below, two_below) {
                    base.object.split_mapping([one, two], id, base.first + first, pages, before, second);
                }
                object.split_mapping([one, two], id, first, pages, before, second);
            }
            _ => unreachable!("the rooms are for this"),
        }
    }

    /// Takes the pages of a mapping that lie before `end` out of its page table; see [`VmObject::hide_some`].
    pub(crate) fn hide_range(&self, mapping: &Mapping, end: VirtAddr, table: &Table) -> bool {
        let mut rest = mapping.start..end;
        while !rest.is_empty() {
            if !self.hide_some(mapping, &mut rest, table) {
                return false;
            }
        }
        true
    }

    /// The part of `hide_range` that is done without giving up the locks.
    pub(crate) fn hide_some(&self, mapping: &Mapping, rest: &mut Range<VirtAddr>, table: &Table) -> bool {
        match self {
            Backing::Shared(object) => object.hide_some(mapping, rest, table),
            Backing::Private(object, _) => object.hide_some(mapping, rest, table),
            Backing::Manual(object) => object.hide_some(mapping, rest, table),
        }
    }

    /// Whether a page has a frame of its own now; see [`AddressSpace::resident`](crate::AddressSpace::resident).
    pub(crate) fn is_resident(&self, index: u64) -> bool {
        match self {
            Backing::Shared(object) => object.is_resident(index),
            Backing::Private(object, version) => object.is_resident(*version, index),
            Backing::Manual(object) => object.address(PageIndex::new(index)).is_some(),
        }
    }

    /// The page of an object that a page shows, with a frame or not, an overlay's base's where that has none; `None`
    /// for private pages and given frames.
    pub(crate) fn object_page(&self, index: u64) -> Option<(Arc<VmObject>, u64)> {
        let (object, index) = self.page_below(index)?;
        Some((object.below(index).cloned().unwrap_or(object), index))
    }

    /// The same without a look at what an overlay has.
    pub(crate) fn page_below(&self, index: u64) -> Option<(Arc<VmObject>, u64)> {
        match self {
            Backing::Shared(object) => Some((object.clone(), index)),
            Backing::Private(object, version) => object.page_below(*version, index),
            Backing::Manual(_) => None,
        }
    }

    /// Makes a page that is in memory the first that reclaim looks at, as not used lately.
    pub(crate) fn cool(&self, index: u64) {
        if let Backing::Private(object, version) = self
            && object.cool(*version, index)
        {
            return;
        }
        if let Some((object, index)) = self.object_page(index) {
            object.cool(index);
        }
    }

    /// Whether pages are shown along with their neighbours: those of an object whose pager takes several at once.
    pub(crate) fn has_neighbours(&self) -> bool {
        let object = match self {
            Backing::Shared(object) => Some(object),
            Backing::Private(object, _) => object.base().map(|base| &base.object),
            Backing::Manual(_) => None,
        };
        object.is_some_and(|object| object.pages_at_once() > 1)
    }

    /// Shows those of the pages that are there and an object's.
    pub(crate) fn show_around(&self, around: &Around, table: &Table) {
        match self {
            Backing::Shared(object) => object.show_around(around, table),
            Backing::Private(object, version) => object.show_around(*version, around, table),
            Backing::Manual(_) => {}
        }
    }

    /// Looks whether a page is there; see [`VmObject::touch`].
    #[inline]
    pub(crate) fn touch(
        &self,
        index: u64,
        write: bool,
        advice: Advice,
        spare: &mut Option<Frame>,
        commit: impl FnOnce(Offer, &mut Option<Frame>) -> Attempt,
    ) -> Attempt {
        match self {
            Backing::Shared(object) => {
                object.touch_advised(index, write, advice, spare, |frame, writable, spare| {
                    commit(Offer::new(frame, writable), spare)
                })
            }
            Backing::Private(object, version) => object.touch(*version, index, write, advice, spare, commit),
            Backing::Manual(object) => object
                .touch(index, spare, |frame, writable, spare| commit(Offer::new(frame, writable), spare)),
        }
    }

    /// The same without loads, with a lock held; see [`VmObject::touch_at_once`].
    #[inline]
    pub(crate) fn touch_at_once(
        &self,
        index: u64,
        write: bool,
        within: Within<'_>,
        commit: impl Commit,
    ) -> Attempt {
        let spare = &mut None;
        match self {
            // That may be the time to read on, which is a pager's business.
            Backing::Shared(object) if object.is_in_ranges() => Attempt::Again,
            Backing::Shared(object) => {
                object.touch_at_once(index, write, within, spare, |frame, writable, spare| {
                    commit.commit(Offer::new(frame, writable), spare)
                })
            }
            Backing::Private(object, version) => {
                object.touch_at_once(*version, index, write, within, spare, commit)
            }
            Backing::Manual(object) => object.touch(index, spare, |frame, writable, spare| {
                commit.commit(Offer::new(frame, writable), spare)
            }),
        }
    }
}

/// Checks that an object has these pages.
pub(crate) fn check_pages(object: &VmObject, first: u64, pages: u64) -> Result<(), MapError> {
    let end = first.checked_add(pages).filter(|&end| end <= object.pages());
    end.map(drop).ok_or(MapError::BeyondObject)
}
