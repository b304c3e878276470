//! Mappings: which part of which object an address range shows, and what may be done with it.

use core::fmt;

use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::frame::Moment;
use crate::page_entry::rights;
use crate::{Access, OutOfMemory, VirtAddr};

/// What a mapping allows. The hardware cannot refuse reading where it allows writing or executing; `mm`
/// refuses at the fault, so such a page is protected until its first use only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protection {
    /// Data may be read.
    pub read: bool,
    /// Data may be written.
    pub write: bool,
    /// Instructions may be fetched.
    pub execute: bool,
    /// Programs in ring 3 may do so, too.
    pub user: bool,
}

impl Protection {
    /// The kernel may read.
    pub const READ: Self = Self { read: true, write: false, execute: false, user: false };
    /// The kernel may read and write.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false, user: false };
    /// The kernel may read and execute.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true, user: false };

    /// The same for programs in ring 3.
    pub const fn for_user(self) -> Self {
        Self { user: true, ..self }
    }

    /// Whether all that `other` allows is allowed.
    pub(crate) const fn includes(self, other: Self) -> bool {
        (self.read || !other.read)
            && (self.write || !other.write)
            && (self.execute || !other.execute)
            && (self.user || !other.user)
    }

    /// Whether an access of this kind is allowed.
    pub const fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Execute => self.execute,
        }
    }
}

/// How the processor may cache what a page shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryType {
    /// Reads and writes are cached: memory.
    #[default]
    WriteBack,
    /// Reads are not cached, writes are gathered and may be late: a framebuffer.
    WriteCombining,
    /// Each read and write happens once, in order: devices' registers.
    Uncached,
}

/// Where a mapping is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Anywhere in the address space's range, with at least one unmapped page on either side.
    Anywhere,
    /// At this address exactly; what is mapped there already is an error.
    Fixed(VirtAddr),
}

/// What a program says of its future use of a range. See [`AddressSpace::advise`](crate::AddressSpace::advise).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Advice {
    /// Nothing in particular.
    #[default]
    Normal,
    /// Pages are touched in order of their addresses, each once.
    Sequential,
    /// Pages are touched in no order: those beside them are not wanted.
    Random,
    /// Pages are touched soon.
    WillNeed,
    /// Pages are not touched soon.
    DoNotNeed,
    /// Pages are not touched soon, and what is in them is wanted later: they are the first to go when frames are short.
    Cold,
    /// Most of the range will be written: large pages are worth their memory.
    Huge,
}

/// Why an address space refused to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// A range of no pages.
    Empty,
    /// A range that ends before it starts, or that would go beyond the last address there is.
    WrapsAround,
    /// An address or length that is not a multiple of the page size.
    Unaligned,
    /// An address that no processor has: bits 48..63 do not repeat bit 47.
    NonCanonical,
    /// The range is not, or not wholly, in the address space's range.
    OutOfRange,
    /// Something is mapped in the range already.
    Overlap,
    /// The range has a part where nothing is mapped.
    NotMapped,
    /// The object has fewer pages.
    BeyondObject,
    /// The page does not show a given frame.
    NotManual,
    /// No free range is large enough.
    NoSpace,
    /// There is no memory to note the change.
    NoMemory,
    /// The range has a page that was made permanent.
    Permanent,
    /// The hardware cannot forbid reading what is there.
    Unreadable,
    /// A stack that is larger from the start than it may become, or a part of a file that has more bytes than the memory
    /// for it.
    BeyondLimit,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MapError::Empty => "the range is empty",
            MapError::WrapsAround => "the range wraps around",
            MapError::Unaligned => "the range does not start and end at page boundaries",
            MapError::NonCanonical => "the address is not canonical",
            MapError::OutOfRange => "the range is outside of the address space",
            MapError::Overlap => "something is mapped there already",
            MapError::NotMapped => "a part of the range is not mapped",
            MapError::BeyondObject => "the object has fewer pages",
            MapError::NotManual => "the page does not show a given frame",
            MapError::NoSpace => "no free range is large enough",
            MapError::NoMemory => "there is no memory to note it",
            MapError::Permanent => "a part of the range is mapped for good",
            MapError::Unreadable => "the hardware cannot forbid reading",
            MapError::BeyondLimit => "it is larger than its limit",
        })
    }
}

impl From<OutOfMemory> for MapError {
    fn from(_: OutOfMemory) -> Self {
        Self::NoMemory
    }
}

/// A range of an address space that shows a part of an object.
#[derive(Clone)]
pub(crate) struct Mapping {
    /// Names the mapping in the object's list; a part that is split off gets a new one.
    pub(crate) id: u64,
    pub(crate) start: VirtAddr,
    /// Length in pages, at least 1.
    pub(crate) pages: u64,
    pub(crate) shows: Backing,
    /// The page of that which `start` shows.
    pub(crate) first: u64,
    pub(crate) protection: Protection,
    /// The same as bits of a page table's entry.
    pub(crate) rights: u64,
    /// Whether it is being unmapped: faults find nothing here any more, but the range is not free until all
    /// CPUs have forgotten its pages.
    pub(crate) going: Option<Going>,
    /// For a stack: the lowest address that it may grow down to, at most `start`.
    pub(crate) grows_to: Option<VirtAddr>,
    /// How it will be used: `Normal`, `Sequential`, `Random` or `Huge`.
    pub(crate) advice: Advice,
}

/// How far the unmapping of a mapping is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Going {
    /// Page tables may still show its pages.
    Marked,
    /// No page table shows them since this moment.
    Cleared(Moment),
}

impl Mapping {
    /// A mapping that stays as it is.
    pub(crate) fn new(
        id: u64,
        (start, pages): (VirtAddr, u64),
        (shows, first): (Backing, u64),
        protection: Protection,
    ) -> Self {
        Self {
            id,
            start,
            pages,
            shows,
            first,
            protection,
            rights: rights(protection),
            going: None,
            grows_to: None,
            advice: Advice::Normal,
        }
    }

    /// Allows this from now on.
    pub(crate) fn set_protection(&mut self, protection: Protection) {
        (self.protection, self.rights) = (protection, rights(protection));
    }

    /// The lowest address that it has or may grow to.
    pub(crate) fn lowest(&self) -> VirtAddr {
        self.grows_to.unwrap_or(self.start)
    }

    /// The page of what is shown at an address within the mapping.
    pub(crate) fn page_at(&self, address: VirtAddr) -> u64 {
        self.first + (address.page_start().as_u64() - self.start.as_u64()) / PAGE_BYTES
    }

    /// The first address after the mapping.
    pub(crate) fn end(&self) -> VirtAddr {
        self.start.page_add(self.pages)
    }
}
