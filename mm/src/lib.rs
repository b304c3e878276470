//! The virtual-memory core: frames, page tables, objects made of pages, pagers, address spaces, faults.
//!
//! A page fault is an `await`. [`AddressSpace::resolve`] looks which object the touched page shows, waits
//! until the page is there, with no lock held meanwhile, and looks again before it maps it. Nothing here
//! ever blocks a processor.
//!
//! Principles:
//! - Nothing is global. Everything hangs off a [`Memory`] that the caller keeps; a host test makes one
//!   over an arena of its own, with real page-table bytes in it.
//! - Locks are taken in the order: address space, object, page table, frame lists, wait queue. No spin lock is
//!   held across an `await`, and no pager is called with one held. Two *turns* are: async mutexes, which park who waits and
//!   guard no data. They are taken before any lock, the first before the second, and no fault takes either: a flush of
//!   an object is one at a time, and so are changes of pages in two steps, with a wait for all CPUs between them.
//! - The page table is a cache: what it says follows from mappings and objects, never the other way round.
//! - A request to a pager owns the frame that the device writes to, so whoever stops waiting frees nothing
//!   that a device may still touch.
//!
//! The way of a fault, and the files in its order:
//!
//! | step | file |
//! | --- | --- |
//! | peek: which mapping, is the access allowed, which page of which object | `address_space/fault`, `address_space/mappings` |
//! | try, wait with nothing held, try again | `settle` |
//! | touch: is the page there, loading, or to be made or loaded | `vm_object/touch`, `page_state`, `page_index_map` |
//! | one load for all who wait, and for pages read ahead | `transfer`, `page_request`, `requests`, `vm_object/ahead` |
//! | whoever fills it | `pager`, in the kernel a disk, in tests `test_pager`; `blocks`, where blocks are larger than pages |
//! | commit: if the mapping is still what it was, show the page | `address_space/fault`, `table`, `page_table/page`, `page_entry` |
//! | and pages beside it that are there | `vm_object/neighbours` |
//!
//! And beside that way: `private` keeps what spaces change for themselves and what forks still see, `backing` is
//! either that or an object; `vm_object/store` and `vm_object/mark` write out what was changed, by `store_request`,
//! and `vm_object/flush` makes it durable, by `flush_request`; `frame` gives and takes memory; `write_back` stores
//! dirty pages before anybody has to wait for that; `reclaim` gives clean pages back as `policy` says, which it finds
//! shown by `reverse_map`; `victims` chooses who gives way when there is nothing to give back; `swap` writes out what
//! no pager has; `shootdown` waits for the CPUs that may still see what was taken away; `serving` denies waits that
//! would close a circle; and `fallible`, `slab` and `ordered_map` make a full heap an answer.
//!
//! An address space changes in `address_space/map`, `change`, `remap`, `stack`; `address_space/copy` and
//! `touch` are for system calls.
//!
//! Who may call: tasks and threads. Interrupt handlers may call nothing here. What takes one of the turns is for
//! tasks, and is polled until it is done, or dropped: [`VmObject::mark`], `store_and_mark`, `flush`, `evict`,
//! [`AddressSpace::advise`], [`reclaim()`], [`swap_out`], [`write_back::clean_oldest`], and the tasks [`reclaimer()`]
//! and [`write_back::writer`]. Reclaim waits for the turn of two steps. So whoever keeps such a future and does not
//! poll it holds up all who wait for memory; and so does a thread that polls it on a stack that gets its frames by
//! faults, if it waits there for a frame.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
mod address_space;
mod backing;
mod blocks;
mod fallible;
mod flush_request;
mod frame;
mod hardware;
mod manual;
mod mapping;
mod memory;
mod memory_pager;
mod numbered;
mod ordered_map;
mod page_entry;
mod page_event;
mod page_index_map;
mod page_request;
mod page_state;
mod page_table;
mod pager;
mod policy;
mod private;
mod reclaim;
mod requests;
mod reverse_map;
mod serving;
mod settle;
mod shootdown;
mod slab;
mod store_request;
mod swap;
mod table;
mod test_pager;
pub mod trace;
mod transfer;
mod victims;
mod vm_object;
mod window;
pub mod write_back;

/// The examples in the documentation are compiled, and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/memory-pressure.md")]
#[doc = include_str!("../../docs/simulator.md")]
struct Documented;

pub use address::{PAGE_SIZE, PageIndex, PhysAddr, VirtAddr};
pub use address_space::{
    Access, AddressSpace, Denial, Fault, FaultOutcome, SpaceStats, StrError, TouchError,
};
pub use blocks::{BlockStore, BlockTransfer, BlocksError, BlocksOf, Serves};
pub use flush_request::FlushRequest;
pub use frame::{
    DrawError, Drawn, Frame, FramePool, FrameRun, FrameStats, Frames, Marks, NotReturned, OutOfMemory,
    SubPool,
};
pub use hardware::Hardware;
pub use manual::ManualObject;
pub use mapping::{Advice, MapError, MemoryType, Placement, Protection};
pub use memory::{FaultStats, LargePages, Memory, ReadAhead};
pub use memory_pager::MemoryPager;
pub use page_event::{PageEvent, Wrong};
pub use page_request::PageRequest;
pub use page_state::PageState;
pub use page_table::{Found, PageSize, PageTable, Visit, Walk};
pub use pager::{PageError, Pager};
pub use policy::{Age, Ages, Observation, PageKind, ReclaimPolicy, SecondChance, SecondUse, Verdict};
pub use private::SharedMemory;
pub use reclaim::{reclaim, reclaimer};
pub use requests::Requests;
pub use serving::Serving;
pub use store_request::StoreRequest;
pub use swap::{SwapRead, SwapStats, SwapStore, SwapTransfer, SwapWrite, TestStore, swap_out};
pub use test_pager::{Content, TestPager};
pub use victims::Victims;
pub use vm_object::{FlushError, ObjectStats, StoreError, VmObject};
pub use window::{ExistingRoot, PhysWindow};
