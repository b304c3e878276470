//! How a program ended, as others are told.

use core::fmt;

use mm::Denial;

use super::load::GUARD;
use crate::thread::EndReason;

/// A program's end. Its `Display` is the sentence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(EndReason);

/// What Linux would have sent to a program that did the same; its number plus 128 is the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// An invalid instruction.
    Illegal = 4,
    /// A breakpoint or a single step.
    Trap = 5,
    /// Memory whose content cannot be had.
    Bus = 7,
    /// A division error, or an arithmetic exception.
    Arithmetic = 8,
    /// Ended from outside, or for want of memory.
    Kill = 9,
    /// An address that is not mapped, or not so.
    Segmentation = 11,
}

impl End {
    /// What `reason` means for a program: a thread knows nothing of where its stack is.
    pub(super) fn of(reason: EndReason) -> Self {
        Self(match reason {
            EndReason::Denied { address, why: Denial::NoMapping, at } if GUARD.contains(&address) => {
                EndReason::Denied { address, why: Denial::StackOverflow, at }
            }
            other => other,
        })
    }

    /// Why it ended.
    pub fn reason(&self) -> EndReason {
        self.0
    }

    /// What ended it; `None` when it ended itself.
    pub fn signal(&self) -> Option<Signal> {
        self.outcome().err()
    }

    /// The status: what the program said, or 128 and the number of the signal, as shells have it.
    pub fn status(&self) -> u8 {
        self.outcome().unwrap_or_else(|signal| 128 + signal as u8)
    }

    fn outcome(&self) -> Result<u8, Signal> {
        Err(match self.0 {
            EndReason::Finished(status) => return Ok(status),
            EndReason::Killed | EndReason::OutOfMemory => Signal::Kill,
            EndReason::Denied { why, .. } => match why {
                Denial::Io { .. }
                | Denial::Corrupted { .. }
                | Denial::ManualPageMissing
                | Denial::Deadlock => Signal::Bus,
                Denial::OutOfMemory => Signal::Kill,
                _ => Signal::Segmentation,
            },
            EndReason::Raised(raised) => match raised.exception.vector {
                0 | 16 | 19 => Signal::Arithmetic,
                1 | 3 => Signal::Trap,
                6 => Signal::Illegal,
                // Vector registers are there for everybody, unless there is no memory to keep them in.
                7 => Signal::Kill,
                11 | 12 | 17 => Signal::Bus,
                _ => Signal::Segmentation,
            },
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
