//! What a task waits for.

use core::fmt;

use crate::cpu::CpuLocal;
use crate::task;

/// What a waiting task or parked thread waits for, as `ps` shows it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// A key press.
    Keyboard = 1,
    /// Input or room on a serial line.
    Serial,
    /// A point in time.
    Timer,
    /// An async mutex or read-write lock.
    Mutex,
    /// The end of another task.
    Join,
    /// A page that is being loaded.
    Page,
    /// Free physical memory.
    Memory,
    /// A block device's request or room in its queue.
    BlockIo,
    /// The end of a child process.
    Child,
    /// Data or room in a pipe.
    Pipe,
    /// A message, or room for one.
    Channel,
    /// A permit of a semaphore.
    Semaphore,
    /// A notification.
    Notify,
    /// Frames that other CPUs may still see.
    Quarantine,
    /// Something else.
    Other,
}

impl WaitReason {
    const ALL: [WaitReason; 15] = [
        WaitReason::Keyboard,
        WaitReason::Serial,
        WaitReason::Timer,
        WaitReason::Mutex,
        WaitReason::Join,
        WaitReason::Page,
        WaitReason::Memory,
        WaitReason::BlockIo,
        WaitReason::Child,
        WaitReason::Pipe,
        WaitReason::Channel,
        WaitReason::Semaphore,
        WaitReason::Notify,
        WaitReason::Quarantine,
        WaitReason::Other,
    ];

    /// The reason with this number, if there is one; 0 stands for none.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WaitReason::Keyboard => "keyboard",
            WaitReason::Serial => "serial",
            WaitReason::Timer => "timer",
            WaitReason::Mutex => "mutex",
            WaitReason::Join => "join",
            WaitReason::Page => "page",
            WaitReason::Memory => "memory",
            WaitReason::BlockIo => "block I/O",
            WaitReason::Child => "child",
            WaitReason::Pipe => "pipe",
            WaitReason::Channel => "channel",
            WaitReason::Semaphore => "semaphore",
            WaitReason::Notify => "notify",
            WaitReason::Quarantine => "quarantine",
            WaitReason::Other => "other",
        })
    }
}

/// Notes what the current task waits for. A leaf future calls it when it returns `Pending`.
///
/// The first reason noted in a poll is the one shown; the time beside it is when that poll ended. Outside a task
/// it does nothing.
#[inline]
pub fn waits_for(reason: WaitReason) {
    if let Some(header) = task::current_header() {
        header.note_reason(reason);
    }
}

/// As [`waits_for`], for a caller that cannot leave the CPU which it executes on.
#[inline]
pub(crate) fn waits_for_on(cpu: &CpuLocal, reason: WaitReason) {
    if let Some(header) = task::header_on(cpu) {
        header.note_reason(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::WaitReason;

    #[test]
    fn every_reason_is_found_by_its_number() {
        for reason in WaitReason::ALL {
            assert_eq!(WaitReason::from_number(reason as u8), Some(reason));
        }
        assert_eq!(WaitReason::from_number(0), None);
        assert_eq!(WaitReason::from_number(200), None);
    }
}
