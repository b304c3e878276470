//! The serial port (16550): both directions driven by interrupts, without locks.
//!
//! ```text
//! line -> FIFO -> interrupt() -> input ring  -> SerialReader::read (one reader)
//! line <- FIFO <- interrupt() <- output ring <- write_all (writers take turns)
//!              <- write_now (panics and boot messages: empties the ring first)
//! ```
//!
//! **Nothing is lost where the sender can wait.** When the input ring is full the port is no longer read,
//! its FIFO fills, and a sender that sees it full (QEMU's chardev) waits. Another one overruns the FIFO, and
//! that is counted ([`SerialStats::overruns`]).

use core::iter::Peekable;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use executor::WaitReason;
use executor::sync::{Semaphore, Signal};
use uart_16550::spec::FIFO_SIZE;
use uart_16550::spec::registers::{FCR, FifoTriggerLevel, ISR, LCR, LSR, MCR, WordLength, offsets};

use crate::byte_ring::ByteRing;
use crate::mirror::Mirror;
pub use crate::port::Com;
use crate::quiet::without_interrupts;

mod handler;
mod reader;
#[cfg(test)]
mod tests;

pub use reader::SerialReader;

/// Bytes that wait for the reader.
const INPUT_BYTES: usize = 4096;
/// Bytes that wait for the line.
const OUTPUT_BYTES: usize = 16384;
/// Looks at the line status before `write_now` gives up on a line that takes nothing: some 0.2 s.
const PATIENCE: u32 = 200_000;

/// The port's registers; a seam for tests. Both are interrupt-safe.
pub trait Registers {
    /// Reads the register at an offset (0..8).
    fn read(&self, offset: usize) -> u8;
    /// Writes it.
    fn write(&self, offset: usize, value: u8);
}

/// A serial port. Meant to be a `static`; interrupt-safe where said.
#[derive(Debug)]
pub struct Serial<R = Com> {
    registers: R,
    input: ByteRing<INPUT_BYTES>,
    output: ByteRing<OUTPUT_BYTES>,
    input_ready: Signal,
    output_room: Signal,
    /// Whose message goes into the output ring: one writer at a time, which makes the ring's one pusher.
    turn: Semaphore,
    /// Set while somebody writes to the transmitter: the handler or `write_now`.
    sending: AtomicBool,
    /// Set once the interrupt is routed; before that no source is turned on.
    driven: AtomicBool,
    /// The sources that were turned on last.
    enabled: AtomicU8,
    has_reader: AtomicBool,
    /// Has a copy of all that is sent.
    mirror: Option<&'static Mirror>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    interrupts: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    overruns: AtomicU64,
    damaged: AtomicU64,
    unsent: AtomicU64,
}

/// What has gone through a port since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SerialStats {
    /// Interrupts handled.
    pub interrupts: u64,
    /// Bytes received into the input ring.
    pub received: u64,
    /// Bytes given to the transmitter.
    pub sent: u64,
    /// Times that the line was faster than we: at least one byte was lost each time.
    pub overruns: u64,
    /// Bytes thrown away because they arrived damaged (parity, framing, break).
    pub damaged: u64,
    /// Bytes that `write_now` gave up, as the line took nothing.
    pub unsent: u64,
}

impl Serial<Com> {
    /// A port that nothing has been done to yet. Call [`init`](Self::init) before anything else.
    pub const fn new(port: Com) -> Self {
        Self::with_registers(port, None)
    }

    /// The same, with a copy of all that is sent.
    pub const fn mirrored(port: Com, mirror: &'static Mirror) -> Self {
        Self::with_registers(port, Some(mirror))
    }
}

impl<R> Serial<R> {
    const fn with_registers(registers: R, mirror: Option<&'static Mirror>) -> Self {
        Self {
            registers,
            input: ByteRing::new(),
            output: ByteRing::new(),
            input_ready: Signal::new(WaitReason::Serial),
            output_room: Signal::new(WaitReason::Serial),
            turn: Semaphore::with_reason(1, WaitReason::Serial),
            sending: AtomicBool::new(false),
            driven: AtomicBool::new(false),
            enabled: AtomicU8::new(0),
            has_reader: AtomicBool::new(false),
            mirror,
            counters: Counters {
                interrupts: AtomicU64::new(0),
                received: AtomicU64::new(0),
                sent: AtomicU64::new(0),
                overruns: AtomicU64::new(0),
                damaged: AtomicU64::new(0),
                unsent: AtomicU64::new(0),
            },
        }
    }
}

impl<R: Registers> Serial<R> {
    /// Sets the port to 115,200 baud, 8 bits, no parity, FIFOs on, interrupts off. False if there is no 16550A,
    /// whose FIFOs everything here counts on. From here on [`write_now`](Self::write_now) works. For boot, once.
    #[must_use]
    pub fn init(&self) -> bool {
        let line = LCR::empty().set_word_length(WordLength::EightBits);
        self.registers.write(offsets::LCR, 0);
        self.registers.write(offsets::IER, 0);
        self.registers.write(offsets::LCR, (line | LCR::DLAB).bits());
        self.registers.write(offsets::DLL, 1);
        self.registers.write(offsets::DLM, 0);
        self.registers.write(offsets::LCR, line.bits());
        let fifo = FCR::FIFO_ENABLE | FCR::RX_FIFO_RESET | FCR::TX_FIFO_RESET;
        let fifo = fifo.set_fifo_trigger_level(FifoTriggerLevel::Fourteen);
        self.registers.write(offsets::FCR, fifo.bits());
        // Not by the scratch register: something else may have its address. Where nothing is, all bits read as set.
        let fifos = ISR::FIFOS_ENABLED0 | ISR::FIFOS_ENABLED1;
        let is_there = self.registers.read(offsets::LCR) == line.bits();
        if !is_there || !ISR::from_bits_retain(self.registers.read(offsets::ISR)).contains(fifos) {
            return false;
        }
        let modem = MCR::DTR | MCR::RTS | MCR::OUT_2_INT_ENABLE;
        self.registers.write(offsets::MCR, modem.bits());
        true
    }

    /// Turns interrupts on. Call once, after [`init`](Self::init), when the kernel has routed the port's
    /// line ([`Com::irq`], edge-triggered, active high) to [`interrupt`](Self::interrupt) and unmasked it.
    pub fn start(&self) {
        self.driven.store(true, Ordering::SeqCst);
        self.settle();
    }

    /// Writes all bytes, waiting for room in the ring as often as it takes. Messages of several writers
    /// follow each other whole.
    ///
    /// # Cancellation
    /// What is in the ring by then is sent; the rest is not. The next writer's turn comes.
    pub async fn write_all(&self, bytes: &[u8]) {
        let _turn = self.turn.acquire().await.expect("it is never closed");
        let mut rest = bytes;
        loop {
            let pushed = rest.iter().take_while(|&&byte| self.output.push(byte)).count();
            self.nudge();
            rest = &rest[pushed..];
            if rest.is_empty() {
                return;
            }
            self.output_room.wait().await;
        }
    }

    /// Writes synchronously: first what is in the ring, then these bytes. Returns when the line has them.
    ///
    /// May be called from anywhere, in any state: it takes no lock, and the wait for another CPU that is
    /// writing is bounded. This is the one place of the driver that spins; a line that takes nothing for
    /// 0.2 s makes it give up, and the bytes are counted as [`SerialStats::unsent`]. Interrupts are off
    /// meanwhile, so it is for panics and boot messages; tasks use [`write_all`](Self::write_all).
    pub fn write_now(&self, bytes: &[u8]) {
        without_interrupts(|| {
            let claimed = self.spin_until(|| !self.sending.swap(true, Ordering::Acquire));
            let queued = core::iter::from_fn(|| self.output.pop()).take(OUTPUT_BYTES);
            let mut message = bytes.iter().copied().peekable();
            // On a line that takes nothing, what is queued stays queued.
            if !self.send_now(&mut queued.peekable()) || !self.send_now(&mut message) {
                self.counters.unsent.fetch_add(message.count() as u64, Ordering::Relaxed);
            }
            self.spin_until(|| self.status().contains(LSR::TRANSMITTER_EMPTY));
            // Not ours: whoever has it will let it go, or never will because this is its panic.
            if claimed {
                self.sending.store(false, Ordering::SeqCst);
            }
            self.nudge();
            self.output_room.signal();
            self.signal_mirror();
        });
    }

    /// For a panic, when every other CPU stands still for good: whoever was writing never goes on, so nobody waits for
    /// it any more.
    pub fn take_over(&self) {
        self.sending.store(false, Ordering::SeqCst);
    }

    /// Writes bytes as fast as the line takes them; false if it takes nothing any more.
    fn send_now(&self, bytes: &mut Peekable<impl Iterator<Item = u8>>) -> bool {
        loop {
            // Looking at the first byte may take it out of the ring, so the line is looked at before.
            if !self.spin_until(|| self.status().contains(LSR::THR_EMPTY)) {
                return false;
            }
            if bytes.peek().is_none() {
                return true;
            }
            for byte in bytes.take(FIFO_SIZE) {
                self.transmit_byte(byte);
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The port is ready for it, and nobody else transmits.
    fn transmit_byte(&self, byte: u8) {
        self.registers.write(offsets::DATA, byte);
        if let Some(mirror) = self.mirror {
            mirror.push(byte);
        }
    }

    fn signal_mirror(&self) {
        if let Some(mirror) = self.mirror {
            mirror.signal();
        }
    }

    fn spin_until(&self, mut condition: impl FnMut() -> bool) -> bool {
        (0..PATIENCE).any(|_| {
            condition() || {
                core::hint::spin_loop();
                false
            }
        })
    }

    /// Takes the reading side; `None` while somebody has it.
    pub fn reader(&self) -> Option<SerialReader<'_, R>> {
        (!self.has_reader.swap(true, Ordering::AcqRel)).then_some(SerialReader { serial: self })
    }

    /// What has gone through the port. May be called from anywhere.
    pub fn stats(&self) -> SerialStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SerialStats {
            interrupts: get(&self.counters.interrupts),
            received: get(&self.counters.received),
            sent: get(&self.counters.sent),
            overruns: get(&self.counters.overruns),
            damaged: get(&self.counters.damaged),
            unsent: get(&self.counters.unsent),
        }
    }
}
