//! Frames in a row.

use core::fmt;
use core::mem::ManuallyDrop;

use super::{Frame, FramePool, address_of};
use crate::{PAGE_SIZE, PhysAddr};

/// Frames that follow each other in physical memory, for devices, large pages and large tables. Dropping it gives
/// them all back. It can be taken apart and put together again.
pub struct FrameRun {
    pool: &'static FramePool,
    first: u64,
    frames: usize,
}

impl FrameRun {
    /// Frames of one large page: 2 MiB.
    pub const LARGE: usize = 512;

    pub(super) fn new(pool: &'static FramePool, first: u64, frames: usize) -> Self {
        Self { pool, first, frames }
    }

    /// The physical address of the first byte.
    pub fn address(&self) -> PhysAddr {
        address_of(self.first)
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Whether it is one large page: 2 MiB at a multiple of that.
    pub fn is_large(&self) -> bool {
        self.frames == Self::LARGE && self.first.is_multiple_of(Self::LARGE as u64)
    }

    /// The bytes of all frames.
    pub fn as_bytes(&self) -> &[u8] {
        self.pool.window().bytes(self.address(), self.frames * PAGE_SIZE)
    }

    /// The bytes of all frames, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.pool.window().bytes_mut(self.address(), self.frames * PAGE_SIZE)
    }

    /// Keeps the first `frames` frames and returns the others; `None`, and nothing has changed, if that would leave
    /// either side empty.
    pub fn split_off(&mut self, frames: usize) -> Option<Self> {
        if frames == 0 || frames >= self.frames {
            return None;
        }
        let rest = Self::new(self.pool, self.first + frames as u64, self.frames - frames);
        self.frames = frames;
        Some(rest)
    }

    /// Adds a run that begins where this one ends.
    ///
    /// # Errors
    /// The other run, when it does not, or is of another pool.
    pub fn append(&mut self, next: Self) -> Result<(), Self> {
        if !core::ptr::eq(self.pool, next.pool) || self.first + self.frames as u64 != next.first {
            return Err(next);
        }
        self.frames += ManuallyDrop::new(next).frames;
        Ok(())
    }

    /// Takes the run apart. Frames that are not taken are given back.
    pub fn into_frames(self) -> Frames {
        Frames { rest: Some(self) }
    }

    /// Gives up the ownership: the frames stay allocated until [`FramePool::take_back`]. For users that
    /// only remember an address, like a device's queue or the kernel's heap.
    pub fn into_address(self) -> PhysAddr {
        ManuallyDrop::new(self).address()
    }
}

impl From<Frame> for FrameRun {
    fn from(frame: Frame) -> Self {
        let pool = frame.pool;
        Self::new(pool, frame.into_number(), 1)
    }
}

impl Drop for FrameRun {
    fn drop(&mut self) {
        self.pool.free_run(self.first, self.frames as u64);
    }
}

impl fmt::Debug for FrameRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRun({:#x}, {} frames)", self.first, self.frames)
    }
}

/// See [`FrameRun::into_frames`].
#[derive(Debug)]
pub struct Frames {
    rest: Option<FrameRun>,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut run = self.rest.take()?;
        self.rest = run.split_off(1);
        let one = ManuallyDrop::new(run);
        Some(Frame::from_number(one.pool, one.first))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.as_ref().map_or(0, FrameRun::frames);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Frames {}
