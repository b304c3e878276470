//! The way of a block request: from the client into the device's queue, and from an interrupt back.
//!
//! ```text
//! reserve -> submit -> inbox -> [ queue task: check, offer, notify ] -> device
//!                                                                        |
//! client.complete <- [ queue task: drain, judge, give room back ] <- attention <- interrupt
//! ```
//!
//! One task ([`serve`]) owns the queue, so nothing in it needs a lock. Everybody else sees [`Desk`]: the
//! room (how many descriptors are free), the inbox, the signal that the task waits for, the counters.
//!
//! **Who can meet whom**
//!
//! | | submit | interrupt | queue task |
//! | --- | --- | --- | --- |
//! | **submit** | the inbox's lock; first come, first served | the signal only: one flag | lock held for one push or one swap |
//! | **interrupt** | | one CPU at a time | the flag is cleared *before* the queue is looked at |
//! | **queue task** | | | there is one |
//!
//! **No completion is lost.** The device raises its interrupt after it has written to the used ring, and
//! we never ask it not to. The task clears the flag, then drains until the ring is empty, then waits. A
//! completion after the last look raises the flag again, and the wait returns at once.
//!
//! **No client is forgotten.** A request that is taken up is a [`Pending`], whose drop answers
//! `DeviceGone` if nobody has answered before. Requests in flight are dropped only after
//! [`Queue::stop`], which returns when the device has lost its access to memory.
//!
//! **A device that answers nonsense** harms its own requests only: a bad status or length is that
//! request's `Io` error; a token that was never offered, or a ring that contradicts itself, means that
//! nothing it says can be believed, and it counts as gone.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::WaitReason;
use executor::lock::SpinLock;
use executor::sync::Signal;

use crate::block::{BlockClient, BlockError, BlockRequest, Geometry, Operation, Segments, bytes_of};
use crate::room::{Room, RoomPermit};

#[cfg(test)]
mod tests;

/// The name of a request in the queue: less than [`Queue::TOKENS`].
pub(crate) type Token = u16;

/// The queue has contradicted itself; nothing more that it says is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// A request that the device has handed back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// The status byte that it wrote: 0 for done.
    pub(crate) status: u8,
    /// How many bytes it says that it wrote, the status byte included.
    pub(crate) written: u64,
}

/// The device's queue, as its one owner sees it; a seam between the books and the hardware.
pub(crate) trait Queue: Send + 'static {
    /// Tokens are smaller than this.
    const TOKENS: usize;
    /// Offers a checked request to the device, under a token that no request in flight has. Room for it
    /// has been reserved, so an error means that the queue is broken.
    fn offer(&mut self, op: Operation, sector: u64, segments: &Segments) -> Result<Token, Broken>;
    /// Tells the device that requests have been offered.
    fn notify(&mut self);
    /// The token of the next request that the device has handed back. It may be anything.
    fn peek(&self) -> Option<Token>;
    /// Takes that request back. `op` and `segments` are those it was offered with.
    fn take(&mut self, token: Token, op: Operation, segments: &Segments) -> Result<Used, Broken>;
    /// True if the device says that it needs a reset. Asked after a drain, outside the fast path.
    fn needs_reset(&mut self) -> bool;
    /// Ends the device's access to memory; when this returns it writes nothing more.
    fn stop(&mut self);
}

/// A request on its way, answered exactly once: by `answer`, or at the latest when it is dropped.
struct Pending {
    op: Operation,
    sector: u64,
    segments: Segments,
    client: Option<Box<dyn BlockClient>>,
    /// Given back before the client is told, so that its next request finds room.
    permit: Option<RoomPermit>,
}

impl Pending {
    fn new(request: BlockRequest, permit: RoomPermit) -> Self {
        let BlockRequest { op, sector, segments, client } = request;
        Self { op, sector, segments, client: Some(client), permit: Some(permit) }
    }

    fn answer(mut self, result: Result<(), BlockError>) {
        self.answer_once(result);
    }

    fn answer_once(&mut self, result: Result<(), BlockError>) {
        drop(self.permit.take());
        if let Some(client) = self.client.take() {
            client.complete(result);
        }
    }

    /// What the device's answer means.
    fn judge(&self, used: Used) -> Result<(), BlockError> {
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

const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;

/// What everybody sees of a device's queue.
pub(crate) struct Desk {
    pub(crate) geometry: Geometry,
    pub(crate) room: Arc<Room>,
    inbox: SpinLock<Inbox>,
    /// Raised by the interrupt and by `submit`; the queue task waits for it.
    attention: Signal,
    pub(crate) counters: Counters,
}

struct Inbox {
    /// Never longer than the capacity it is made with: everything in it holds room.
    waiting: VecDeque<Pending>,
    /// The queue task has ended: nobody will look here again.
    closed: bool,
}

/// Written by the queue task, except `interrupts`; read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) max_in_flight: AtomicU64,
    pub(crate) interrupts: AtomicU64,
}

impl Desk {
    /// A desk for a queue with this many descriptors.
    pub(crate) fn new(geometry: Geometry, descriptors: usize) -> Self {
        let room = Room::new(descriptors);
        let most = room.most_requests();
        Self {
            geometry,
            room: Arc::new(room),
            inbox: SpinLock::new(
                "block inbox",
                Inbox { waiting: VecDeque::with_capacity(most), closed: false },
            ),
            attention: Signal::new(WaitReason::BlockIo),
            counters: Counters::default(),
        }
    }

    /// Puts a request into the inbox. Neither waits nor fails; the client is told what becomes of it.
    pub(crate) fn submit(&self, request: BlockRequest, permit: RoomPermit) {
        let pending = Pending::new(request, permit);
        let mut inbox = self.inbox.lock();
        if inbox.closed {
            // The guard goes before the client is told.
            drop(inbox);
            pending.answer(Err(BlockError::DeviceGone));
            return;
        }
        inbox.waiting.push_back(pending);
        drop(inbox);
        self.attention.signal();
    }

    /// The interrupt handler's part.
    pub(crate) fn interrupt(&self) {
        self.counters.interrupts.fetch_add(1, Ordering::Relaxed);
        self.attention.signal();
    }
}

/// The queue task: owns the queue for as long as it is polled. Ended early (dropped), it stops the device
/// and answers everybody with `DeviceGone`.
pub(crate) async fn serve<Q: Queue>(desk: Arc<Desk>, queue: Q) -> ! {
    let mut server = Server::new(desk, queue);
    loop {
        server.turn();
        server.desk.attention.wait().await;
    }
}

struct Server<Q: Queue> {
    desk: Arc<Desk>,
    queue: Q,
    /// Requests that the device has, by token.
    in_flight: Vec<Option<Pending>>,
    /// The device is gone: nothing is offered to it any more.
    gone: bool,
    interrupts_seen: u64,
}

impl<Q: Queue> Server<Q> {
    fn new(desk: Arc<Desk>, queue: Q) -> Self {
        let in_flight = core::iter::repeat_with(|| None).take(Q::TOKENS).collect();
        Self { desk, queue, in_flight, gone: false, interrupts_seen: 0 }
    }

    /// One turn: everything that the device has handed back, then everything that was submitted.
    fn turn(&mut self) {
        if !self.gone && self.drain().is_err() {
            self.give_up();
        }
        self.offer_all();
    }

    fn drain(&mut self) -> Result<(), Broken> {
        let interrupts = self.desk.counters.interrupts.load(Ordering::Relaxed);
        let interrupted = core::mem::replace(&mut self.interrupts_seen, interrupts) != interrupts;
        let mut drained = false;
        while let Some(token) = self.queue.peek() {
            let place = self.in_flight.get_mut(usize::from(token)).ok_or(Broken)?;
            let pending = place.as_ref().ok_or(Broken)?;
            let used = self.queue.take(token, pending.op, &pending.segments)?;
            drained = true;
            if let Some(pending) = place.take() {
                self.desk.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
                let result = pending.judge(used);
                self.answer(pending, result);
            }
        }
        // An interrupt that hands nothing back may say that something else has changed.
        if interrupted && !drained && self.queue.needs_reset() { Err(Broken) } else { Ok(()) }
    }

    fn offer_all(&mut self) {
        let mut offered = false;
        // One at a time: the lock is not held while a client is told.
        while let Some(pending) = self.next_submitted() {
            offered |= self.offer(pending);
        }
        if offered && !self.gone {
            self.queue.notify();
        }
    }

    fn next_submitted(&self) -> Option<Pending> {
        self.desk.inbox.lock().waiting.pop_front()
    }

    /// Offers one request to the device, or answers it. True if the device has it.
    fn offer(&mut self, pending: Pending) -> bool {
        self.desk.counters.requests.fetch_add(1, Ordering::Relaxed);
        let segments = &pending.segments;
        let room = pending.permit.as_ref().map_or(0, RoomPermit::segments);
        let checked = match self.gone {
            true => Err(BlockError::DeviceGone),
            false => self.desk.geometry.check(pending.op, pending.sector, segments, room),
        };
        if let Err(error) = checked {
            self.answer(pending, Err(error));
            return false;
        }
        let token = self.queue.offer(pending.op, pending.sector, segments);
        match token.ok().and_then(|token| self.in_flight.get_mut(usize::from(token))) {
            Some(place @ None) => {
                *place = Some(pending);
                let counters = &self.desk.counters;
                let now = counters.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
                counters.max_in_flight.fetch_max(now, Ordering::Relaxed);
                true
            }
            _ => {
                // The device may have it all the same, so it is stopped before the client is told.
                self.give_up();
                self.answer(pending, Err(BlockError::DeviceGone));
                false
            }
        }
    }

    fn answer(&self, pending: Pending, result: Result<(), BlockError>) {
        if result.is_err() {
            self.desk.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        pending.answer(result);
    }

    /// Declares the device gone: stops it, then answers everything that it had.
    fn give_up(&mut self) {
        if core::mem::replace(&mut self.gone, true) {
            return;
        }
        self.queue.stop();
        for token in 0..self.in_flight.len() {
            if let Some(pending) = self.in_flight[token].take() {
                self.desk.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
                self.answer(pending, Err(BlockError::DeviceGone));
            }
        }
    }
}

impl<Q: Queue> Drop for Server<Q> {
    fn drop(&mut self) {
        // Closed first: whatever is submitted from here on is answered by `submit`.
        self.desk.inbox.lock().closed = true;
        self.give_up();
        // Nothing is offered any more, so this answers what is left.
        self.offer_all();
    }
}
