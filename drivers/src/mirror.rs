//! What goes out of a serial port, kept for whoever shows it somewhere else: the last 64 KiB.
//!
//! | | push | read |
//! | --- | --- | --- |
//! | **push** | excluded by the port: one CPU at a time sends | the count is written after the byte |
//! | **read** | what may have been overwritten meanwhile is missed, and counted | one reader, which owns its place |
//!
//! So a push is a store and an atomic maximum, may stand in an interrupt handler, and never waits for a reader. A port whose
//! sender was given up (see [`Serial::write_now`](crate::serial::Serial::write_now)) may have two pushers for a while: then
//! bytes are lost or come twice here, not on the line.

use core::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use executor::{
    WaitReason,
    sync::{Signal, SignalWait},
};

const BYTES: usize = Mirror::BYTES;

/// The last bytes that a port has sent. Meant to be a `static`.
#[derive(Debug)]
pub struct Mirror {
    places: [AtomicU8; BYTES],
    /// Bytes pushed since the start.
    written: AtomicUsize,
    more: Signal,
}

impl Mirror {
    /// Bytes that are kept.
    pub const BYTES: usize = 64 * 1024;

    /// Nothing was sent yet.
    #[expect(clippy::new_without_default, reason = "it is a static for one port, not a value")]
    pub const fn new() -> Self {
        Self {
            places: [const { AtomicU8::new(0) }; BYTES],
            written: AtomicUsize::new(0),
            more: Signal::new(WaitReason::Serial),
        }
    }

    /// Adds a byte. One caller at a time. Interrupt-safe.
    pub(crate) fn push(&self, byte: u8) {
        self.push_at(self.written.load(Relaxed), byte);
    }

    fn push_at(&self, written: usize, byte: u8) {
        // Nobody takes the new byte for the one that was here before.
        fence(Release);
        self.places[written % BYTES].store(byte, Relaxed);
        // Never back: a second pusher may have gone on meanwhile.
        self.written.fetch_max(written + 1, Release);
    }

    /// Wakes who waits for [`more`](Self::more). Interrupt-safe.
    pub fn signal(&self) {
        self.more.signal();
    }

    /// Waits until something was pushed since the last wait, or [`signal`](Self::signal) was called. One task at a time.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub fn more(&self) -> SignalWait<'_> {
        self.more.wait()
    }
}

/// A place in a mirror; the first is its beginning. Whoever reads there owns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorPlace(usize);

impl MirrorPlace {
    /// Reads what follows into `bytes`, and goes on behind it. Returns how many bytes these are, and how many before them
    /// were overwritten before they could be read. Zero bytes mean that there are no more.
    pub fn read(&mut self, mirror: &Mirror, bytes: &mut [u8]) -> (usize, usize) {
        let mut missed = 0;
        loop {
            let written = mirror.written.load(Acquire);
            // The oldest place may be written to at this moment.
            let oldest = written.saturating_sub(BYTES - 1);
            missed += oldest.saturating_sub(self.0);
            self.0 = self.0.max(oldest);
            let count = (written - self.0).min(bytes.len());
            for (index, byte) in bytes[..count].iter_mut().enumerate() {
                *byte = mirror.places[(self.0 + index) % BYTES].load(Relaxed);
            }
            fence(Acquire);
            if mirror.written.load(Relaxed).saturating_sub(BYTES - 1) <= self.0 {
                self.0 += count;
                return (count, missed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn all(place: &mut MirrorPlace, mirror: &Mirror) -> (Vec<u8>, usize) {
        let (mut bytes, mut missed) = (Vec::new(), 0);
        loop {
            let mut part = [0; 1000];
            let (count, lost) = place.read(mirror, &mut part);
            missed += lost;
            if count == 0 {
                return (bytes, missed);
            }
            bytes.extend(&part[..count]);
        }
    }

    #[test]
    fn every_byte_is_read_once_and_in_order() {
        let (mirror, mut place) = (Box::new(Mirror::new()), MirrorPlace::default());
        for round in 0..3 {
            let sent: Vec<u8> = (0..50_000_u32).map(|index| (index * 7 + round) as u8).collect();
            sent.iter().for_each(|&byte| mirror.push(byte));
            assert_eq!(all(&mut place, &mirror), (sent, 0));
        }
    }

    #[test]
    fn what_was_overwritten_is_counted_and_the_newest_is_read() {
        let (mirror, mut place) = (Box::new(Mirror::new()), MirrorPlace::default());
        let sent: Vec<u8> = (0..BYTES + 5000).map(|index| (index % 251) as u8).collect();
        sent.iter().for_each(|&byte| mirror.push(byte));
        let (read, missed) = all(&mut place, &mirror);
        assert_eq!(missed + read.len(), sent.len());
        assert_eq!(read, sent[missed..]);
        assert_eq!(missed, 5001, "all but the place that is written next can be read");
    }

    #[test]
    fn a_second_pusher_who_is_late_takes_nothing_back() {
        let (mirror, mut place) = (Box::new(Mirror::new()), MirrorPlace::default());
        (b"abc").iter().for_each(|&byte| mirror.push(byte));
        assert_eq!(all(&mut place, &mirror).0, b"abc");
        mirror.push_at(0, b'x');
        assert_eq!(all(&mut place, &mirror), (Vec::new(), 0));
        mirror.push(b'd');
        assert_eq!(all(&mut place, &mirror), (b"d".to_vec(), 0));
    }

    #[test]
    fn a_reader_beside_the_writer_reads_nothing_that_was_not_written() {
        let mirror = Box::new(Mirror::new());
        let pushed = 100 * BYTES;
        std::thread::scope(|scope| {
            scope.spawn(|| (0..pushed).for_each(|index| mirror.push((index % 251) as u8)));
            let (mut place, mut bytes, mut at) = (MirrorPlace::default(), std::vec![0; BYTES], 0);
            while at < pushed {
                let (count, missed) = place.read(&mirror, &mut bytes);
                at += missed;
                for byte in &bytes[..count] {
                    assert_eq!(usize::from(*byte), at % 251, "byte {at}");
                    at += 1;
                }
            }
        });
    }
}
