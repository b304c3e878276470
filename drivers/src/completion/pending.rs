//! One request on its way: who is told, and what the device's answer means.

use alloc::boxed::Box;

use super::Used;
use crate::block::{BlockClient, BlockError, BlockRequest, Operation, Segments, bytes_of};
use crate::room::RoomPermit;

/// A request on its way, answered exactly once: by `answer`, or at the latest when it is dropped.
pub(super) struct Pending {
    pub(super) op: Operation,
    pub(super) sector: u64,
    pub(super) segments: Segments,
    client: Option<Box<dyn BlockClient>>,
    /// Given back before the client is told, so that its next request finds room.
    permit: Option<RoomPermit>,
}

impl Pending {
    pub(super) fn new(request: BlockRequest, permit: RoomPermit) -> Self {
        let BlockRequest { op, sector, segments, client } = request;
        Self { op, sector, segments, client: Some(client), permit: Some(permit) }
    }

    pub(super) fn answer(mut self, result: Result<(), BlockError>) {
        self.answer_once(result);
    }

    fn answer_once(&mut self, result: Result<(), BlockError>) {
        drop(self.permit.take());
        if let Some(client) = self.client.take() {
            client.complete(result);
        }
    }

    /// How many segments were reserved for it.
    pub(super) fn room(&self) -> usize {
        self.permit.as_ref().map_or(0, RoomPermit::segments)
    }

    /// What the device's answer means.
    pub(super) fn judge(&self, used: Used) -> Result<(), BlockError> {
        let data = if self.op == Operation::Read { bytes_of(&self.segments) } else { 0 };
        match used.status {
            // One byte more: the status itself. A device that wrote less has not filled the memory.
            STATUS_OK if used.written == data + 1 => Ok(()),
            STATUS_UNSUPPORTED => Err(BlockError::Unsupported),
            _ => Err(BlockError::Io),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.answer_once(Err(BlockError::DeviceGone));
    }
}

/// The device's answers: done, and an operation that it does not know. All others are failures.
pub(super) const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
