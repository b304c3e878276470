//! Address spaces: what is mapped where, and what happens at a fault.
//!
//! A mapping is found under the space's lock; pages are entered and cleared under the object's and the
//! table's. Between the two stands the table's generation number, which grows under the space's lock
//! whenever a mapping goes or loses rights, before the tables are changed. A fault that is answered at once holds the
//! space's lock to its end instead.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | fault, map | the fault sees the mapping or not; a new mapping takes nothing from others |
//! | fault, unmap | unmap marks the mapping, advances the generation, then clears: a commit that looked before starts over or is cleared, one that looks later finds no mapping |
//! | fault, protect | the same; rights that a late commit entered are taken away by the clearing that follows |
//! | fault that is answered at once, map or unmap or protect | one after the other, by the space's lock |
//! | map, unmap of the same addresses | a mapping that is being unmapped still fills its range, so `map` answers `Overlap` until its pages are cleared and all CPUs were waited for |
//! | unmap, unmap | each clears all that is marked in its range and not cleared yet, by whomever, and waits for all CPUs since the last of it was cleared. Pages are taken out only while the object still lists the mapping, so the slower one does not harm what is mapped there next |
//! | protect, protect | one that only gives rights waits, too, while others that were taken may be remembered; while they are being taken, it takes them as well |
//! | unmap or protect of many pages, anything | in pieces, with others' turns between: see `pieces` |
//! | unmap, its future dropped | the mapping stays marked; the next who looks takes it out when all CPUs were waited for, see `shootdown` |
//! | unmap, protect | protect answers `NotMapped` for what is marked; else it takes rights from what is shown, and unmap clears it |
//! | remap, fault at the old place | as for unmap: the commit of one that looked before starts over and finds no mapping, or its page is cleared |
//! | remap, fault at the new place | the fault sees the mapping or not. The page may be remembered at its old place as well; a store, a mark, an eviction or a fork of it waits for all CPUs, and so for those. Of a private page that is copied meanwhile, they may read the older one at the old place until the call ends |
//! | remap, load under way | the load is the object's: whoever waits at the old place looks again and finds no mapping |
//! | remap, unmap or remap of the same | one after the other; what is going already is `NotMapped` |
//! | remap, protect | the same; rights move along, and those that are just being taken at the old place are not in the tables at the new one |
//! | remap, fork | one after the other: the twin has the new place, and what is going is left out. Private pages stay with their version, and the fork takes the right to write from both places |
//! | remap, map at the old place | `Overlap` until all CPUs have forgotten the old place |
//! | remap, its future dropped | as for unmap: the next who looks takes the old place out, when it is forgotten |
//! | advice, anything | what is noted changes nothing else; loads are as by a touch, drops as by reclaim |
//! | a given frame's replacement, anything | see `crate::manual` |
//! | growth of a stack, anything | see `stack` |
//! | fork, fault | the fault finds a page before the fork, or in the past that both see then; see `private` |
//! | fork, map or unmap or protect | one after the other, by the space's lock |
//! | end of the space, eviction | the object forgets the mappings under its lock; the tables live until the last holder lets go |
//! | end of the space, a CPU that has its tables loaded | the tables' frames are in quarantine until it has left them |
//!
//! What pages do to each other is in `vm_object`, what loads do in `page_request`.

mod advise;
mod change;
mod copy;
mod fault;
mod fork;
mod large;
mod manual;
mod map;
mod mappings;
mod part;
mod pieces;
mod ranges;
mod remap;
mod segments;
mod stack;
#[cfg(test)]
mod tests;
mod touch;

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use executor::lock::SpinLock;

use crate::backing::Backing;
use crate::fallible::room_for_arc;
use crate::private::PARTS;
use crate::table::Table;
use crate::{Memory, OutOfMemory, PageTable, PhysAddr, VirtAddr, Walk};

pub use copy::StrError;
pub use fault::{Access, Denial, Fault, FaultOutcome};
use mappings::Mappings;
pub use touch::TouchError;

/// A range of addresses, the mappings in it, and the page tables that show them to the processor.
pub struct AddressSpace {
    memory: &'static Memory,
    range: Range<VirtAddr>,
    table: Arc<Table>,
    mappings: SpinLock<Mappings>,
}

/// Numbers of an address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Mappings, with those that are being unmapped.
    pub mappings: usize,
    /// Pages that all mappings span.
    pub mapped_pages: u64,
    /// Of these, pages that show an object which others may show as well.
    pub shared_pages: u64,
    /// Of these, pages whose changes are the space's own.
    pub private_pages: u64,
    /// Of these, pages that show given frames, those without one included.
    pub manual_pages: u64,
    /// Pages that the page tables show now.
    pub resident_pages: u64,
    /// Page tables that were added to show pages, or are set aside for when a large page is split, a frame each. In
    /// the lower half they go when they are empty.
    pub tables: u64,
}

impl AddressSpace {
    /// An empty address space over `range`, which lies in one half and starts and ends at page boundaries.
    /// In the lower half, copies count as accesses by ring 3.
    ///
    /// The last page of either half cannot be part of it: the address after it is not canonical, or 0.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    ///
    /// # Panics
    /// When the range is empty, unaligned, or goes across the halves.
    pub fn try_new(
        memory: &'static Memory,
        table: PageTable,
        range: Range<VirtAddr>,
    ) -> Result<Arc<Self>, OutOfMemory> {
        assert!(range.start < range.end, "an address space has pages");
        assert!(range.start.is_page_aligned() && range.end.is_page_aligned());
        assert_eq!(range.start.is_upper_half(), range.end.is_upper_half());
        let mappings = SpinLock::new("address space", Mappings::new(range.clone()));
        room_for_arc::<Table>()?;
        let table = Arc::new(Table::new(table));
        room_for_arc::<Self>()?;
        Ok(Arc::new(Self { memory, range, table, mappings }))
    }

    /// Like [`try_new`](Self::try_new), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full, and as there.
    pub fn new(memory: &'static Memory, table: PageTable, range: Range<VirtAddr>) -> Arc<Self> {
        Self::try_new(memory, table, range).expect("there is memory for an address space")
    }

    /// The physical address of the page tables' root, for CR3.
    pub fn root(&self) -> PhysAddr {
        self.table.root()
    }

    /// The range that mappings lie in.
    pub fn range(&self) -> Range<VirtAddr> {
        self.range.clone()
    }

    /// What the page tables say about an address now.
    pub fn walk(&self, address: VirtAddr) -> Option<Walk> {
        self.table.tables.lock().walk(address)
    }

    /// The number of the frame that holds a page of private memory which was written, as this space sees it now,
    /// whether or not its page tables show it. After a fork several spaces see the same frame, until one of them
    /// writes. `None` where nothing is mapped, or what is shown is an object's or zeros.
    pub fn private_frame(&self, address: VirtAddr) -> Option<u64> {
        let (shows, index) = {
            let mappings = self.mappings.lock();
            let mapping = mappings.at(address).filter(|mapping| mapping.going.is_none())?;
            (mapping.shows.clone(), mapping.page_at(address))
        };
        match shows {
            Backing::Private(object, version) => object.frame(version, index),
            Backing::Shared(_) | Backing::Manual(_) => None,
        }
    }

    /// How many pages would come back if the space ended, at a guess: those that its tables show, or, if there are more,
    /// those of its private memory, also where swap holds them if that counts. What it shares after a fork counts half, and
    /// half of that after the next.
    pub(crate) fn pages_held(&self, swap_counts: bool) -> u64 {
        let shown = self.table.tables.lock().resident();
        let (mut private, mut rest) = (0, self.range.clone());
        loop {
            // What they show is counted without this lock, as there may be much of it.
            let next = {
                let mappings = self.mappings.lock();
                mappings.within(&rest).next().map(|mapping| (mapping.end(), mapping.shows.clone()))
            };
            let Some((end, shows)) = next else { return shown.max(private / PARTS) };
            if let Backing::Private(object, version) = shows {
                private += object.pages_held(version, swap_counts);
            }
            rest.start = end;
        }
    }

    /// The space's numbers now.
    pub fn stats(&self) -> SpaceStats {
        self.remove_forgotten();
        let (mappings, pages) = {
            let mappings = self.mappings.lock();
            (mappings.len(), mappings.pages)
        };
        let tables = self.table.tables.lock();
        SpaceStats {
            mappings,
            mapped_pages: pages.shared + pages.private + pages.manual,
            shared_pages: pages.shared,
            private_pages: pages.private,
            manual_pages: pages.manual,
            resident_pages: tables.resident(),
            tables: tables.tables(),
        }
    }
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressSpace({}..{})", self.range.start, self.range.end)
    }
}
