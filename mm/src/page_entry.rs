//! Entries of x86-64 page tables: each bit, and who sets it.
//!
//! | bit | set when | cleared when |
//! | --- | --- | --- |
//! | `PRESENT` | a frame or table is entered | the page is unmapped, the table freed |
//! | `WRITABLE` | the mapping allows writing and the page is dirty already; always in upper levels | protect, a page becomes clean |
//! | `USER` | the mapping is for ring 3; always in upper levels of the lower half | protect |
//! | `ACCESSED` | by the processor, at the first use | by reclaim, to see whether it is set again |
//! | `DIRTY` | by the processor, at the first write | with the entry |
//! | `LARGE` | never by `mm` so far; the walker understands it in tables that were taken over | |
//! | `NO_EXECUTE` | the mapping does not allow execution | protect |

use crate::{PhysAddr, Protection};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
/// The bits that hold a frame's or table's address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The bits of a leaf that say what is allowed.
pub(crate) const RIGHTS: u64 = WRITABLE | USER | NO_EXECUTE;

/// The leaf bits for a protection.
pub(crate) const fn rights(protection: Protection) -> u64 {
    (if protection.write { WRITABLE } else { 0 })
        | (if protection.user { USER } else { 0 })
        | (if protection.execute { 0 } else { NO_EXECUTE })
}

/// Where an entry points to.
pub(crate) const fn target(entry: u64) -> PhysAddr {
    PhysAddr::new(entry & ADDRESS)
}
