//! The virtual-memory core: frames, page tables, objects made of pages, pagers, address spaces, faults.
//!
//! A page fault is an `await`. [`AddressSpace::resolve`] looks which object the touched page shows, waits
//! until the page is there, with no lock held meanwhile, and looks again before it maps it. Nothing here
//! ever blocks a processor.
//!
//! Principles:
//! - Nothing is global. Everything hangs off a [`Memory`] that the caller keeps; a host test makes one
//!   over an arena of its own, with real page-table bytes in it.
//! - Locks are taken in the order: address space, object, page table, frame lists, wait queue. No lock is
//!   held across an `await`, and no pager is called with a lock held.
//! - The page table is a cache: what it says follows from mappings and objects, never the other way round.
//! - A request to a pager owns the frame that the device writes to, so whoever stops waiting frees nothing
//!   that a device may still touch.
//!
//! Who may call: tasks and threads. Interrupt handlers may call nothing here.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
mod address_space;
mod fault;
mod frame;
mod mapping;
mod memory;
mod page_entry;
mod page_index_map;
mod page_request;
mod page_state;
mod page_table;
mod pager;
mod reclaim;
mod reverse_map;
mod settle;
mod table;
mod test_pager;
mod vm_object;
mod window;

pub use address::{PAGE_SIZE, PageIndex, PhysAddr, VirtAddr};
pub use address_space::{AddressSpace, SpaceStats};
pub use fault::{Access, Denial, Fault, FaultOutcome};
pub use frame::{Frame, FramePool, FrameRun, FrameStats, OutOfMemory};
pub use mapping::{MapError, Placement, Protection};
pub use memory::{FaultStats, Hardware, Memory};
pub use page_request::PageRequest;
pub use page_state::PageState;
pub use page_table::{PageTable, Walk};
pub use pager::{PageError, Pager};
pub use reclaim::{reclaim, reclaimer};
pub use test_pager::{Content, TestPager};
pub use vm_object::{ObjectStats, VmObject};
pub use window::{ExistingRoot, PhysWindow};
