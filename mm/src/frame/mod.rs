//! Frames: owned pieces of physical memory, and the pool that they come from.

mod lists;
mod pool;
mod quarantine;
mod regions;
mod waiting;

use core::fmt;
use core::mem::ManuallyDrop;

use crate::{PAGE_SIZE, PhysAddr};

pub(crate) use lists::CleanPage;
pub use pool::{FramePool, FrameStats};
pub(crate) use quarantine::Moment;

/// There is no free frame, and none can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

/// One frame: 4,096 bytes of physical memory that belong to whoever holds this. Dropping it gives the
/// frame back to its pool, which wakes who waits for memory; so it is not dropped in interrupt handlers.
pub struct Frame {
    pool: &'static FramePool,
    number: u64,
}

impl Frame {
    pub(crate) fn from_number(pool: &'static FramePool, number: u64) -> Self {
        Self { pool, number }
    }

    /// Gives up the ownership without freeing; the number is put where [`Frame::from_number`] finds it.
    pub(crate) fn into_number(self) -> u64 {
        ManuallyDrop::new(self).number
    }

    /// The frame's number: its physical address divided by 4,096. Never 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The physical address of the frame's first byte.
    pub fn address(&self) -> PhysAddr {
        address_of(self.number)
    }

    /// The frame's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.pool.window().bytes(self.address(), PAGE_SIZE)
    }

    /// The frame's bytes, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.pool.window().bytes_mut(self.address(), PAGE_SIZE)
    }

    /// Fills the frame with zeros.
    pub fn zero(&mut self) {
        self.pool.window().zero(self.address());
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.free(self.number, 1);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:#x})", self.number)
    }
}

/// Frames that follow each other in physical memory, for devices and large tables. Dropping it gives them
/// all back.
pub struct FrameRun {
    pool: &'static FramePool,
    first: u64,
    frames: usize,
}

impl FrameRun {
    /// The physical address of the first byte.
    pub fn address(&self) -> PhysAddr {
        address_of(self.first)
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The bytes of all frames.
    pub fn as_bytes(&self) -> &[u8] {
        self.pool.window().bytes(self.address(), self.frames * PAGE_SIZE)
    }

    /// The bytes of all frames, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.pool.window().bytes_mut(self.address(), self.frames * PAGE_SIZE)
    }

    /// Gives up the ownership: the frames stay allocated until [`FramePool::take_back`]. For users that
    /// only remember an address, like a device's queue or the kernel's heap.
    pub fn into_address(self) -> PhysAddr {
        ManuallyDrop::new(self).address()
    }
}

impl Drop for FrameRun {
    fn drop(&mut self) {
        self.pool.free(self.first, self.frames as u64);
    }
}

impl fmt::Debug for FrameRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRun({:#x}, {} frames)", self.first, self.frames)
    }
}

pub(crate) const fn address_of(number: u64) -> PhysAddr {
    PhysAddr::new(number * PAGE_SIZE as u64)
}
