//! Memory that no pager has and that several spaces show: private memory with one version, which forks show as well.
//!
//! So all that is true of a version's pages, swap included, is true of these. The version has one user for each mapping, and
//! one for each [`SharedMemory`], and ends with the last.

use alloc::sync::Arc;
use core::fmt;

use super::{Ending, PrivateObject, VersionId};
use crate::vm_object::MOST_PAGES;
use crate::{Memory, OutOfMemory};

/// Memory that is zero until it is written, and the same in all spaces that map it: see
/// [`AddressSpace::map_shared`](crate::AddressSpace::map_shared). Where there is swap its pages go there, which those of
/// [`VmObject::zero`](crate::VmObject::zero) do not.
///
/// What is in it stays as long as this or a mapping.
pub struct SharedMemory {
    object: Arc<PrivateObject>,
    version: VersionId,
}

impl SharedMemory {
    /// Memory of `pages` pages, at most 2^51.
    ///
    /// # Errors
    /// [`OutOfMemory`] for more pages, or when the heap is full.
    pub fn try_new(memory: &'static Memory, pages: u64) -> Result<Self, OutOfMemory> {
        if pages > MOST_PAGES {
            return Err(OutOfMemory);
        }
        let (object, version) = PrivateObject::make(memory, None, pages, true)?;
        object.inner.lock().versions.add_user(version);
        Ok(Self { object, version })
    }

    /// How many pages it has, present or not.
    pub fn pages(&self) -> u64 {
        self.object.pages
    }

    /// What a mapping of it shows.
    pub(crate) fn shown(&self) -> (Arc<PrivateObject>, VersionId) {
        (self.object.clone(), self.version)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let ended = self.object.inner.lock().versions.remove_user(self.version);
        drop(ended.map(|ended| Ending::new(&self.object, ended)));
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} pages)", self.pages())
    }
}

impl PrivateObject {
    /// Whether all forks show its one version.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether a range is within it.
    pub(crate) fn has_pages(&self, first: u64, pages: u64) -> bool {
        first.checked_add(pages).is_some_and(|end| end <= self.pages)
    }
}
