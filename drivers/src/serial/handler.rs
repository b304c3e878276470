//! The interrupt's side of a port, and which interrupts are on.
//!
//! That follows from the rings alone ([`Serial::wanted`]): data ready while the input ring has room,
//! transmitter empty while the output ring has bytes. Whoever changes a ring calls [`Serial::nudge`];
//! [`Serial::settle`] writes the register and looks again, so of two that do so at once the later one
//! leaves the right value.
//!
//! **The interrupt is edge-triggered** (ISA). The handler turns all sources off first and on again last,
//! so whatever is pending at its end makes a new edge, and one pass is enough.

use core::sync::atomic::{Ordering, fence};

use uart_16550::spec::FIFO_SIZE;
use uart_16550::spec::registers::{IER, LSR, offsets};

use super::{OUTPUT_BYTES, Registers, Serial};

/// Bytes received in one pass of the handler; more come with the next edge.
const INPUT_PASS: usize = 64;

impl<R: Registers> Serial<R> {
    /// The handler: takes what was received, gives the transmitter more, wakes. The kernel sends the end
    /// of interrupt afterwards. One CPU at a time (a line is routed to one CPU).
    pub fn interrupt(&self) {
        self.counters.interrupts.fetch_add(1, Ordering::Relaxed);
        self.registers.write(offsets::IER, 0);
        self.receive();
        self.transmit();
        self.settle();
    }

    fn receive(&self) {
        let mut received = 0;
        for _ in 0..INPUT_PASS {
            if self.input.is_full() {
                break;
            }
            let status = self.status();
            if !status.contains(LSR::DATA_READY) {
                break;
            }
            let byte = self.registers.read(offsets::DATA);
            if status.intersects(LSR::PARITY_ERROR | LSR::FRAMING_ERROR | LSR::BREAK_INTERRUPT) {
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
            } else if self.input.push(byte) {
                received += 1;
            }
        }
        if received > 0 {
            self.counters.received.fetch_add(received, Ordering::Relaxed);
            self.input_ready.signal();
        }
    }

    fn transmit(&self) {
        // If `write_now` has the transmitter, it will settle when it is done.
        if self.sending.swap(true, Ordering::Acquire) {
            return;
        }
        let mut sent = 0;
        if self.status().contains(LSR::THR_EMPTY) {
            for byte in core::iter::from_fn(|| self.output.pop()).take(FIFO_SIZE) {
                self.transmit_byte(byte);
                sent += 1;
            }
        }
        self.sending.store(false, Ordering::SeqCst);
        self.counters.sent.fetch_add(sent, Ordering::Relaxed);
        if sent > 0 {
            self.signal_mirror();
        }
        // Waking a writer for each FIFO would cost more than the bytes do: it waits for half of the ring.
        if sent > 0 && self.output.len() <= OUTPUT_BYTES / 2 {
            self.output_room.signal();
        }
    }

    /// The line status. Reading it clears its error flags, so they are counted here and nowhere else.
    pub(super) fn status(&self) -> LSR {
        let status = LSR::from_bits_retain(self.registers.read(offsets::LSR));
        if status.contains(LSR::OVERRUN_ERROR) {
            self.counters.overruns.fetch_add(1, Ordering::Relaxed);
        }
        status
    }

    /// The sources that should be on, as the rings stand.
    fn wanted(&self) -> IER {
        let mut sources = IER::empty();
        if self.driven.load(Ordering::SeqCst) {
            sources.set(IER::DATA_READY, !self.input.is_full());
            let free = !self.sending.load(Ordering::SeqCst);
            sources.set(IER::THR_EMPTY, free && !self.output.is_empty());
        }
        sources
    }

    /// Turns on what should be on. If the rings change meanwhile it does so again; the one who changed
    /// them either sees the new value of `enabled` or is seen here, by the two fences.
    pub(super) fn settle(&self) {
        loop {
            let wanted = self.wanted();
            self.enabled.store(wanted.bits(), Ordering::SeqCst);
            self.registers.write(offsets::IER, wanted.bits());
            fence(Ordering::SeqCst);
            if self.wanted() == wanted {
                return;
            }
        }
    }

    /// To be called after a ring has changed: settles if that calls for it.
    pub(super) fn nudge(&self) {
        fence(Ordering::SeqCst);
        if self.enabled.load(Ordering::SeqCst) != self.wanted().bits() {
            self.settle();
        }
    }
}
