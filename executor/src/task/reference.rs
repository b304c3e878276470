//! Looking at tasks: references, and the list of all of them.
#![allow(unsafe_code, reason = "a reference is a counted pointer")]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::task::Waker;

use super::header::{self, Header};
use super::spent::Spent;
use super::state::{DONE, RUNNING, SCHEDULED};
use super::{Class, names, waker};
use crate::cpu::cpus;
use crate::reason::WaitReason;

/// A task's number: unique among the tasks that are not done; numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u32);

impl TaskId {
    /// The number itself.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a task stands at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Woken, and not yet polled.
    Ready,
    /// Being polled.
    Running,
    /// Waiting to be woken.
    Waiting,
    /// Done or aborted.
    Done,
}

/// A counted reference to a task, done or not. Cloning and dropping are for any context.
pub struct TaskRef(NonNull<Header>);

// SAFETY: what a reference can reach is atomic or constant.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// # Safety
    /// The task is alive, and somebody else's reference keeps it so during the call.
    pub(crate) unsafe fn borrow(task: *mut Header) -> Self {
        // SAFETY: alive, so not null.
        unsafe {
            (*task).state.add_reference();
            TaskRef(NonNull::new_unchecked(task))
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut Header {
        self.0.as_ptr()
    }

    fn header(&self) -> &Header {
        // SAFETY: our reference keeps it.
        unsafe { self.0.as_ref() }
    }

    /// The number.
    pub fn id(&self) -> TaskId {
        TaskId(self.header().id.load(Ordering::Relaxed))
    }

    /// The name given to the builder, or `task`.
    pub fn name(&self) -> &'static str {
        names::name(self.header().name())
    }

    pub(crate) fn name_number(&self) -> u8 {
        self.header().name()
    }

    /// The class.
    pub fn class(&self) -> Class {
        if self.header().state.is_thread() { Class::Thread } else { Class::Task }
    }

    /// Whether it stays on one CPU.
    pub fn is_pinned(&self) -> bool {
        self.header().state.is_pinned()
    }

    /// The number of the CPU that polls it, or is to poll it next, at this moment.
    pub fn cpu(&self) -> u32 {
        // SAFETY: CPUs are never freed.
        unsafe { (*self.header().home.load(Ordering::Relaxed)).id() }
    }

    /// The nice factor.
    pub fn nice(&self) -> u8 {
        self.header().nice()
    }

    /// Where the task stands.
    pub fn state(&self) -> TaskState {
        let state = self.header().state.load();
        if state & DONE != 0 {
            TaskState::Done
        } else if state & RUNNING != 0 {
            TaskState::Running
        } else if state & SCHEDULED != 0 {
            TaskState::Ready
        } else {
            TaskState::Waiting
        }
    }

    /// What the task waits for, and since when (nanoseconds since boot, to about a microsecond). `None` while it
    /// does not wait. A waiting task that noted no reason waits for [`WaitReason::Other`] since 0.
    pub fn wait(&self) -> Option<(WaitReason, u64)> {
        if self.state() != TaskState::Waiting {
            return None;
        }
        Some(self.header().reason().unwrap_or((WaitReason::Other, 0)))
    }

    /// How often it was polled (modulo 2^24, and one more for each 18 minutes in polls).
    pub fn polls(&self) -> u32 {
        self.spent().polls
    }

    /// How often it was polled, and how long that took, up to its last poll.
    pub fn spent(&self) -> Spent {
        self.header().account.read()
    }

    /// The longest poll that a task of this name has ever had, in nanoseconds, if one took longer than
    /// [`LONG_NS`](crate::platform::LONG_NS). Threads' polls, which are as long as their slots, are not noted.
    pub fn longest_poll_ns(&self) -> Option<u64> {
        names::longest_poll(self.name_number())
    }

    /// A waker of the task, as its own polls get. Any context.
    pub fn waker(&self) -> Waker {
        // SAFETY: our reference keeps it.
        unsafe { waker::owned(self.0.as_ptr()) }
    }

    /// Wakes the task: it is polled once more. Any context.
    pub fn wake(&self) {
        // SAFETY: our reference keeps it.
        unsafe { header::wake(self.0.as_ptr()) };
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        // SAFETY: our reference keeps it.
        unsafe { TaskRef::borrow(self.0.as_ptr()) }
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        // SAFETY: our reference goes.
        unsafe { header::release(self.0.as_ptr()) };
    }
}

impl PartialEq for TaskRef {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for TaskRef {}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.id(), self.name(), self.state())
    }
}

/// All tasks of this machine that are not done, CPU by CPU as they were spawned. Allocates nothing; a lock is
/// held from one task to the next only, so tasks that come and go meanwhile may or may not be seen. Not for
/// interrupt handlers.
pub fn tasks() -> impl Iterator<Item = TaskRef> {
    cpus().flat_map(|cpu| {
        let mut slot = 0;
        core::iter::from_fn(move || {
            let (at, task) = cpu.registry.next(slot)?;
            slot = at + 1;
            Some(task)
        })
    })
}

/// How many tasks are not done.
pub fn live_tasks() -> usize {
    cpus().map(|cpu| cpu.registry.live()).sum()
}

/// Calls `visit` for all tasks that are not done without ever waiting: for a panic report. False if a list was
/// locked and therefore is incomplete.
pub fn try_for_each_task(visit: &mut dyn FnMut(&TaskRef)) -> bool {
    let mut complete = true;
    for cpu in cpus() {
        let mut slot = 0;
        loop {
            let Some(next) = cpu.registry.try_next(slot) else {
                complete = false;
                break;
            };
            let Some((at, task)) = next else { break };
            visit(&task);
            slot = at + 1;
        }
    }
    complete
}
