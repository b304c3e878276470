//! Room in a device's queue: who may use how many descriptors, decided before a request is submitted.
//!
//! A request takes one descriptor for its header, one for its status, and one for each segment. Permits
//! are granted first come, first served: a large request that waits is not overtaken by small ones.

use alloc::sync::Arc;
use core::fmt;

use executor::WaitReason;
use executor::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors of a request beside its segments: header and status.
const OVERHEAD: usize = 2;

/// The most requests that can be in flight in a queue of this many descriptors: those of one segment (a
/// flush, which has none, is counted as one).
pub(crate) const fn most_requests(descriptors: usize) -> usize {
    descriptors / (OVERHEAD + 1)
}

/// The free descriptors of one queue.
pub(crate) struct Room {
    free: Arc<Semaphore>,
    descriptors: usize,
}

impl Room {
    pub(crate) fn new(descriptors: usize) -> Self {
        Self { free: Arc::new(Semaphore::with_reason(descriptors, WaitReason::BlockIo)), descriptors }
    }

    /// See [`most_requests`].
    pub(crate) fn most_requests(&self) -> usize {
        most_requests(self.descriptors)
    }

    /// Room for a request of so many segments, if there is some now and nobody waits for it.
    pub(crate) fn try_reserve(&self, segments: usize) -> Option<RoomPermit> {
        let segments = segments.max(1);
        let permit = self.free.clone().try_acquire_many_owned((OVERHEAD + segments) as u32).ok()?;
        Some(RoomPermit { segments, _permit: permit })
    }

    /// Waits for room for a request of so many segments, which must fit into the queue at all.
    ///
    /// # Cancellation
    /// Gives up the place in the line, or the room.
    pub(crate) async fn reserve(&self, segments: usize) -> RoomPermit {
        let segments = segments.max(1);
        let permit = self.free.clone().acquire_many_owned((OVERHEAD + segments) as u32).await;
        RoomPermit { segments, _permit: permit.expect("it is never closed") }
    }
}

/// Room for one request; given back when dropped.
pub(crate) struct RoomPermit {
    segments: usize,
    _permit: OwnedSemaphorePermit,
}

impl RoomPermit {
    /// The most segments that the request may have.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }
}

impl fmt::Debug for RoomPermit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RoomPermit({})", self.segments)
    }
}
