//! Faults: what a thread wanted, and what becomes of it.

use core::fmt;

use crate::{PageError, PageIndex};

/// What an access wants to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Fetches an instruction.
    Execute,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Execute => "execute",
        })
    }
}

/// A page fault as the processor tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address that was touched, as it stands in CR2.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// Whether a program in ring 3 did it.
    pub user: bool,
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum FaultOutcome {
    /// The access can be tried again, and will succeed unless the mapping changes first.
    Resolved,
    /// The access cannot succeed; the thread is told why.
    Denied(Denial),
}

/// Why an access was denied. Its `Display` is a clause that fits after 'the thread ended: '.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// Nothing is mapped at the address.
    NoMapping,
    /// The mapping does not allow this access.
    Protection(Access),
    /// A user program named an address that is the kernel's.
    UserTouchesKernel,
    /// The page could not be loaded.
    Io {
        /// The page of the object that was wanted.
        page: PageIndex,
        /// What the pager answered.
        error: PageError,
    },
    /// There is no memory for the page, and none can be freed.
    OutOfMemory,
    /// A thread ran over the end of its stack. `mm` sees `NoMapping`; who knows the stacks says this.
    StackOverflow,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NoMapping => f.write_str("nothing is mapped there"),
            Denial::Protection(access) => write!(f, "the mapping does not allow to {access}"),
            Denial::UserTouchesKernel => f.write_str("the address belongs to the kernel"),
            Denial::Io { page, error } => write!(f, "page {page} could not be loaded: {error}"),
            Denial::OutOfMemory => f.write_str("out of memory"),
            Denial::StackOverflow => f.write_str("stack overflow"),
        }
    }
}
