//! Memory shared with devices: where it comes from, and what a device may reach.
//!
//! The kernel says once at boot how to get physical memory ([`init`]). From then on a device is given
//! memory in two ways only: as a [`DmaBuffer`], which this crate owns, or as a [`Segment`] of memory that
//! a request's client owns until it is told that the request is over.
#![allow(unsafe_code, reason = "the room in which physical addresses become pointers")]

use core::ptr::NonNull;

use conquer_once::spin::OnceCell;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

/// How the kernel's physical memory is reached.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    /// Virtual address of physical address 0: all memory is mapped there, writable.
    pub phys_offset: u64,
    /// Allocates this many contiguous, zeroed pages; their physical address, page-aligned and not 0.
    pub alloc: fn(pages: usize) -> Option<u64>,
    /// Gives back what `alloc` returned.
    pub free: fn(phys: u64, pages: usize),
    /// Maps a device's registers for good, uncached, writable: their virtual address. `None` if it cannot
    /// be done. It is called more than once for the same registers, and for parts of them. UEFI firmware
    /// puts registers far above all memory, where `phys_offset` shows nothing.
    pub map_device: fn(phys: u64, bytes: u64) -> Option<NonNull<u8>>,
    /// The same, cached, for a device's memory, where reading and writing have no effects.
    pub map_memory: fn(phys: u64, bytes: u64) -> Option<NonNull<u8>>,
}

static MEMORY: OnceCell<DmaMemory> = OnceCell::uninit();

/// Tells the crate how to reach memory. Once, at boot, before any device is probed; further calls are
/// ignored.
///
/// # Safety
/// What [`DmaMemory`] says of its fields must be true for as long as the machine runs.
pub unsafe fn init(memory: DmaMemory) {
    let _already_set = MEMORY.try_init_once(|| memory);
}

fn memory() -> Option<&'static DmaMemory> {
    MEMORY.get()
}

/// The pointer at which a physical address of memory is visible; null before [`init`].
fn pointer(phys: u64) -> *mut u8 {
    let offset = memory().map(|memory| memory.phys_offset);
    offset.map_or(core::ptr::null_mut(), |offset| offset.wrapping_add(phys) as *mut u8)
}

/// Maps a device's registers; see [`DmaMemory::map_device`].
pub(crate) fn map_device(phys: u64, bytes: u64) -> Option<NonNull<u8>> {
    (memory()?.map_device)(phys, bytes)
}

/// Maps a device's memory; see [`DmaMemory::map_memory`].
pub(crate) fn map_memory(phys: u64, bytes: u64) -> Option<NonNull<u8>> {
    (memory()?.map_memory)(phys, bytes)
}

/// A piece of contiguous physical memory for one request: where a device reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    phys: u64,
    bytes: u32,
}

impl Segment {
    /// Names a piece of physical memory. Whether its size suits the device is checked when the request
    /// is taken up.
    ///
    /// # Safety
    /// The memory is ordinary memory, visible at [`DmaMemory::phys_offset`]. It belongs to the client of
    /// the request that this segment becomes part of: until that client's
    /// [`complete`](crate::block::BlockClient::complete) is called, it is not freed, not read if the
    /// request reads from the device, and not written by anybody.
    pub const unsafe fn new(phys: u64, bytes: u32) -> Self {
        Self { phys, bytes }
    }

    /// A segment that no device ever sees.
    #[cfg(test)]
    pub(crate) const fn for_fake(phys: u64, bytes: u32) -> Self {
        Self { phys, bytes }
    }

    /// The two as one, where the other follows this one in memory and they are not too large for that.
    pub fn joined(self, next: Self) -> Option<Self> {
        let follows = next.phys == self.phys + u64::from(self.bytes);
        let bytes = self.bytes.checked_add(next.bytes)?;
        follows.then_some(Self { phys: self.phys, bytes })
    }

    /// Its physical address.
    pub const fn phys(self) -> u64 {
        self.phys
    }

    /// Its size in bytes.
    pub const fn bytes(self) -> u32 {
        self.bytes
    }

    /// The segment as the queue wants it: memory that the device reads.
    pub(crate) fn as_device_reads<'a>(self) -> &'a [u8] {
        // SAFETY: `new` was promised that this is memory that nobody writes until its request is over;
        // the queue keeps the slice no longer than that, and itself only asks for its address.
        unsafe { core::slice::from_raw_parts(pointer(self.phys), self.bytes as usize) }
    }

    /// The segment as the queue wants it: memory that the device writes.
    pub(crate) fn as_device_writes<'a>(self) -> &'a mut [u8] {
        // SAFETY: `new` was promised that this is memory that nobody else touches until its request is
        // over; the queue keeps the slice no longer than that, and itself only asks for its address.
        unsafe { core::slice::from_raw_parts_mut(pointer(self.phys), self.bytes as usize) }
    }
}

/// Pages of contiguous memory of our own that a device can reach, zeroed when allocated.
#[derive(Debug)]
pub struct DmaBuffer {
    phys: u64,
    bytes: usize,
}

impl DmaBuffer {
    /// Allocates a buffer. `None` if there is no memory, if `bytes` is 0 or does not fit into 32 bits.
    pub fn new(bytes: usize) -> Option<Self> {
        if bytes == 0 || u32::try_from(bytes).is_err() {
            return None;
        }
        let phys = (memory()?.alloc)(bytes.div_ceil(PAGE_SIZE))?;
        Some(Self { phys, bytes })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the pages are ours until drop, and while a device writes them the buffer is inside the
        // request, where nobody can borrow it.
        unsafe { core::slice::from_raw_parts(pointer(self.phys), self.bytes) }
    }

    /// Its bytes, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(pointer(self.phys), self.bytes) }
    }

    /// The whole buffer as a request's segment. The buffer must go into that request's client.
    pub(crate) fn segment(&self) -> Segment {
        Segment { phys: self.phys, bytes: self.bytes as u32 }
    }

    /// A pointer to a byte at an offset, for the queue's own records.
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes, "an offset inside the buffer");
        // Inside the allocation, by the check above.
        pointer(self.phys).wrapping_add(offset)
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        if let Some(memory) = memory() {
            (memory.free)(self.phys, self.bytes.div_ceil(PAGE_SIZE));
        }
    }
}

/// `virtio-drivers`' view of this memory.
#[derive(Debug)]
pub(crate) struct Machine;

// SAFETY: `dma_alloc` hands out pages that the kernel's allocator gave to nobody else, zeroed, at the
// address where they are visible; `mmio_phys_to_virt` hands out what the kernel has mapped.
unsafe impl Hal for Machine {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        let phys = memory().and_then(|memory| (memory.alloc)(pages));
        // Address 0 tells the library that there is no memory.
        phys.and_then(|phys| Some((phys, NonNull::new(pointer(phys))?))).unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(phys: u64, _pointer: NonNull<u8>, pages: usize) -> i32 {
        if let Some(memory) = memory() {
            (memory.free)(phys, pages);
        }
        0
    }

    unsafe fn mmio_phys_to_virt(phys: u64, size: usize) -> NonNull<u8> {
        // `pci::Function::map_bars` has mapped every register of the function before the library asks.
        map_device(phys, size as u64).expect("registers that were mapped when the device was probed")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        let offset = memory().map_or(0, |memory| memory.phys_offset);
        (buffer.as_ptr().cast::<u8>() as u64).wrapping_sub(offset)
    }

    unsafe fn unshare(_phys: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

#[cfg(test)]
mod tests {
    use super::Segment;

    #[test]
    fn segments_that_follow_each_other_are_joined() {
        let first = Segment::for_fake(0x1000, 4096);
        assert_eq!(first.joined(Segment::for_fake(0x2000, 512)), Some(Segment::for_fake(0x1000, 4608)));
        assert_eq!(first.joined(Segment::for_fake(0x3000, 4096)), None);
        assert_eq!(first.joined(Segment::for_fake(0, 4096)), None, "it is the one before");
        assert_eq!(first.joined(first), None);
        assert_eq!(first.joined(Segment::for_fake(0x2000, u32::MAX)), None);
    }
}
