//! What is asked of a block device, by whom, and how it is answered. Nothing of it is bound to one kind
//! of device.

use alloc::boxed::Box;
use core::fmt;

use smallvec::SmallVec;

pub use crate::dma::Segment;

/// Bytes of a sector: the unit of positions and lengths.
pub const SECTOR_BYTES: u64 = 512;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the device into memory.
    Read,
    /// From memory to the device. Durable only after a later `Flush` has completed.
    Write,
    /// Makes all writes durable that have completed before.
    Flush,
}

/// The segments of a request; two of them need no allocation.
pub type Segments = SmallVec<[Segment; 2]>;

/// One request to a block device.
pub struct BlockRequest {
    /// What to do.
    pub op: Operation,
    /// The first sector. Ignored by `Flush`.
    pub sector: u64,
    /// The memory, in order; each a whole number of sectors. None for `Flush`, else at least one.
    pub segments: Segments,
    /// Who owns the memory and is told the end.
    pub client: Box<dyn BlockClient>,
}

impl fmt::Debug for BlockRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("BlockRequest");
        fields.field("op", &self.op).field("sector", &self.sector).field("segments", &self.segments);
        fields.finish_non_exhaustive()
    }
}

/// The one a request is for. It owns the memory of the request's segments, directly or not, so that
/// nobody who stops waiting can take memory away from the device.
pub trait BlockClient: Send {
    /// Tells the end of the request. Called exactly once for each request submitted, whatever happens to
    /// the device or its queue, and only when the device no longer touches the segments.
    ///
    /// It is called by the task that owns the queue, between two polls of others, with no lock held; so
    /// it must not wait and should be short (pass the result on, wake). The one exception: if that task
    /// has been ended, [`submit`](crate::virtio_blk::Slot::submit) itself answers.
    fn complete(self: Box<Self>, result: Result<(), BlockError>);
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The device: it failed to read or write, or answered nonsense.
    Io,
    /// The requester: sectors beyond the device's end.
    OutOfRange,
    /// The requester: a write to a device that only reads.
    ReadOnly,
    /// The device does not know this operation.
    Unsupported,
    /// The requester: segments that are none, empty, no whole number of sectors, or more than reserved.
    Malformed,
    /// The device is gone, broken, or its queue was shut down.
    DeviceGone,
}

impl fmt::Display for BlockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Io => "the device reports an I/O error",
            Self::OutOfRange => "the sectors lie beyond the device's end",
            Self::ReadOnly => "the device is read-only",
            Self::Unsupported => "the device does not support this operation",
            Self::Malformed => "the request's memory does not fit its sectors",
            Self::DeviceGone => "the device is gone",
        })
    }
}

impl core::error::Error for BlockError {}

/// What a device has said of itself when it was probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) sectors: u64,
    pub(crate) read_only: bool,
    pub(crate) can_flush: bool,
}

impl Geometry {
    /// Checks a request before the device sees it: everything in it is an allegation.
    ///
    /// `room` is the number of segments that were reserved for it.
    pub(crate) fn check(
        &self,
        op: Operation,
        sector: u64,
        segments: &[Segment],
        room: usize,
    ) -> Result<(), BlockError> {
        if op == Operation::Flush {
            return match (segments.is_empty(), self.can_flush) {
                (false, _) => Err(BlockError::Malformed),
                (true, false) => Err(BlockError::Unsupported),
                (true, true) => Ok(()),
            };
        }
        let is_whole = |segment: &Segment| {
            let bytes = u64::from(segment.bytes());
            bytes != 0 && bytes % SECTOR_BYTES == 0 && segment.phys().checked_add(bytes).is_some()
        };
        if segments.is_empty() || segments.len() > room || !segments.iter().all(is_whole) {
            return Err(BlockError::Malformed);
        }
        // At most some hundred segments of 32 bits: no overflow.
        let sectors = bytes_of(segments) / SECTOR_BYTES;
        if sector.checked_add(sectors).is_none_or(|end| end > self.sectors) {
            return Err(BlockError::OutOfRange);
        }
        if op == Operation::Write && self.read_only {
            return Err(BlockError::ReadOnly);
        }
        Ok(())
    }
}

/// Bytes of all segments together.
pub(crate) fn bytes_of(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.bytes())).sum()
}
