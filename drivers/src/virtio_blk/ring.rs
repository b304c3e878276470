//! The queue in memory that the device shares: headers, descriptors, status bytes.
//!
//! What the device can write is read once and judged elsewhere (`completion`); the descriptors that it
//! could spoil have copies that it cannot reach (`virtio-drivers` keeps them).
#![allow(unsafe_code, reason = "memory that a device reads and writes")]

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use crate::block::{Operation, Segments};
use crate::completion::{Broken, Queue, Token, Used};
use crate::dma::{DmaBuffer, Machine, Segment};
use crate::room::most_requests;
use crate::virtio::{Device, Doorbell, ProbeError};

/// Descriptors of the queue.
pub(super) const DESCRIPTORS: usize = 256;
/// The most segments of a request, whatever the device can do: a quarter of the queue's descriptors are enough for them.
pub(super) const MAX_SEGMENTS: usize = DESCRIPTORS / 4;
/// The device's request queue.
pub(super) const QUEUE: u16 = 0;

/// A request's header and status, in memory of our own that is allocated once.
const RECORD_BYTES: usize = 32;
const HEADER_BYTES: u32 = 16;
const STATUS_OFFSET: usize = 16;
const RECORDS: usize = most_requests(DESCRIPTORS);

/// What the status byte holds until the device writes it; no device answers this.
const UNANSWERED: u8 = 0xff;

/// The queue with everything that belongs to it. Dropping it stops the device first.
pub(super) struct Ring {
    queue: VirtQueue<Machine, DESCRIPTORS>,
    device: Device,
    doorbell: Doorbell,
    records: DmaBuffer,
    free_records: Vec<u8>,
    /// The record of the request with each token.
    record_of: [u8; DESCRIPTORS],
}

impl Ring {
    /// Sets the queue up and tells the device that it may begin.
    pub(super) fn start(mut device: Device, doorbell: Doorbell) -> Result<Self, ProbeError> {
        let records = DmaBuffer::new(RECORDS * RECORD_BYTES).ok_or(ProbeError::NoMemory)?;
        let queue = VirtQueue::new(&mut *device.transport, QUEUE, false, false).map_err(ProbeError::Queue)?;
        device.transport.finish_init();
        Ok(Self {
            queue,
            device,
            doorbell,
            records,
            free_records: (0..RECORDS as u8).collect(),
            record_of: [0; DESCRIPTORS],
        })
    }

    fn header(&self, record: u8) -> Segment {
        let phys = self.records.segment().phys() + (usize::from(record) * RECORD_BYTES) as u64;
        // SAFETY: the record is memory of our own; it is in use for one request until `take` frees it.
        unsafe { Segment::new(phys, HEADER_BYTES) }
    }

    fn status(&self, record: u8) -> Segment {
        let phys = self.header(record).phys() + STATUS_OFFSET as u64;
        // SAFETY: as in `header`.
        unsafe { Segment::new(phys, 1) }
    }

    fn write_record(&self, record: u8, op: Operation, sector: u64) {
        let kind: u32 = match op {
            Operation::Read => 0,
            Operation::Write => 1,
            Operation::Flush => 4,
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        // A flush has no place.
        let sector = if op == Operation::Flush { 0 } else { sector };
        bytes[8..16].copy_from_slice(&sector.to_le_bytes());
        bytes[STATUS_OFFSET] = UNANSWERED;
        let place = self.records.pointer(usize::from(record) * RECORD_BYTES);
        // SAFETY: the record is free, so the device does not know of it, and it lies in `records`.
        unsafe { place.cast::<[u8; RECORD_BYTES]>().write_volatile(bytes) };
    }

    fn read_status(&self, record: u8) -> u8 {
        let place = self.records.pointer(usize::from(record) * RECORD_BYTES + STATUS_OFFSET);
        // SAFETY: the byte lies in `records`; a device that writes it at this moment breaks the rules,
        // but makes only the byte's value, which is checked, uncertain.
        unsafe { place.read_volatile() }
    }
}

/// A request's buffers as the library wants them: what the device reads, then what it writes.
///
/// `N` is at least the number of segments and two. Arrays, as nothing here may allocate.
struct Chain<'a, const N: usize> {
    reads: [&'a [u8]; N],
    writes: [&'a mut [u8]; N],
    read: usize,
    written: usize,
}

impl<const N: usize> Chain<'_, N> {
    fn new(header: Segment, status: Segment, op: Operation, segments: &Segments) -> Self {
        let mut chain = Self {
            reads: [&[]; N],
            writes: core::array::from_fn(|_| Default::default()),
            read: 0,
            written: 0,
        };
        chain.push_read(header);
        for &segment in segments {
            match op {
                Operation::Read => chain.push_write(segment),
                Operation::Write | Operation::Flush => chain.push_read(segment),
            }
        }
        chain.push_write(status);
        chain
    }

    fn push_read(&mut self, segment: Segment) {
        self.reads[self.read] = segment.as_device_reads();
        self.read += 1;
    }

    fn push_write(&mut self, segment: Segment) {
        self.writes[self.written] = segment.as_device_writes();
        self.written += 1;
    }
}

impl Ring {
    /// # Safety
    /// The segments stay valid until the token comes back or the device is stopped.
    unsafe fn add<const N: usize>(
        &mut self,
        record: u8,
        op: Operation,
        segments: &Segments,
    ) -> virtio_drivers::Result<Token> {
        let mut chain = Chain::<N>::new(self.header(record), self.status(record), op, segments);
        let (reads, writes) = (&chain.reads[..chain.read], &mut chain.writes[..chain.written]);
        // SAFETY: the caller's promise for the segments; the record is not used again before its request
        // comes back.
        unsafe { self.queue.add(reads, writes) }
    }

    /// # Safety
    /// The token is that of `add` for the same record and segments.
    unsafe fn pop<const N: usize>(
        &mut self,
        token: Token,
        record: u8,
        op: Operation,
        segments: &Segments,
    ) -> virtio_drivers::Result<u32> {
        let mut chain = Chain::<N>::new(self.header(record), self.status(record), op, segments);
        let (reads, writes) = (&chain.reads[..chain.read], &mut chain.writes[..chain.written]);
        // SAFETY: by the caller's promise these are the buffers that were added.
        unsafe { self.queue.pop_used(token, reads, writes) }
    }
}

impl Queue for Ring {
    const TOKENS: usize = DESCRIPTORS;

    fn offer(&mut self, op: Operation, sector: u64, segments: &Segments) -> Result<Token, Broken> {
        let record = self.free_records.pop().ok_or(Broken)?;
        self.write_record(record, op, sector);
        // SAFETY: the segments belong to the request's client, which is told after `take` or `stop`.
        let token = unsafe {
            match segments.len() {
                0..=2 => self.add::<4>(record, op, segments),
                3..=MAX_SEGMENTS => self.add::<{ MAX_SEGMENTS + 2 }>(record, op, segments),
                _ => return Err(Broken),
            }
        };
        let token = token.map_err(|_| Broken)?;
        *self.record_of.get_mut(usize::from(token)).ok_or(Broken)? = record;
        Ok(token)
    }

    fn notify(&mut self) {
        // The device looks for requests, finds none, asks for notifications, looks again. So the new
        // index must be visible before its wish is read; without the fence both sides can miss.
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            self.doorbell.ring();
        }
    }

    fn ask_for_interrupts(&mut self, asked: bool) {
        self.queue.set_dev_notify(asked);
        // The device writes what it hands back, then reads this wish; the other way round here, so one of us sees the other.
        fence(Ordering::SeqCst);
    }

    fn peek(&self) -> Option<Token> {
        self.queue.peek_used()
    }

    fn take(&mut self, token: Token, op: Operation, segments: &Segments) -> Result<Used, Broken> {
        let record = *self.record_of.get(usize::from(token)).ok_or(Broken)?;
        // SAFETY: the books pass what they passed to `offer` for this token.
        let written = unsafe {
            match segments.len() {
                0..=2 => self.pop::<4>(token, record, op, segments),
                _ => self.pop::<{ MAX_SEGMENTS + 2 }>(token, record, op, segments),
            }
        };
        let written = written.map_err(|_| Broken)?.into();
        self.free_records.push(record);
        Ok(Used { status: self.read_status(record), written })
    }

    fn needs_reset(&mut self) -> bool {
        self.device.needs_reset()
    }

    fn stop(&mut self) {
        self.device.stop();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop();
    }
}
