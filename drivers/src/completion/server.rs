//! The queue task's work: drain, judge, offer, notify.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::pending::Pending;
use super::{Broken, Desk, Queue};
use crate::block::BlockError;

/// The queue task's books: which request the device has under which token.
pub(super) struct Server<Q: Queue> {
    pub(super) desk: Arc<Desk>,
    queue: Q,
    /// Requests that the device has, by token.
    in_flight: Vec<Option<Pending>>,
    /// The device is gone: nothing is offered to it any more.
    gone: bool,
    interrupts_seen: u64,
}

impl<Q: Queue> Server<Q> {
    pub(super) fn new(desk: Arc<Desk>, queue: Q) -> Self {
        let in_flight = core::iter::repeat_with(|| None).take(Q::TOKENS).collect();
        Self { desk, queue, in_flight, gone: false, interrupts_seen: 0 }
    }

    /// One turn: everything that the device has handed back, then everything that was submitted.
    pub(super) fn turn(&mut self) {
        if !self.gone && self.drain().is_err() {
            self.give_up();
        }
        self.offer_all();
    }

    /// From here on the device interrupts: what came before is handed back here.
    pub(super) fn before_wait(&mut self) {
        if self.gone {
            return;
        }
        self.queue.ask_for_interrupts(true);
        if self.queue.peek().is_some() {
            self.turn();
        }
    }

    /// A turn follows: what the device hands back until then needs no interrupt.
    pub(super) fn after_wait(&mut self) {
        if !self.gone {
            self.queue.ask_for_interrupts(false);
        }
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
        let checked = match self.gone {
            true => Err(BlockError::DeviceGone),
            false => self.desk.geometry.check(pending.op, pending.sector, segments, pending.room()),
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
