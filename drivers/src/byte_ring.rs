//! A fixed ring of bytes between an interrupt handler and everybody else, without locks.
//!
//! | | push | pop |
//! | --- | --- | --- |
//! | **push** | excluded by the callers: one pusher at a time | the popper sees a byte only after `tail` says so |
//! | **pop** | the pusher reuses a place only after `head` says so | both may try for one byte; the exchange of `head` decides who has it |
//!
//! So a handler may be the pusher (input) or one of the poppers (output), and the code it interrupts may
//! be at any instruction of the other side.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The ring. `N` must be a power of two, so that the counters may wrap.
#[derive(Debug)]
pub(crate) struct ByteRing<const N: usize> {
    places: [AtomicU8; N],
    /// Bytes popped since the start.
    head: AtomicUsize,
    /// Bytes pushed since the start.
    tail: AtomicUsize,
}

impl<const N: usize> ByteRing<N> {
    const SIZE_IS_FIT: () = assert!(N.is_power_of_two());

    pub(crate) const fn new() -> Self {
        let () = Self::SIZE_IS_FIT;
        Self { places: [const { AtomicU8::new(0) }; N], head: AtomicUsize::new(0), tail: AtomicUsize::new(0) }
    }

    /// Bytes in the ring now. `SeqCst`, as sleepers are woken by what it says.
    pub(crate) fn len(&self) -> usize {
        let head = self.head.load(Ordering::SeqCst);
        // Loaded after `head`, so it is never behind it; a popper in between may make it look longer.
        self.tail.load(Ordering::SeqCst).wrapping_sub(head).min(N)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == N
    }

    /// Appends a byte; false if the ring is full. One caller at a time. Interrupt-safe.
    #[must_use]
    pub(crate) fn push(&self, byte: u8) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire: the place is reused only after its popper has read it.
        if tail.wrapping_sub(self.head.load(Ordering::Acquire)) == N {
            return false;
        }
        self.places[tail % N].store(byte, Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::SeqCst);
        true
    }

    /// Takes the oldest byte. Any number of callers. Interrupt-safe.
    pub(crate) fn pop(&self) -> Option<u8> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if self.tail.load(Ordering::Acquire) == head {
                return None;
            }
            let byte = self.places[head % N].load(Ordering::Relaxed);
            // If another popper took this byte meanwhile (and a pusher perhaps reused its place), `head`
            // has moved on and the exchange fails.
            let next = head.wrapping_add(1);
            match self.head.compare_exchange_weak(head, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return Some(byte),
                Err(now) => head = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let ring = ByteRing::<4>::new();
        for round in 0..10u8 {
            assert!(ring.push(round) && ring.push(round + 100));
            assert_eq!(ring.len(), 2);
            assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(round), Some(round + 100), None));
        }
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let ring = ByteRing::<4>::new();
        assert!((0..4).all(|byte| ring.push(byte)));
        assert!(ring.is_full() && !ring.push(9));
        assert_eq!(ring.pop(), Some(0));
        assert!(ring.push(4) && !ring.push(9));
        assert_eq!(core::iter::from_fn(|| ring.pop()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn two_poppers_share_every_byte_once() {
        static RING: ByteRing<8> = ByteRing::new();
        const BYTES: usize = 20_000;
        let popper = || {
            let mut sums = [0u32; 256];
            let mut last = None;
            while last != Some(255) {
                last = RING.pop();
                if let Some(byte) = last {
                    sums[usize::from(byte)] += 1;
                }
            }
            sums
        };
        let poppers = [thread::spawn(popper), thread::spawn(popper)];
        for position in 0..BYTES {
            while !RING.push((position % 255) as u8) {
                thread::yield_now();
            }
        }
        // One end mark for each popper.
        for _ in 0..2 {
            while !RING.push(255) {
                thread::yield_now();
            }
        }
        let sums = poppers.map(|handle| handle.join().unwrap());
        for (byte, (first, second)) in core::iter::zip(sums[0], sums[1]).enumerate().take(255) {
            let expected = (0..BYTES).filter(|position| position % 255 == byte).count() as u32;
            assert_eq!(first + second, expected, "byte {byte}");
        }
    }
}
