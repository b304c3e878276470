//! The window through which `mm` sees physical memory. This is one of the crate's rooms for unsafe
//! code, beside `fallible` and `slab`: every other module works with what these functions hand out.
#![allow(unsafe_code, reason = "physical memory is reached through raw pointers, here and nowhere else")]

use core::ptr;
use core::sync::atomic::AtomicU64;

use crate::page_entry::ENTRIES;
use crate::{PAGE_SIZE, PhysAddr};

/// Words of a page.
#[cfg(target_os = "none")]
const WORDS: usize = PAGE_SIZE / size_of::<u64>();

/// Where physical memory is visible: physical address `p` is at `base + p`.
///
/// In the kernel that is the boot loader's mapping of all memory, on the host an arena.
#[derive(Clone, Copy, Debug)]
pub struct PhysWindow {
    base: *mut u8,
}

// SAFETY: the window is a number; what is done through it is ordered by the locks of those who own the
// frames, as said at each function.
unsafe impl Send for PhysWindow {}
// SAFETY: as for `Send`; no function changes the window itself.
unsafe impl Sync for PhysWindow {}

/// The root of page tables that somebody else has built and that are in use.
#[derive(Clone, Copy, Debug)]
pub struct ExistingRoot(pub(crate) PhysAddr);

impl PhysWindow {
    /// A window in which physical address 0 stands at `base`.
    ///
    /// # Safety
    /// All memory that is later given to a `FramePool` as usable, and all page tables given to
    /// [`PhysWindow::existing_root`], are readable and writable at `base + physical address` for as long
    /// as the program runs, and nothing else uses the memory given to the pool.
    pub const unsafe fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// Takes over page tables in use.
    ///
    /// # Safety
    /// `root` is the page-aligned address of a level-4 table whose tables are visible in this window, and
    /// from now on only `mm` changes the tables.
    pub const unsafe fn existing_root(&self, root: PhysAddr) -> ExistingRoot {
        ExistingRoot(root)
    }

    fn at(&self, address: PhysAddr) -> *mut u8 {
        self.base.wrapping_add(address.as_u64() as usize)
    }

    /// The entries of the page table at `table`, which the caller's page table owns. The processor changes
    /// entries at any time (accessed, dirty), so they are atomics.
    pub(crate) fn table(&self, table: PhysAddr) -> &'static [AtomicU64; ENTRIES] {
        assert!(table.as_u64().is_multiple_of(PAGE_SIZE as u64));
        // SAFETY: a table's frame belongs to its `PageTable` until no processor and no caller can reach
        // it; it is mapped here for good (see `new`), aligned, and read and written as atomics only.
        unsafe { &*self.at(table).cast::<[AtomicU64; ENTRIES]>() }
    }

    /// Fills a whole frame that the caller owns with zeros.
    pub(crate) fn zero(&self, frame: PhysAddr) {
        // SAFETY: the caller owns the frame, which lies in the pool's memory (see `new`).
        unsafe { zero_page(self.at(frame)) }
    }

    /// Copies a whole frame that stays allocated meanwhile to one that the caller owns.
    pub(crate) fn copy(&self, from: PhysAddr, to: PhysAddr) {
        assert!(from != to);
        // SAFETY: two frames of the pool's memory (see `new`); the caller owns one, and others may read and write the
        // other as for `read`.
        unsafe { copy_page(self.at(from), self.at(to)) }
    }

    /// Copies bytes out of a frame that stays allocated meanwhile. Threads and devices may write to it at
    /// the same time: then the bytes are some mixture, as on any machine.
    pub(crate) fn read(&self, frame: PhysAddr, offset: usize, to: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && to.len() <= PAGE_SIZE - offset);
        // SAFETY: within one frame by the check above; the frame is the pool's memory (see `new`), and
        // `to` is the caller's and cannot lie in a frame that is not its own.
        unsafe { ptr::copy_nonoverlapping(self.at(frame).add(offset), to.as_mut_ptr(), to.len()) }
    }

    /// Copies bytes into a frame that stays allocated meanwhile.
    pub(crate) fn write(&self, frame: PhysAddr, offset: usize, from: &[u8]) {
        assert!(offset <= PAGE_SIZE && from.len() <= PAGE_SIZE - offset);
        // SAFETY: as for `read`, with the directions exchanged.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.at(frame).add(offset), from.len()) }
    }

    /// The bytes of frames that the caller owns alone, for as long as it lends them out.
    pub(crate) fn bytes<'a>(&self, start: PhysAddr, length: usize) -> &'a [u8] {
        // SAFETY: the owner (`Frame`, `FrameRun`) lends the bytes for its own borrow only.
        unsafe { core::slice::from_raw_parts(self.at(start), length) }
    }

    /// Like [`PhysWindow::bytes`], for an owner that is borrowed exclusively.
    pub(crate) fn bytes_mut<'a>(&self, start: PhysAddr, length: usize) -> &'a mut [u8] {
        // SAFETY: the owner is borrowed exclusively for as long as the bytes are lent.
        unsafe { core::slice::from_raw_parts_mut(self.at(start), length) }
    }

    /// Turns memory that will never be anything else into a table of `count` values, each of them new.
    ///
    /// # Panics
    /// When `start` is not aligned for `T`.
    pub(crate) fn take_for_good<T>(
        &self,
        start: PhysAddr,
        count: usize,
        new: impl Fn() -> T,
    ) -> &'static mut [T] {
        let first = self.at(start).cast::<T>();
        assert!(first.is_aligned());
        // SAFETY: the frame pool takes this memory out of the usable memory before anything else is done
        // with it, once; every element is written before the slice exists.
        unsafe {
            for index in 0..count {
                first.add(index).write(new());
            }
            core::slice::from_raw_parts_mut(first, count)
        }
    }
}

/// Fills a page with zeros, by words: a page needs none of what makes `memset` do for any length and address.
///
/// # Safety
/// As of [`ptr::write_bytes`], for a whole page; it is aligned.
unsafe fn zero_page(page: *mut u8) {
    #[cfg(target_os = "none")]
    // SAFETY: as the caller says; the direction flag is clear, as everywhere in Rust code.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") WORDS => _, inout("rdi") page => _, in("rax") 0_u64,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    // SAFETY: as the caller says.
    unsafe {
        ptr::write_bytes(page, 0, PAGE_SIZE);
    }
}

/// Copies a page, by words, as [`zero_page`] fills one.
///
/// # Safety
/// As of [`ptr::copy_nonoverlapping`], for whole pages; they are aligned.
unsafe fn copy_page(from: *const u8, to: *mut u8) {
    #[cfg(target_os = "none")]
    // SAFETY: as in `zero_page`.
    unsafe {
        core::arch::asm!("rep movsq", inout("rcx") WORDS => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    // SAFETY: as the caller says.
    unsafe {
        ptr::copy_nonoverlapping(from, to, PAGE_SIZE);
    }
}

/// Memory for the tests within the crate.
#[cfg(test)]
pub(crate) mod arena {
    use core::ops::Range;
    use std::alloc::{Layout, alloc_zeroed};
    use std::boxed::Box;

    use super::PhysWindow;
    use crate::address::PAGE_BYTES;
    use crate::{Hardware, Memory, PAGE_SIZE, PhysAddr, VirtAddr};

    struct NoProcessor;

    impl Hardware for NoProcessor {
        fn invalidate(&self, _: PhysAddr, _: VirtAddr) {}
        fn forget(&self) {}
        fn forget_space(&self, _: PhysAddr) {}
    }

    /// An arena of zeros with this many frames, for good. Nothing uses its first two frames.
    pub(crate) fn arena(frames: usize) -> (PhysWindow, Range<u64>) {
        let layout = Layout::from_size_align(frames * PAGE_SIZE, PAGE_SIZE).expect("a sensible size");
        // SAFETY: the layout has a size, and the arena is leaked and used for nothing else.
        let window = unsafe { PhysWindow::new(alloc_zeroed(layout)) };
        (window, 2 * PAGE_BYTES..frames as u64 * PAGE_BYTES)
    }

    /// Memory over an arena of its own.
    pub(crate) fn memory(frames: usize) -> &'static Memory {
        let (window, usable) = arena(frames);
        Box::leak(Box::new(Memory::new(window, &[usable], &NoProcessor)))
    }
}
