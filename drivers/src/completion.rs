//! The way of a block request: from the client into the device's queue, and from an interrupt back.
//!
//! ```text
//! reserve -> submit -> inbox -> [ queue task: gather, check, offer, notify ] -> device
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
//! **No completion is lost.** The device raises its interrupt after it has written to the used ring, unless
//! we ask it not to, which we do while the task is about to look anyway: from its wake to its next wait. Before
//! it waits it asks for interrupts again and looks once more: a completion before that look is found by it, and a
//! later one raises the flag. The task clears the flag, then drains until the ring is empty, then waits. A
//! completion after the last look raises the flag again, and the wait returns at once.
//!
//! **No client is forgotten.** A request that is taken up is a [`Pending`], whose drop answers
//! `DeviceGone` if nobody has answered before. Requests in flight are dropped only after
//! [`Queue::stop`], which returns when the device has lost its access to memory.
//!
//! **A device that answers nonsense** harms its own requests only: a bad status or length is that
//! request's `Io` error; a token that was never offered, or a ring that contradicts itself, means that
//! nothing it says can be believed, and it counts as gone.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::WaitReason;
use executor::lock::SpinLock;
use executor::sync::Signal;

use crate::block::{BlockError, BlockRequest, Geometry, Operation, Segments};
use crate::room::{Room, RoomPermit};

mod gathering;
mod pending;
mod server;
#[cfg(test)]
mod tests;

use gathering::Gathering;
use pending::Pending;
use server::Server;

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
    /// Asks the device for interrupts, or says that none is needed for now: it may come all the same. What is handed back
    /// after this has returned raises one if they are asked for.
    fn ask_for_interrupts(&mut self, asked: bool);
    /// The token of the next request that the device has handed back. It may be anything.
    fn peek(&self) -> Option<Token>;
    /// Takes that request back. `op` and `segments` are those it was offered with.
    fn take(&mut self, token: Token, op: Operation, segments: &Segments) -> Result<Used, Broken>;
    /// True if the device says that it needs a reset. Asked after a drain, outside the fast path.
    fn needs_reset(&mut self) -> bool;
    /// Ends the device's access to memory; when this returns it writes nothing more.
    fn stop(&mut self);
}

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
    let mut gathering = Gathering::default();
    loop {
        server.turn();
        server.before_wait();
        server.desk.attention.wait().await;
        server.after_wait();
        gathering.wait(|| server.desk.inbox.lock().waiting.len()).await;
        // What was signalled meanwhile is seen by the turn that follows.
        server.desk.attention.take();
    }
}
