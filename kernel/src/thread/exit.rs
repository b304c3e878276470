//! How threads end.

use core::fmt;

use mm::Denial;

use crate::arch::trap::Exception;

/// Why a thread is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It came to its end; a program of ring 3 said with this status.
    Finished(u8),
    /// It touched memory that it may not or cannot have.
    Denied {
        /// The address that it touched.
        address: u64,
        /// Why not.
        why: Denial,
        /// Where it stood: the instruction's address.
        at: u64,
    },
    /// It raised an exception.
    Raised(Raised),
    /// Somebody ended it.
    Killed,
    /// Memory was out, and its space had the most.
    OutOfMemory,
}

/// An exception that ended a thread. Number 7 does so where there is no memory to keep a program's vector registers in,
/// and in ring 0, which has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Which.
    pub exception: Exception,
    /// Where the thread stood: the instruction's address.
    pub at: u64,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(0) => f.write_str("finished"),
            Self::Finished(status) => write!(f, "finished with status {status}"),
            Self::Denied { address, why, at } => {
                write!(f, "ended by a fault at address {address:#x} (instruction {at:#x}): {why}")
            }
            Self::Raised(raised) => write!(f, "ended by {raised}"),
            Self::Killed => f.write_str("killed"),
            Self::OutOfMemory => f.write_str("ended because memory was out, and its space had the most"),
        }
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (instruction {:#x}, error code {:#x})", self.exception, self.at, self.exception.error)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.vector {
            0 => "a division error",
            1 => "a debug exception",
            3 => "a breakpoint",
            4 => "an overflow",
            5 => "a bound range exceeded",
            6 => "an invalid opcode",
            7 => "a vector instruction without registers for it",
            11 => "a missing segment",
            12 => "a stack segment fault",
            13 => "a general protection fault",
            16 => "a floating-point error",
            17 => "an alignment check",
            19 => "a vector floating-point error",
            _ => return write!(f, "exception {}", self.vector),
        })
    }
}
