//! Writes of a cluster: what a store gets that is to write frames to slots in a row.

use alloc::boxed::Box;
use core::fmt;

use crate::frame::{ListedPage, address_of};
use crate::{Memory, PAGE_SIZE, PageError, PhysAddr};

/// The pages of one write. All there will ever be are made when swap begins.
#[derive(Default)]
pub(super) struct Cluster {
    pages: [ListedPage; Self::PAGES],
    count: usize,
}

impl Cluster {
    /// The most pages of one write.
    pub(super) const PAGES: usize = 32;

    pub(super) fn push(&mut self, page: ListedPage) {
        self.pages[self.count] = page;
        self.count += 1;
    }

    pub(super) fn pages(&self) -> &[ListedPage] {
        &self.pages[..self.count]
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
    }
}

/// A write of frames to slots that follow each other, in the hands of a store. It owns the frames until it ends.
///
/// Dropping it ends it as failed. Neither that nor [`SwapWrite::complete`] may be done by an interrupt handler.
pub struct SwapWrite {
    memory: &'static Memory,
    first: u64,
    /// Always there until the end.
    cluster: Option<Box<Cluster>>,
}

impl SwapWrite {
    pub(super) fn new(memory: &'static Memory, first: u64, cluster: Box<Cluster>) -> Self {
        Self { memory, first, cluster: Some(cluster) }
    }

    /// The first slot.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many slots are written, at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.pages().len()
    }

    fn pages(&self) -> &[ListedPage] {
        self.cluster.as_ref().map_or(&[], |cluster| cluster.pages())
    }

    /// Where the device is to read what goes to the slot with this number, counted from the first.
    pub fn frame_address(&self, number: usize) -> PhysAddr {
        address_of(self.pages()[number].frame)
    }

    /// Copies what goes to the slot with this number, for stores that write by the processor. Threads may write to the
    /// page at the same time: then the bytes are some mixture, and nobody will read them.
    ///
    /// # Panics
    /// When `to` is no page.
    pub fn read(&self, number: usize, to: &mut [u8]) {
        assert_eq!(to.len(), PAGE_SIZE);
        self.memory.frames().window().read(self.frame_address(number), 0, to);
    }

    /// Ends the write: `result` says of each slot, counted from the first, whether it was written. A page whose slot was
    /// not stays.
    pub fn complete(mut self, result: impl Fn(usize) -> Result<(), PageError>) {
        self.end(|number| result(number).is_ok());
    }

    fn end(&mut self, is_written: impl Fn(usize) -> bool) {
        let Some(cluster) = self.cluster.take() else { return };
        if let Some(area) = self.memory.swap() {
            area.end_writes(self.first, cluster, is_written);
        }
    }
}

impl Drop for SwapWrite {
    fn drop(&mut self) {
        self.end(|_| false);
    }
}

impl fmt::Debug for SwapWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwapWrite({} slots from {})", self.len(), self.first)
    }
}
