//! A machine on the host: an arena as physical memory, page tables in its bytes, processors that walk
//! them and remember what they found, and tasks that run when the test says so.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `machine` | the arena, `mm` over it, and address spaces |
//! | `processor` | what CPUs remember of page tables |
//! | `access` | loads and stores by programs and threads: a walk through the tables, a fault, and again |
//! | `entries` | entries of page tables, looked at and changed behind `mm`'s back |
//! | `cpus` | CPUs that are in the middle of a poll |
//! | `script` | the machine below `vmscript`'s player |
//! | `tasks` | tasks that are polled when the test says so |
//!
//! Everything is leaked: a machine lives as long as its test.

mod access;
pub mod cpus;
mod entries;
mod machine;
mod processor;
#[cfg(not(loom))]
pub mod script;
pub mod tasks;

use std::ops::Range;

use mm::{PAGE_SIZE, PageIndex, VirtAddr};

pub use access::Known;
pub use machine::Machine;
pub use processor::{Processor, is_checking, is_drawing};

/// Bytes of a page.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// Where the kernel's window is.
pub const KERNEL_RANGE: Range<u64> = 0xffff_a000_0000_0000..0xffff_b000_0000_0000;
/// Where user spaces map.
pub const USER_RANGE: Range<u64> = 0x1000..0x7fff_ffff_f000;

/// An address that is canonical.
///
/// # Panics
/// When it is not.
pub fn address(address: u64) -> VirtAddr {
    VirtAddr::new(address).expect("canonical")
}

/// So many pages from an address on.
pub fn range(start: VirtAddr, pages: u64) -> Range<VirtAddr> {
    start..address(start.as_u64() + pages * PAGE)
}

/// What `Machine::pager` has in each word of a page.
pub fn content(page: u64) -> u64 {
    page + 1000
}

/// A page of an object.
pub fn page(index: u64) -> PageIndex {
    PageIndex::new(index)
}
