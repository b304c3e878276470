//! Private memory: what an address space changes for itself, over zeros or over another object's pages, and forks.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | fault, fault on one page of a version | the second finds what the first has made |
//! | fault, fork | one comes before the other, by the object's lock. A page that is found in the past is shown read-only, whoever looks |
//! | write, fork by another CPU of the same space | a page of the past is copied, or taken, when no CPU can write to it any more: until then the fault waits |
//! | copy, reads by other CPUs of the same space | the old page is taken out of the tables, and the new one is shown when no CPU remembers the old one: no thread sees an older page than another. One that reclaim has just taken out counts as shown |
//! | write, write of two versions to one page | the first copies, the second finds that nobody else sees the old page and takes it |
//! | end of a version, fault in its twin | the past is merged with the twin under the lock, in steps each of which leaves every page where it is found |
//! | end of a version, write of another that sees its pages | a CPU may still remember them: the other reads, or copies, and writes to what it has of them, or takes, when no CPU does |
//! | change, load or eviction of a page of the object below | under that object's lock, which is taken after this one's; its mappings are noted there, too |
//! | large page (512 at once), anything | under the object's lock: all 512 are entered, or none because one is there. Afterwards each is a page like others |
//! | unmap, anything | as for other objects: pages are entered only while the mapping is what it was |
//! | anything, another space that shows the same version (`shared`) | as another mapping of one space: a version's pages are taken out of all tables that show it, and all CPUs are waited for |

mod copy;
mod ending;
mod large;
mod leave;
mod needed;
mod neighbours;
mod shared;
mod shown;
mod swap;
#[cfg(test)]
mod tests;
mod touch;
mod versions;

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::AtomicU64;

use executor::lock::SpinLock;

use crate::address::PAGE_BYTES;
use crate::fallible::room_for_arc;
use crate::frame::Moment;
use crate::page_state::PageEntry;
use crate::reverse_map::ReverseMap;
use crate::swap::PrivateRoom;
use crate::vm_object::Streams;
use crate::{Frame, MapError, Memory, OutOfMemory, VmObject};

pub(crate) use ending::Ending;
pub use shared::SharedMemory;
use swap::Swaps;
use versions::Versions;
pub(crate) use versions::{PARTS, VersionId};

/// Pages to merge before the lock is given up for a moment.
const BATCH: usize = 64;
/// Pages that are counted with one hold of the lock.
const PAGES_COUNTED: u64 = 1024;

/// Private memory of one mapping, and of all its forks.
pub(crate) struct PrivateObject {
    memory: &'static Memory,
    pages: u64,
    /// What it shows until it is written: an object from a page on, or zeros.
    base: Option<Base>,
    /// As of a `VmObject`: since when pages that were hidden by a change of rights are in no page table.
    left: AtomicU64,
    /// Whether forks show its one version, and do not get their own; see `shared`.
    is_shared: bool,
    inner: SpinLock<Inner>,
}

pub(crate) struct Base {
    pub(crate) object: Arc<VmObject>,
    pub(crate) first: u64,
    /// The bytes of the private memory that are the object's; what is beside them in their first and last page is zero.
    /// Their end may lie beyond the memory's.
    pub(crate) bytes: Range<u64>,
}

impl Base {
    /// An object's pages as they are.
    pub(crate) fn whole(object: Arc<VmObject>, first: u64) -> Self {
        Self { object, first, bytes: 0..u64::MAX }
    }

    /// Which bytes of a page are the object's. A page of which not all are cannot be shown as it is.
    fn part_of(&self, index: u64) -> Range<usize> {
        let within = |byte: u64| byte.saturating_sub(index * PAGE_BYTES).min(PAGE_BYTES) as usize;
        within(self.bytes.start)..within(self.bytes.end)
    }

    /// The same object from a page of the private memory on, for so many pages; `None` if there are only zeros.
    ///
    /// # Errors
    /// `BeyondObject` if it has fewer pages, or only some of them are zeros.
    pub(crate) fn from(&self, next: u64, pages: u64) -> Result<Option<Self>, MapError> {
        let left = self.bytes.end.saturating_sub(next * PAGE_BYTES);
        if left == 0 {
            return Ok(None);
        }
        let first = self.first + next;
        let end = first.checked_add(pages).filter(|&end| end <= self.object.pages());
        if end.is_none() || left.div_ceil(PAGE_BYTES) < pages {
            return Err(MapError::BeyondObject);
        }
        Ok(Some(Self { object: self.object.clone(), first, bytes: 0..left }))
    }
}

/// What the object's lock guards.
struct Inner {
    versions: Versions,
    mappings: ReverseMap<VersionId>,
    /// How pages come back from swap.
    streams: Streams,
    swaps: Swaps,
}

impl PrivateObject {
    /// Private memory of `pages` pages with one version, which is nobody's yet.
    pub(crate) fn try_new(
        memory: &'static Memory,
        base: Option<Base>,
        pages: u64,
    ) -> Result<(Arc<Self>, VersionId), OutOfMemory> {
        Self::make(memory, base, pages, false)
    }

    fn make(
        memory: &'static Memory,
        base: Option<Base>,
        pages: u64,
        is_shared: bool,
    ) -> Result<(Arc<Self>, VersionId), OutOfMemory> {
        let (versions, first) = Versions::try_new(memory, pages)?;
        let room = PrivateRoom::try_new()?;
        room_for_arc::<Self>()?;
        let (mappings, streams) = (ReverseMap::default(), Streams::default());
        let inner = Inner { versions, mappings, streams, swaps: Swaps::default() };
        let inner = SpinLock::new("private object", inner);
        let object = Arc::new(Self { memory, pages, base, left: AtomicU64::new(0), is_shared, inner });
        object.name(room);
        Ok((object, first))
    }

    pub(crate) fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The frame of a page that was changed, as a version sees it.
    pub(crate) fn frame(&self, version: VersionId, index: u64) -> Option<u64> {
        self.inner.lock().versions.frame(version, index)
    }

    /// The pages that a version has, and its share of those that it sees with others, divided among the mappings that
    /// show it; in parts of a page, of which [`PARTS`] are one. Those that swap holds are among them only if that counts.
    /// Then they are looked at, some with each hold of the lock: so what changes meanwhile may count or not.
    pub(crate) fn pages_held(&self, version: VersionId, swap_counts: bool) -> u64 {
        if swap_counts {
            return self.inner.lock().versions.pages_held(version, None);
        }
        let (mut held, mut from) = (0, 0);
        loop {
            let inner = self.inner.lock();
            let Some(first) = inner.versions.next_held(version, from) else { return held };
            from = first + PAGES_COUNTED;
            held += inner.versions.pages_held(version, Some(&(first..from)));
        }
    }

    /// A twin of a version, for the space that is forked off; see [`Versions::fork`].
    pub(crate) fn fork(&self, version: VersionId, number: u64) -> Result<VersionId, OutOfMemory> {
        self.inner.lock().versions.fork(version, number)
    }

    /// No page table has shown what the version had at its fork as writable since this moment.
    pub(crate) fn settle(&self, version: VersionId, number: u64, at: Moment) {
        self.inner.lock().versions.settle(version, number, at);
    }

    /// Ends a version that no mapping shows: a fork that could not be done.
    pub(crate) fn end_unused(self: &Arc<Self>, version: VersionId) {
        let ended = self.inner.lock().versions.end_unused(version);
        drop(ended.map(|ended| Ending::new(self, ended)));
    }

    /// A page that nobody sees any more: its slot goes back, and its frame, which a CPU may still remember.
    fn give_up(&self, swaps: &Swaps, entry: PageEntry) -> Option<Moment> {
        let frame = match swaps.area {
            Some(area) => area.give_up(entry),
            None => entry.frame(),
        };
        let frame = Frame::from_number(self.memory.frames(), frame?);
        Some(self.memory.frames().quarantine(frame))
    }
}

impl Drop for PrivateObject {
    fn drop(&mut self) {
        self.memory.unregister_private(self.inner.get_mut().swaps.name);
    }
}

impl fmt::Debug for PrivateObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateObject({} pages)", self.pages)
    }
}
