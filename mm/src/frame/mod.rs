//! Frames: owned pieces of physical memory, and the pool that they come from.

mod caches;
mod checks;
mod listed;
mod lists;
mod marks;
mod pool;
mod quarantine;
mod regions;
mod run;
mod sub_pool;
mod waiting;

use core::fmt;
use core::mem::ManuallyDrop;

use crate::{PAGE_SIZE, PhysAddr};

pub(crate) use lists::{Candidate, ListedPage, Outcome, PageList};
pub use marks::Marks;
pub use pool::{FramePool, FrameStats};
pub(crate) use quarantine::{Moment, QuarantineBatch};
pub use run::{FrameRun, Frames};
pub use sub_pool::{DrawError, Drawn, NotReturned, SubPool};

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
        self.pool.free_frame(self.number);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:#x})", self.number)
    }
}

pub(crate) const fn address_of(number: u64) -> PhysAddr {
    PhysAddr::new(number * PAGE_SIZE as u64)
}
