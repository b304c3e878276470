//! Page tables: what the hardware sees. A cache of mappings and objects, never the truth.
//!
//! Four levels of 512 entries. Level 4 is the root, an entry of level 1 is a page of 4 KiB, one of level 2 or 3 may
//! be a page of 2 MiB or 1 GiB. The upper half belongs to the kernel's tables, whose 256 root entries all exist, so
//! that every other root shares them by a copy; the lower half belongs to its root, and is freed with it.
//!
//! Two kinds of pages: those of objects, 4 KiB each, one at a time (`page`), of private memory also 512 of them as one
//! large page (`large`); and segments, which show a range of physical memory that nobody here owns, by the largest pages
//! that fit (`segment`). The kernel's segments lie beside the range of its address space, so the two do not meet.
//!
//! | file | what |
//! | --- | --- |
//! | `part` | which entries a range of addresses covers |
//! | `walk` | one address through all levels |
//! | `page` | objects' pages: map, unmap, restrict, accessed |
//! | `near` | the way to the page that was entered last |
//! | `run` | pages in a row, found from one another |
//! | `large` | 512 pages of private memory as one |
//! | `tables` | tables come, with their counts, and go when they are empty |
//! | `segment`, `step` | segments, tables ahead of time, permanent pages |
//! | `split` | a large page becomes a table |
//! | `write_protect` | copy on write: rights taken at upper levels, and pushed down by the first write |
//! | `visit`, `print` | all entries of a range, for reports |
//!
//! All changes are made under one lock (see `table`); the processor walks meanwhile, and sets accessed and dirty bits.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | processor that walks, new table or page | it is filled before the entry that shows it is stored |
//! | processor that walks, table that goes | its entry is cleared, then its frame is in quarantine until all CPUs have forgotten it. All its entries are 0 by then: a page that is mapped meanwhile is in a new table, and a CPU that still sees the old one faults, forgets it, and finds the page there |
//! | dirty bit, change of rights | entries are changed by atomic operations that keep it |
//! | dirty bit, split | the entry is exchanged only if the processor has not changed it since it was copied |
//! | push-down, write through an entry that a CPU remembers from before | that CPU has yet to be waited for, by who protected; the bits it sets are kept |
//! | large page split, a CPU that remembers it | it shows the same frames with the same rights; who then takes some away waits |
//! | walk in batches, table that goes between two | who gives up the lock keeps an address, never an entry |
//!
//! Changing tables makes no other processor forget anything: whoever takes rights or frames away sees to that, as
//! `shootdown` says. The tables themselves may be loaded on some CPU when they are dropped: their frames go into
//! quarantine.

mod large;
mod near;
mod page;
mod part;
mod print;
mod run;
mod segment;
mod split;
mod step;
mod tables;
#[cfg(test)]
mod tests;
mod visit;
mod walk;
mod write_protect;

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::frame::address_of;
use crate::page_entry::{ENTRIES, PRESENT, ROOT_LEVEL, WRITABLE, span};
use crate::{ExistingRoot, MapError, Memory, OutOfMemory, PhysAddr, VirtAddr};

pub(crate) use page::LOOKS;
use part::Part;
pub(crate) use run::Run;
pub use visit::{Found, Visit};
pub use walk::Walk;

/// The first root entry of the upper half.
const UPPER_HALF: usize = 256;

/// Page tables in the hardware's format, behind one root.
pub struct PageTable {
    memory: &'static Memory,
    root: PhysAddr,
    /// Whether these are the kernel's tables, which are never freed. They have the upper half, all others the lower.
    kernel: bool,
    /// Pages of 4 KiB that are present and were entered here.
    resident: u64,
    /// Tables that were added here and not freed, those that are set aside included.
    tables: u64,
    /// Present entries of the root's lower half; other tables are counted where they are pointed to.
    top: usize,
    /// The tables that large pages have set aside.
    aside: large::Aside,
    /// The way to the page that was entered last.
    near: Option<near::Near>,
}

/// The sizes of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PageSize {
    /// An entry of level 1.
    Size4KiB,
    /// An entry of level 2.
    Size2MiB,
    /// An entry of level 3.
    Size1GiB,
}

impl PageSize {
    /// How many bytes such a page shows.
    pub const fn bytes(self) -> u64 {
        span(self.level())
    }

    const fn level(self) -> u32 {
        match self {
            Self::Size4KiB => 1,
            Self::Size2MiB => 2,
            Self::Size1GiB => 3,
        }
    }
}

/// A leaf that was taken out or looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) frame: u64,
    pub(crate) accessed: bool,
    pub(crate) dirty: bool,
}

/// A table has to be added, and there is no frame for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NeedsFrame;

impl From<NeedsFrame> for MapError {
    fn from(_: NeedsFrame) -> Self {
        Self::NoMemory
    }
}

impl PageTable {
    /// Takes over the tables in use: leaves out their lower half, and makes all 256 entries of the upper half, so that
    /// roots made by [`PageTable::new_user`] never miss one. The caller makes the processor forget the lower half.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for a missing table; those made so far stay.
    pub fn new_kernel(memory: &'static Memory, root: ExistingRoot) -> Result<Self, OutOfMemory> {
        let table = Self {
            memory,
            root: root.0,
            kernel: true,
            resident: 0,
            tables: 0,
            top: 0,
            aside: large::Aside::default(),
            near: None,
        };
        let (lower, upper) = table.entries(table.root).split_at(UPPER_HALF);
        for entry in upper {
            if entry.load(Ordering::Relaxed) & PRESENT == 0 {
                let lower = memory.table_frames().try_alloc_zeroed().ok_or(OutOfMemory)?;
                entry.store(address_of(lower.into_number()).as_u64() | PRESENT | WRITABLE, Ordering::Release);
            }
        }
        for entry in lower {
            entry.store(0, Ordering::Release);
        }
        Ok(table)
    }

    /// Fresh tables: the lower half is empty, the upper half is that of the tables at `kernel` (see
    /// [`PageTable::new_kernel`]).
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for the root.
    pub fn new_user(memory: &'static Memory, kernel: PhysAddr) -> Result<Self, OutOfMemory> {
        let root = memory.table_frames().try_alloc().ok_or(OutOfMemory)?;
        // All of it: the kernel's lower half is empty.
        memory.frames().window().copy(kernel, root.address());
        let root = address_of(root.into_number());
        Ok(Self {
            memory,
            root,
            kernel: false,
            resident: 0,
            tables: 0,
            top: 0,
            aside: large::Aside::default(),
            near: None,
        })
    }

    /// The physical address of the root, for CR3.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Memory that is shown and was entered here, in pages of 4 KiB.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    /// Tables that were added below the root and are not freed.
    pub fn tables(&self) -> u64 {
        self.tables
    }

    fn entries(&self, table: PhysAddr) -> &'static [AtomicU64; ENTRIES] {
        self.memory.frames().window().table(table)
    }

    /// Checks a range that a caller named, which lies in the half that these tables are for.
    fn check(&self, range: &Range<VirtAddr>) -> Result<Part, MapError> {
        if !range.start.is_page_aligned() || !range.end.is_page_aligned() {
            return Err(MapError::Unaligned);
        }
        let part = Part::new(range).ok_or(MapError::Empty)?;
        if part.is_upper_half() != Some(self.kernel) {
            return Err(MapError::OutOfRange);
        }
        Ok(part)
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        if !self.kernel {
            self.free_tables(self.root, ROOT_LEVEL, UPPER_HALF);
            self.free_all_aside();
            self.memory.forget_soon(self.memory.frames().moment());
        }
    }
}
