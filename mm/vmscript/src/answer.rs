//! What commands answer.

use core::fmt;

use mm::{Denial, PageError};

/// The answer of a command, as it is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `ok`.
    Ok,
    /// `value N`.
    Value(u64),
    /// `count N`.
    Count(u64),
    /// `fault NAME`.
    Fault(&'static str),
    /// `error NAME`.
    Error(&'static str),
}

impl Answer {
    /// There is no memory to begin with it.
    pub(crate) const NO_MEMORY: Self = Answer::Error("memory");

    /// An access that was denied.
    pub(crate) fn denied(why: Denial) -> Self {
        Answer::Fault(match why {
            Denial::NoMapping | Denial::StackOverflow | Denial::ManualPageMissing => "mapping",
            Denial::Protection(_) | Denial::UserTouchesKernel => "protection",
            Denial::Io { error, .. } => name(error),
            Denial::Corrupted { .. } => "corrupted",
            Denial::OutOfMemory => "memory",
            Denial::Deadlock => "deadlock",
        })
    }

    /// A store that failed.
    pub(crate) fn not_stored(error: PageError) -> Self {
        Answer::Error(name(error))
    }
}

fn name(error: PageError) -> &'static str {
    match error {
        PageError::OutOfMemory => "memory",
        PageError::Corrupted => "corrupted",
        PageError::Deadlock => "deadlock",
        _ => "io",
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ok => f.write_str("ok"),
            Answer::Value(value) => write!(f, "value {value}"),
            Answer::Count(count) => write!(f, "count {count}"),
            Answer::Fault(name) => write!(f, "fault {name}"),
            Answer::Error(name) => write!(f, "error {name}"),
        }
    }
}
