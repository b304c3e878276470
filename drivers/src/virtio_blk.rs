//! The virtio block device: asynchronous requests over PCI, completed by interrupt and never polled.
//!
//! ```text
//! virtio_blk          the handle: reserve, submit, read, write, flush; what the kernel's handler calls
//!   ├─ completion     the queue task and its books (knows no hardware)
//!   ├─ room           who may use how many descriptors
//!   └─ virtio_blk/
//!        ├─ probe     what is special about a block device (the rest: virtio)
//!        └─ ring      the queue in memory that the device shares
//! ```
//!
//! The queue has 256 descriptors. A request takes two for its header and its status and one for each
//! segment; [`VirtioBlk::reserve`] waits until as many are free, first come, first served, so that
//! [`Slot::submit`] neither waits nor fails. 85 requests of one segment can be in flight together.
//!
//! # For the kernel
//! Choose a vector for each device, [`probe`](VirtioBlk::probe) it, call
//! [`interrupt`](VirtioBlk::interrupt) from that vector's handler and send the end of interrupt to the
//! local APIC afterwards (message-signalled: no I/O APIC is involved), and spawn
//! [`serve`](VirtioBlk::serve) as a task. Probe before interrupts can arrive or with the handler already
//! in place; nothing is raised before the first request.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::lock::SpinLock;
use executor::sync::oneshot;
use smallvec::smallvec;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::block::{BlockClient, BlockError, BlockRequest, Operation, Segments};
use crate::completion::{self, Desk};
use crate::dma::DmaBuffer;
use crate::pci::{Function, InterruptTarget};
use crate::room::RoomPermit;
use crate::virtio::ProbeError;

mod probe;
mod ring;

use ring::Ring;

/// A virtio block device. Shared by everybody who uses it; what the device does is up to the one task
/// that runs [`serve`](Self::serve).
pub struct VirtioBlk {
    address: DeviceFunction,
    desk: Arc<Desk>,
    /// The queue, until the task that serves it takes it.
    ring: SpinLock<Option<Ring>>,
    max_segments: usize,
}

/// What has gone through a device since it was probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Requests taken up.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Requests that the device has now: offered to it and not yet handed back.
    pub in_flight: u64,
    /// The most requests that it has had at once.
    pub max_in_flight: u64,
    /// Interrupts handled.
    pub interrupts: u64,
}

impl VirtioBlk {
    /// Sets a device up, with its interrupts going to the given vector and CPU. For boot; spins for as
    /// long as the device takes to answer.
    ///
    /// # Errors
    /// [`ProbeError`]; the device is not used then.
    pub fn probe(function: &Function, interrupt: InterruptTarget) -> Result<Arc<Self>, ProbeError> {
        let probe::Probed { ring, geometry, max_segments } = probe::probe(function, interrupt)?;
        Ok(Arc::new(Self {
            address: function.address,
            desk: Arc::new(Desk::new(geometry, ring::DESCRIPTORS)),
            ring: SpinLock::new("block ring", Some(ring)),
            max_segments,
        }))
    }

    /// The handler: counts and wakes. (A message needs no acknowledgement at the device.) The kernel
    /// sends the end of interrupt afterwards.
    pub fn interrupt(&self) {
        self.desk.interrupt();
    }

    /// The task that owns the queue: offers what is submitted, hands back what is completed. Spawn it
    /// once; a second one waits for ever.
    ///
    /// # Cancellation
    /// Ends the device: it is reset, everybody waiting is answered with [`BlockError::DeviceGone`], and
    /// so is everybody who submits later.
    pub async fn serve(self: Arc<Self>) -> ! {
        let ring = self.ring.lock().take();
        match ring {
            Some(ring) => completion::serve(self.desk.clone(), ring).await,
            None => core::future::pending().await,
        }
    }

    /// Where the device is on the PCI bus.
    pub fn address(&self) -> DeviceFunction {
        self.address
    }

    /// The device's size in sectors of 512 bytes.
    pub fn capacity_sectors(&self) -> u64 {
        self.desk.geometry.sectors
    }

    /// True if the device refuses writes.
    pub fn read_only(&self) -> bool {
        self.desk.geometry.read_only
    }

    /// False if the device knows no `Flush`, as its completed writes are durable.
    pub fn can_flush(&self) -> bool {
        self.desk.geometry.can_flush
    }

    /// The most segments that one request may have.
    pub fn max_segments(&self) -> usize {
        self.max_segments
    }

    /// Waits for room for a request of at most one segment. First come, first served.
    ///
    /// # Cancellation
    /// Gives up the place in the line, or the room if it has been granted already.
    pub async fn reserve(&self) -> Slot {
        let permit = self.desk.room.reserve(1).await;
        Slot { desk: self.desk.clone(), permit }
    }

    /// Waits for room for a request of up to `segments` segments.
    ///
    /// # Errors
    /// [`BlockError::Malformed`] if that is more than [`max_segments`](Self::max_segments).
    ///
    /// # Cancellation
    /// As [`reserve`](Self::reserve).
    pub async fn reserve_for(&self, segments: usize) -> Result<Slot, BlockError> {
        if segments > self.max_segments {
            return Err(BlockError::Malformed);
        }
        let permit = self.desk.room.reserve(segments).await;
        Ok(Slot { desk: self.desk.clone(), permit })
    }

    /// Room for a request of up to `segments` segments, if there is some now and nobody waits for it.
    pub fn try_reserve_for(&self, segments: usize) -> Option<Slot> {
        let fits = segments <= self.max_segments;
        let permit = fits.then(|| self.desk.room.try_reserve(segments))??;
        Some(Slot { desk: self.desk.clone(), permit })
    }

    /// Reads sectors into a buffer, whose size must be a whole number of sectors, and gives it back.
    ///
    /// # Cancellation
    /// The request goes on, and the buffer is freed when the device has completed it.
    pub async fn read(&self, sector: u64, buffer: DmaBuffer) -> (Result<(), BlockError>, DmaBuffer) {
        self.transfer(Operation::Read, sector, buffer).await
    }

    /// Writes a buffer, whose size must be a whole number of sectors, and gives it back. Durable after
    /// the next [`flush`](Self::flush).
    ///
    /// # Cancellation
    /// As [`read`](Self::read); the write may or may not happen.
    pub async fn write(&self, sector: u64, buffer: DmaBuffer) -> (Result<(), BlockError>, DmaBuffer) {
        self.transfer(Operation::Write, sector, buffer).await
    }

    async fn transfer(
        &self,
        op: Operation,
        sector: u64,
        buffer: DmaBuffer,
    ) -> (Result<(), BlockError>, DmaBuffer) {
        let slot = self.reserve().await;
        let (sender, receiver) = oneshot::channel();
        let segments = smallvec![buffer.segment()];
        let client = Box::new(Transfer { buffer, answer: sender });
        slot.submit(BlockRequest { op, sector, segments, client });
        receiver.await.expect("each client is told once")
    }

    /// Makes all writes durable that have completed before.
    ///
    /// # Errors
    /// Why the device did not: its writes may then be lost.
    ///
    /// # Cancellation
    /// The flush goes on.
    pub async fn flush(&self) -> Result<(), BlockError> {
        self.reserve().await.flush().await
    }

    /// What has gone through the device. May be called from anywhere.
    pub fn stats(&self) -> BlockStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.desk.counters;
        BlockStats {
            requests: get(&counters.requests),
            errors: get(&counters.errors),
            in_flight: get(&counters.in_flight),
            max_in_flight: get(&counters.max_in_flight),
            interrupts: get(&counters.interrupts),
        }
    }
}

impl fmt::Debug for VirtioBlk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("VirtioBlk");
        fields.field("address", &self.address).field("geometry", &self.desk.geometry);
        fields.finish_non_exhaustive()
    }
}

/// Room in a device's queue for one request. Dropping it gives the room back.
pub struct Slot {
    desk: Arc<Desk>,
    permit: RoomPermit,
}

impl Slot {
    /// The most segments that the request may have.
    pub fn segments(&self) -> usize {
        self.permit.segments()
    }

    /// Hands a request to the task that owns the queue. Neither waits nor fails: whatever is wrong, its
    /// client is told ([`BlockClient::complete`]).
    pub fn submit(self, request: BlockRequest) {
        self.desk.submit(request, self.permit);
    }

    /// Asks the device to make all writes durable that have completed before, as [`VirtioBlk::flush`] does where
    /// there is room. What it takes of the heap it takes within the call.
    ///
    /// # Cancellation
    /// Dropping what is returned lets the flush go on.
    pub fn flush(self) -> impl Future<Output = Result<(), BlockError>> {
        let (sender, receiver) = oneshot::channel();
        let client = Box::new(Flushed(sender));
        self.submit(BlockRequest { op: Operation::Flush, sector: 0, segments: Segments::new(), client });
        async { receiver.await.expect("each client is told once") }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slot").field("segments", &self.segments()).finish_non_exhaustive()
    }
}

/// The client of `read` and `write`: owns the buffer for as long as the device may touch it.
struct Transfer {
    buffer: DmaBuffer,
    answer: oneshot::Sender<(Result<(), BlockError>, DmaBuffer)>,
}

impl BlockClient for Transfer {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        // Nobody waits any more: the buffer is freed here.
        let _unwanted = self.answer.send((result, self.buffer));
    }
}

struct Flushed(oneshot::Sender<Result<(), BlockError>>);

impl BlockClient for Flushed {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        let _unwanted = self.0.send(result);
    }
}
