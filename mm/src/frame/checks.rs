//! What debug builds know about every frame, to find those that are freed twice, written to after they were freed, or
//! never given back. Release builds do nothing here and keep nothing.
//!
//! | state | the frame | checked |
//! | --- | --- | --- |
//! | `UNTOUCHED` | was never handed out | |
//! | `OWNED` | belongs to somebody, or is in quarantine | who gives it back, it is this |
//! | `POISONED` | is free, and full of `POISON` | when it is handed out or cleared, it still is |
//! | `CLEARED` | is free, and full of zeros | when it is handed out or cleared, it still is |
//!
//! States change without a lock: the frame is in nobody's hands but the caller's.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::address_of;
use crate::{PAGE_SIZE, PhysWindow};

const UNTOUCHED: u8 = 0;
const OWNED: u8 = 1;
const POISONED: u8 = 2;
const CLEARED: u8 = 3;

/// What freed frames are full of. An address made of it is not canonical.
const POISON: u8 = 0xdf;

/// Bytes for each frame.
pub(super) const BYTES: usize = if cfg!(debug_assertions) { size_of::<AtomicU8>() } else { 0 };

pub(super) struct Checks {
    window: PhysWindow,
    /// The frame that the first state is about.
    base: u64,
    /// Empty in release builds.
    states: &'static [AtomicU8],
}

impl Checks {
    /// Checks frames from `base` on, each of which has a place among the states.
    pub(super) fn new(window: PhysWindow, base: u64, states: &'static [AtomicU8]) -> Self {
        Self { window, base, states }
    }

    pub(super) const fn fresh() -> AtomicU8 {
        AtomicU8::new(UNTOUCHED)
    }

    /// Free frames get an owner.
    ///
    /// # Panics
    /// When one of them has one, or was written to since it was freed.
    #[inline]
    pub(super) fn hands_out(&self, first: u64, frames: u64) {
        if cfg!(debug_assertions) {
            (first..first + frames).for_each(|frame| self.leaves_free(frame, OWNED));
        }
    }

    /// A free frame is about to be cleared, and stays free.
    ///
    /// # Panics
    /// As `hands_out`.
    pub(super) fn clears(&self, frame: u64) {
        if cfg!(debug_assertions) {
            self.leaves_free(frame, CLEARED);
        }
    }

    /// Frames are about to lose their owner, and nobody sees them any more.
    ///
    /// # Panics
    /// When one of them has none.
    #[inline]
    pub(super) fn takes_back(&self, first: u64, frames: u64) {
        if !cfg!(debug_assertions) {
            return;
        }
        for frame in first..first + frames {
            let before = self.state(frame).swap(POISONED, Relaxed);
            assert_eq!(before, OWNED, "frame {frame:#x} is freed but nobody owned it");
            self.window.bytes_mut(address_of(frame), PAGE_SIZE).fill(POISON);
        }
    }

    /// A frame goes into quarantine.
    ///
    /// # Panics
    /// When it has no owner.
    pub(super) fn quarantines(&self, frame: u64) {
        if cfg!(debug_assertions) {
            let state = self.state(frame).load(Relaxed);
            assert_eq!(state, OWNED, "frame {frame:#x} goes but nobody owned it");
        }
    }

    /// The frames that somebody owns, or that are in quarantine.
    pub(super) fn owned(&self) -> impl Iterator<Item = u64> {
        let states = self.states.iter().enumerate();
        states.filter(|(_, state)| state.load(Relaxed) == OWNED).map(|(slot, _)| self.base + slot as u64)
    }

    fn leaves_free(&self, frame: u64, state: u8) {
        match self.state(frame).swap(state, Relaxed) {
            OWNED => panic!("frame {frame:#x} is handed out but somebody owns it"),
            POISONED => self.is_full_of(frame, &[POISON; PAGE_SIZE]),
            CLEARED => self.is_full_of(frame, &[0; PAGE_SIZE]),
            _ => {}
        }
    }

    fn is_full_of(&self, frame: u64, expected: &[u8]) {
        let found = self.window.bytes(address_of(frame), PAGE_SIZE);
        if found == expected {
            return;
        }
        let written = found.iter().zip(expected).position(|(found, expected)| found != expected);
        let (at, start) = (written.unwrap_or_default(), address_of(frame).as_u64());
        let address = start + at as u64;
        panic!(
            "frame {frame:#x} was written to after it was freed: {:#x} at address {address:#x}",
            found[at]
        );
    }

    fn state(&self, frame: u64) -> &AtomicU8 {
        &self.states[(frame - self.base) as usize]
    }
}
