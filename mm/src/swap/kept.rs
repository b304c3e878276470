//! What each frame has on the swap disk: the slot that holds the same bytes, or is just being written.
//!
//! | value | set when | left when |
//! | --- | --- | --- |
//! | nothing | the frame is taken, its page is written | |
//! | a slot | the page was swapped in, or written out and touched before it left | the page is written, leaves, or is nobody's any more: the slot goes back, or to the entry |
//! | a slot, being written | its write begins | its write ends |
//! | a slot, being written for nobody | the page was given up meanwhile | its write ends: the frame and the slot are free then |
//!
//! Each value is one word, and changed by who holds the lock of the page's object, except that a page that is given up
//! with its version has left that object: so a write's end and a page's end compare before they set.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::OutOfMemory;

const NOTHING: u32 = 0;
const WRITING: u32 = 1 << 31;
const FOR_NOBODY: u32 = 1 << 30;
/// More slots than this cannot be told apart.
pub(super) const MOST_SLOTS: u64 = 1 << 30;

/// The slots of frames, by the frames' numbers.
pub(super) struct Kept {
    first: u64,
    slots: Vec<AtomicU32>,
}

/// What a page that is given up leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Only its frame.
    Frame,
    /// Its frame, and a slot that nobody needs.
    Both(u64),
    /// Nothing before its write ends.
    Nothing,
}

impl Kept {
    pub(super) fn try_new(frames: Range<u64>) -> Result<Self, OutOfMemory> {
        let mut slots = Vec::new();
        let count = (frames.end - frames.start) as usize;
        slots.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
        slots.resize_with(count, || AtomicU32::new(NOTHING));
        Ok(Self { first: frames.start, slots })
    }

    fn of(&self, frame: u64) -> &AtomicU32 {
        &self.slots[(frame - self.first) as usize]
    }

    fn get(&self, frame: u64) -> u32 {
        self.of(frame).load(Ordering::Acquire)
    }

    /// Whether a slot has, or is about to have, what a frame holds.
    pub(super) fn has_slot(&self, frame: u64) -> bool {
        self.get(frame) != NOTHING
    }

    /// Whether the disk reads a frame.
    pub(super) fn is_writing(&self, frame: u64) -> bool {
        self.get(frame) & WRITING != 0
    }

    /// A frame holds what a slot does.
    pub(super) fn keep(&self, frame: u64, slot: u64) {
        self.of(frame).store(slot as u32, Ordering::Release);
    }

    /// A frame is written to a slot from now on.
    pub(super) fn begin_write(&self, frame: u64, slot: u64) {
        self.of(frame).store(slot as u32 | WRITING, Ordering::Release);
    }

    /// The slot that holds what a frame does, which has it no more; `None` if there is none, or not yet.
    pub(super) fn take(&self, frame: u64) -> Option<u64> {
        let slot = self.get(frame);
        if slot == NOTHING || slot & WRITING != 0 {
            return None;
        }
        self.of(frame).store(NOTHING, Ordering::Release);
        Some(slot.into())
    }

    /// The write of a frame's page ends, which is somebody's.
    pub(super) fn end_write(&self, frame: u64, kept: Option<u64>) {
        self.of(frame).store(kept.map_or(NOTHING, |slot| slot as u32), Ordering::Release);
    }

    /// The write of a frame ends that no page of the object has. True if it was written for nobody: then frame and slot
    /// are the caller's. Else somebody is about to give it up.
    pub(super) fn end_write_unseen(&self, frame: u64, kept: Option<u64>) -> bool {
        let end = |word| {
            Some(if word & FOR_NOBODY != 0 { NOTHING } else { kept.map_or(NOTHING, |slot| slot as u32) })
        };
        let before = self.of(frame).fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
        before.is_ok_and(|before| before & FOR_NOBODY != 0)
    }

    /// A page is nobody's any more.
    pub(super) fn give_up(&self, frame: u64) -> Left {
        let end = |word| Some(if word & WRITING != 0 { word | FOR_NOBODY } else { NOTHING });
        let before = self.of(frame).fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
        match before.unwrap_or(NOTHING) {
            NOTHING => Left::Frame,
            word if word & WRITING != 0 => Left::Nothing,
            slot => Left::Both(slot.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u64 = MOST_SLOTS - 1;

    fn kept() -> Kept {
        Kept::try_new(7..9).expect("there is memory")
    }

    #[test]
    fn a_slot_goes_back_once_whoever_is_first() {
        let kept = kept();
        kept.begin_write(8, SLOT);
        assert_eq!((kept.take(8), kept.is_writing(8), kept.has_slot(7)), (None, true, false));
        assert_eq!(kept.give_up(8), Left::Nothing);
        assert!(kept.end_write_unseen(8, Some(SLOT)), "it is the writer's");
        assert_eq!(kept.give_up(8), Left::Frame);
        kept.begin_write(8, SLOT);
        assert!(!kept.end_write_unseen(8, Some(SLOT)));
        assert_eq!(kept.give_up(8), Left::Both(SLOT));
        assert_eq!(kept.give_up(8), Left::Frame);
    }

    #[test]
    fn a_kept_slot_is_taken_once() {
        let kept = kept();
        kept.keep(7, 3);
        assert_eq!((kept.take(7), kept.take(7)), (Some(3), None));
        kept.begin_write(7, 4);
        kept.end_write(7, None);
        assert!(!kept.has_slot(7));
    }
}
