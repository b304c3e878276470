//! The executor's stack of each CPU that another one starts. (The boot CPU's is made by the boot loader.)
//!
//! Each stands in a slot of its own, below which a page stays unmapped: running over its end is a double fault with
//! a report, and not another CPU's data.
#![allow(unsafe_code, reason = "changes the kernel's page tables")]

use core::ops::Range;

use mm::PAGE_SIZE;
use x86_64::{
    PhysAddr, VirtAddr,
    structures::paging::{Mapper, Page, PageTableFlags, PhysFrame, Size4KiB},
};

use super::device_memory::{Tables, kernel_tables};
use crate::{boot::STACK_SIZE, memory};

/// Where the stacks are: one top-level entry, which `mm` does not touch.
const STACKS: Range<u64> = 0xffff_e080_0000_0000..0xffff_e100_0000_0000;
/// A stack, and the page below it.
const SLOT: u64 = STACK_SIZE + PAGE_SIZE as u64;

const _: () = assert!(super::cpu::MAX_CPUS as u64 * SLOT <= STACKS.end - STACKS.start);

/// A stack that is mapped for good.
#[derive(Clone, Copy)]
pub(crate) struct CpuStack {
    top: u64,
}

impl CpuStack {
    /// How many frames one takes, without page tables.
    pub(crate) const FRAMES: usize = STACK_SIZE as usize / PAGE_SIZE;

    /// The stack of the CPU with this number; `None` when there is no memory. Once for each number.
    pub(crate) fn make(number: u32) -> Option<Self> {
        let run = memory::memory().frames().try_alloc_contiguous(Self::FRAMES, 1)?;
        let bottom = STACKS.start + u64::from(number) * SLOT + PAGE_SIZE as u64;
        let page = |number: usize| {
            Page::<Size4KiB>::containing_address(VirtAddr::new(bottom + (number * PAGE_SIZE) as u64))
        };
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
        kernel_tables(|tables| {
            for number in 0..Self::FRAMES {
                let frame = run.address().as_u64() + (number * PAGE_SIZE) as u64;
                let frame = PhysFrame::containing_address(PhysAddr::new(frame));
                // SAFETY: the slot is this CPU's, and the frame is ours.
                let mapped = unsafe { tables.map_to(page(number), frame, flags, &mut Tables::new()) };
                if mapped.is_err() {
                    // No CPU has used them, so none has to forget them.
                    (0..number).for_each(|number| drop(tables.unmap(page(number))));
                    return None;
                }
            }
            Some(())
        })?;
        run.into_address();
        Some(Self { top: bottom + STACK_SIZE })
    }

    /// The address just above it, where it begins.
    pub(super) fn top(&self) -> u64 {
        self.top
    }
}
