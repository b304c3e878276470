//! Transfers: the reading or writing of a block, in the hands of its store.

use alloc::vec::Vec;
use core::fmt;

use executor::lock::SpinLock;
use executor::{WaitQueue, WaitReason};

use super::queue::{Claim, Wanted};
use crate::fallible::Shared;
use crate::{Frame, Memory, PAGE_SIZE, PageError, PhysAddr};

/// A block under way, and all that its transfer needs. Dropping it ends what is wanted as abandoned.
pub(super) struct Work {
    /// By the page's place in the block.
    pub(super) places: Vec<Option<Wanted>>,
    /// What lies where nobody wants a page: a frame a place.
    pub(super) own: Vec<Frame>,
    /// While a block is worked on. Dropped last: others may want it.
    pub(super) claim: Option<Claim>,
}

/// How a transfer has ended: so many bytes are done, the rest has this error.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) bytes: usize,
    pub(super) rest: PageError,
}

/// Where a server's transfer comes back.
pub(super) struct Back {
    ended: SpinLock<Option<(Work, End)>>,
    arrived: WaitQueue,
}

impl Back {
    pub(super) fn new() -> Self {
        Self { ended: SpinLock::new("block transfer", None), arrived: WaitQueue::new(WaitReason::BlockIo) }
    }

    pub(super) async fn wait(&self) -> (Work, End) {
        self.arrived.wait_for(|| self.ended.lock().take()).await
    }
}

/// The reading or writing of a block, or of a page's blocks where they are smaller, in the hands of its store. It owns or
/// keeps all frames that are read or written until it ends.
///
/// Dropping it ends it with [`PageError::Abandoned`]. Neither that nor [`complete`](Self::complete) may be done by an
/// interrupt handler.
pub struct BlockTransfer {
    memory: &'static Memory,
    /// Always there until the end.
    work: Option<Work>,
    back: Shared<Back>,
    offset: u64,
    write: bool,
}

impl BlockTransfer {
    pub(super) fn new(memory: &'static Memory, work: Work, back: Shared<Back>, write: bool) -> Self {
        let bytes = (work.own.len() * PAGE_SIZE) as u64;
        let offset = work.claim.as_ref().map_or(0, |claim| claim.block) * bytes;
        Self { memory, work: Some(work), back, offset, write }
    }

    /// The first byte of the store that is meant.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are read or written: a multiple of a page and of a block.
    #[expect(clippy::len_without_is_empty, reason = "there is always something")]
    pub fn len(&self) -> usize {
        self.work().own.len() * PAGE_SIZE
    }

    /// Where they are in memory, in order: a scatter list of frames, which stay where they are until the transfer ends.
    pub fn frames(&self) -> impl Iterator<Item = PhysAddr> {
        (0..self.work().own.len()).map(|place| self.frame(place))
    }

    fn work(&self) -> &Work {
        self.work.as_ref().expect("a transfer has its work until it ends")
    }

    fn frame(&self, place: usize) -> PhysAddr {
        let work = self.work();
        // A page that is stored is not read over.
        let wanted = work.places[place]
            .as_ref()
            .filter(|wanted| self.write || matches!(wanted, Wanted::Load(_)))
            .and_then(Wanted::frame_address);
        wanted.unwrap_or_else(|| work.own[place].address())
    }

    /// Of a transfer that reads: fills bytes from `offset` within it on, for stores that read by the processor.
    ///
    /// # Panics
    /// When it writes, or the bytes reach beyond its end.
    pub fn fill(&mut self, offset: usize, from: &[u8]) {
        assert!(!self.write && offset + from.len() <= self.len());
        let window = self.memory.frames().window();
        let mut done = 0;
        while done < from.len() {
            let at = offset + done;
            let count = (PAGE_SIZE - at % PAGE_SIZE).min(from.len() - done);
            window.write(self.frame(at / PAGE_SIZE), at % PAGE_SIZE, &from[done..done + count]);
            done += count;
        }
    }

    /// Copies bytes from `offset` within it on, for stores that write by the processor. Threads may write to pages that are
    /// stored at the same time: then the bytes are some mixture, and the page is written again later.
    ///
    /// # Panics
    /// When the bytes reach beyond its end.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        assert!(offset + to.len() <= self.len());
        let window = self.memory.frames().window();
        let mut done = 0;
        while done < to.len() {
            let at = offset + done;
            let count = (PAGE_SIZE - at % PAGE_SIZE).min(to.len() - done);
            window.read(self.frame(at / PAGE_SIZE), at % PAGE_SIZE, &mut to[done..done + count]);
            done += count;
        }
    }

    /// Ends the transfer: the first `bytes` bytes are done, and pages that are not among them in whole end with `rest`. More
    /// bytes than there are mean all.
    pub fn complete(mut self, bytes: usize, rest: PageError) {
        self.end(End { bytes, rest });
    }

    fn end(&mut self, end: End) {
        let Some(work) = self.work.take() else { return };
        let before = self.back.ended.lock().replace((work, end));
        debug_assert!(before.is_none(), "a server has one transfer at a time");
        drop(before);
        self.back.arrived.wake_all();
    }
}

impl Drop for BlockTransfer {
    fn drop(&mut self) {
        self.end(End { bytes: 0, rest: PageError::Abandoned });
    }
}

impl fmt::Debug for BlockTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.write { "write" } else { "read" };
        write!(f, "BlockTransfer({way} at {:#x})", self.offset)
    }
}
