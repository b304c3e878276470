//! The arena, `mm` over it, and address spaces.
#![allow(unsafe_code, reason = "the arena stands for physical memory and is reached through raw pointers")]

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use mm::{
    AddressSpace, FramePool, Memory, OutOfMemory, PAGE_SIZE, PageTable, PhysAddr, PhysWindow, TestPager,
};

use crate::{KERNEL_RANGE, PAGE, Processor, USER_RANGE, address, content};

/// What fills memory, so that nobody relies on zeros.
const RUBBISH: u8 = 0xa5;
/// Tables that the kernel's half needs.
const UPPER_HALF: usize = 256;

/// A machine: memory, CPUs and the kernel's page tables. Each change of a page's state is checked against the table of
/// states and events, and the first that cannot have happened is a panic.
pub struct Machine {
    base: *mut u8,
    /// What `mm` makes of its arena.
    pub memory: &'static Memory,
    /// What its CPUs remember.
    pub processor: &'static Processor,
    kernel_root: PhysAddr,
    kernel: Mutex<Option<PageTable>>,
}

// SAFETY: the arena is leaked and reached like physical memory, in an order that `mm` is tested for.
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

impl Machine {
    /// A machine with this many frames and some more, for the frame records and the kernel's upper half.
    pub fn new(frames: usize) -> &'static Self {
        Self::with(frames, Processor::default())
    }

    /// The same with several CPUs, each of which remembers translations for itself: until it is told to forget
    /// them, or begins a poll (see [`Machine::begin_poll`]) after somebody began to wait for all CPUs.
    pub fn with_cpus(frames: usize) -> &'static Self {
        Self::with(frames, Processor { several: true, ..Processor::default() })
    }

    /// A machine with at least so many frames for pages, and so many for tables in a pool of their own.
    pub fn with_table_frames(frames: usize, tables: usize) -> &'static Self {
        let pages = FramePool::room_for(frames);
        let all = 2 + pages + FramePool::room_for(UPPER_HALF + tables);
        let (first, end) = (2 * PAGE, all as u64 * PAGE);
        let middle = first + pages as u64 * PAGE;
        Self::over(all, 0, Processor::default(), |window, processor| {
            Memory::with_table_frames(window, first..middle, middle..end, processor)
        })
    }

    fn with(frames: usize, processor: Processor) -> &'static Self {
        let frames = frames + 2 + UPPER_HALF + 1 + frames / 128;
        // Frame 1 is the kernel's root.
        let usable = 2 * PAGE..frames as u64 * PAGE;
        Self::over(frames, RUBBISH, processor, |window, processor| Memory::new(window, &[usable], processor))
    }

    fn over(
        frames: usize,
        filled_with: u8,
        processor: Processor,
        make: impl FnOnce(PhysWindow, &'static Processor) -> Memory,
    ) -> &'static Self {
        let layout = std::alloc::Layout::from_size_align(frames * PAGE_SIZE, PAGE_SIZE).unwrap();
        // SAFETY: the layout has a size. What is zero anyway costs nothing before it is used.
        let base = unsafe {
            let base = std::alloc::alloc_zeroed(layout);
            assert!(!base.is_null());
            if filled_with != 0 {
                base.write_bytes(filled_with, frames * PAGE_SIZE);
                base.add(PAGE_SIZE).write_bytes(0, PAGE_SIZE);
            }
            base
        };
        // SAFETY: the arena is leaked and used for nothing else.
        let window = unsafe { PhysWindow::new(base) };
        let processor: &'static Processor = Box::leak(Box::new(processor));
        let memory: &'static Memory = Box::leak(Box::new(make(window, processor)));
        processor.check_from_the_start();
        memory.record_as(1);
        let kernel_root = PhysAddr::new(PAGE);
        // SAFETY: an empty table that only this machine uses.
        let root = unsafe { window.existing_root(kernel_root) };
        let kernel =
            Mutex::new(Some(PageTable::new_kernel(memory, root).expect("room for the kernel's tables")));
        Box::leak(Box::new(Self { base, memory, processor, kernel_root, kernel }))
    }

    /// The kernel's window; once.
    pub fn window(&self) -> Arc<AddressSpace> {
        let table = self.kernel.lock().unwrap().take().expect("there is one kernel window");
        AddressSpace::new(self.memory, table, address(KERNEL_RANGE.start)..address(KERNEL_RANGE.end))
    }

    /// Tables for a user space.
    ///
    /// # Panics
    /// When there is no frame for the root.
    pub fn empty_table(&self) -> PageTable {
        self.try_empty_table().expect("room for a root")
    }

    /// Tables for a user space.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for the root.
    pub fn try_empty_table(&self) -> Result<PageTable, OutOfMemory> {
        PageTable::new_user(self.memory, self.kernel_root)
    }

    /// An empty space in the lower half.
    pub fn user_space(&self) -> Arc<AddressSpace> {
        AddressSpace::new(self.memory, self.empty_table(), address(USER_RANGE.start)..address(USER_RANGE.end))
    }

    /// A pager whose page n is full of the 64-bit word n + 1000.
    pub fn pager(&self) -> Arc<TestPager> {
        TestPager::new(
            self.memory,
            Box::new(|index, bytes| {
                for word in bytes.chunks_exact_mut(8) {
                    word.copy_from_slice(&content(index.as_u64()).to_le_bytes());
                }
            }),
        )
    }

    /// Free frames.
    pub fn free(&self) -> usize {
        self.memory.frames().stats().free
    }

    pub(crate) fn word(&self, physical: u64) -> &AtomicU64 {
        // SAFETY: within the arena, aligned, and only used as atomics here.
        unsafe { &*self.base.add(physical as usize).cast::<AtomicU64>() }
    }
}
