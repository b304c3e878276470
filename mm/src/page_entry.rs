//! Entries of x86-64 page tables: each bit, and who sets it.
//!
//! | bit | set when | cleared when |
//! | --- | --- | --- |
//! | `PRESENT` | a frame or table is entered | the page is unmapped, the table freed |
//! | `WRITABLE` | the mapping allows writing and the page is dirty already; in an entry that points to a table, at first | protect, a page becomes clean; in an entry that points to a table, `write_protect` and `push_down`, until a write is allowed below it |
//! | `USER` | the mapping is for ring 3; always in upper levels of the lower half | protect |
//! | `WRITE_THROUGH`, `NO_CACHE` | the memory type, see `MemoryType` | with the entry |
//! | `ACCESSED` | by the processor, at the first use | by reclaim, to see whether it is set again |
//! | `DIRTY` | by the processor, at the first write | with the entry; when the page becomes clean |
//! | `LARGE` | the entry of level 2 or 3 is a page | the page is split |
//! | `GLOBAL` | the page was made permanent | never |
//! | `OWNED` | only with `LARGE`, at level 2: the frames are pages of private memory, and a table for them is set aside (see `page_table/large`) | with the entry; when the page is split |
//! | `COUNT` | only in entries that point to a table of the lower half: how many entries of that table are present. With each entry that comes or goes, under the table's lock | with the entry |
//! | `NO_EXECUTE` | the mapping does not allow execution | protect |
//!
//! An entry that is not present is 0, so each of the other bits says that it is present.

use crate::address::PAGE_BYTES;
use crate::{MemoryType, PhysAddr, Protection};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const WRITE_THROUGH: u64 = 1 << 3;
pub(crate) const NO_CACHE: u64 = 1 << 4;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const GLOBAL: u64 = 1 << 8;
pub(crate) const OWNED: u64 = 1 << 9;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
/// The bits that hold a frame's or table's address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The bits of a leaf that say what is allowed.
pub(crate) const RIGHTS: u64 = WRITABLE | USER | NO_EXECUTE;
/// The bits of a leaf that say the memory type.
pub(crate) const TYPE: u64 = WRITE_THROUGH | NO_CACHE;

/// Entries of a table.
pub(crate) const ENTRIES: usize = 512;
/// The level of the root. An entry of level 1 is a page of 4 KiB.
pub(crate) const ROOT_LEVEL: u32 = 4;

/// `COUNT` is ten bits that the processor ignores; this is its 1.
pub(crate) const ONE: u64 = 1 << 52;

/// How many entries of the table that an entry points to are present.
pub(crate) const fn count(entry: u64) -> usize {
    (entry / ONE) as usize & 0x3ff
}

/// The leaf bits for a protection.
pub(crate) const fn rights(protection: Protection) -> u64 {
    (if protection.write { WRITABLE } else { 0 })
        | (if protection.user { USER } else { 0 })
        | (if protection.execute { 0 } else { NO_EXECUTE })
}

/// What an entry allows by itself.
pub(crate) const fn protection(entry: u64) -> Protection {
    Protection {
        read: true,
        write: entry & WRITABLE != 0,
        execute: entry & NO_EXECUTE == 0,
        user: entry & USER != 0,
    }
}

/// The rights that two entries give together, in the bits of both.
pub(crate) const fn both(above: u64, below: u64) -> u64 {
    above & below & (WRITABLE | USER) | (above | below) & NO_EXECUTE
}

/// The leaf bits for a memory type: an index into the first half of the processor's attribute table, whose second
/// half is the same, so that the bit for that half does not matter.
pub(crate) const fn type_bits(memory_type: MemoryType) -> u64 {
    match memory_type {
        MemoryType::WriteBack => 0,
        MemoryType::WriteCombining => WRITE_THROUGH,
        MemoryType::Uncached => WRITE_THROUGH | NO_CACHE,
    }
}

/// The memory type of a leaf.
pub(crate) const fn memory_type(leaf: u64) -> MemoryType {
    match leaf & TYPE {
        0 => MemoryType::WriteBack,
        WRITE_THROUGH => MemoryType::WriteCombining,
        _ => MemoryType::Uncached,
    }
}

/// Bytes that an entry of this level stands for.
pub(crate) const fn span(level: u32) -> u64 {
    PAGE_BYTES << (9 * (level - 1))
}

/// Whether a present entry of this level is a page.
pub(crate) const fn is_leaf(entry: u64, level: u32) -> bool {
    level == 1 || entry & LARGE != 0 && level < ROOT_LEVEL
}

/// Where the page of a leaf of this level begins.
pub(crate) const fn page_at(leaf: u64, level: u32) -> u64 {
    leaf & ADDRESS & !(span(level) - 1)
}

/// Where an entry points to.
pub(crate) const fn target(entry: u64) -> PhysAddr {
    PhysAddr::new(entry & ADDRESS)
}
