//! The executor's stack of each CPU that another one starts. (The boot CPU's is made by the boot loader.)
//!
//! Each stands in a slot of its own, below which a page stays unmapped: running over its end is a double fault with
//! a report, and not another CPU's data.

use core::ops::Range;

use mm::{MemoryType, PAGE_SIZE, Protection, VirtAddr};

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
        let range = VirtAddr::new(bottom)?..VirtAddr::new(bottom + STACK_SIZE)?;
        let (rights, memory_type) = (Protection::READ_WRITE, MemoryType::WriteBack);
        memory::kernel_space().map_for_good(range, run.address(), rights, memory_type).ok()?;
        run.into_address();
        Some(Self { top: bottom + STACK_SIZE })
    }

    /// The address just above it, where it begins.
    pub(super) fn top(&self) -> u64 {
        self.top
    }
}
