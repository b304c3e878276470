//! Tasks: futures that the executor polls, each one allocation.
//!
//! A task's way: `spawn` (here) -> `registry` -> `run_queue` -> `run` polls it -> `waker`, `header::push` ->
//! `run_queue` ... -> `run` finishes it -> `join`. Its state is a word, described in `state`.
#![allow(unsafe_code, reason = "handles are pointers to a task's header")]

use alloc::alloc::handle_alloc_error;
use core::alloc::Layout;
use core::fmt;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

mod cell;
pub(crate) mod end;
pub(crate) mod header;
mod join;
mod join_set;
pub(crate) mod memory;
#[cfg(not(loom))]
pub(crate) mod names;
/// Models have no names: a static lock would outlive the run that it belongs to.
#[cfg(loom)]
pub(crate) mod names {
    pub(crate) fn number(_name: &'static str) -> u8 {
        0
    }

    pub(crate) fn name(_number: u8) -> &'static str {
        "task"
    }

    pub(crate) fn note_poll(_number: u8, _nanos: u64) {}

    pub(crate) fn longest_poll(_number: u8) -> Option<u64> {
        None
    }
}
mod reference;
pub(crate) mod registry;
pub(crate) mod spent;
pub(crate) mod state;
pub(crate) mod waker;

use crate::cpu::CpuLocal;
use crate::{arch, cpu, hooks};
pub(crate) use header::Header;
pub use join::{AbortHandle, JoinError, JoinHandle};
pub use join_set::JoinSet;
pub use memory::release_kept_memory;
pub use reference::{TaskId, TaskRef, TaskState, live_tasks, tasks, try_for_each_task};
pub use spent::Spent;
use state::{NICE, PINNED, THREAD};

/// In which order ready work is polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Polled before any thread, in the order in which they were woken.
    #[default]
    Task,
    /// A thread's run loop: one is polled after each round of ready tasks. Its poll may take long, and a thread
    /// may run and be preempted inside. It cannot be aborted.
    Thread,
}

/// Why a task was not spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// There is no memory for it. The future was dropped.
    NoMemory,
    /// The builder names a CPU that does not exist or is not up. The future was dropped.
    NoSuchCpu,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpawnError::NoMemory => "no memory for another task",
            SpawnError::NoSuchCpu => "there is no such CPU",
        })
    }
}

impl core::error::Error for SpawnError {}

/// Spawns a task on this CPU. Not for interrupt handlers.
///
/// The future is polled by the run loop, and dropped there when it is done or aborted. If there is no memory,
/// this ends as any failed allocation does; [`Builder::try_spawn`] says so instead.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Builder::new().spawn(future)
}

/// Spawns a task that stays on this CPU. As [`spawn`].
pub fn spawn_pinned<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Builder::new().cpu(arch::local().id()).spawn(future)
}

/// Says how a task is spawned.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    name: Option<&'static str>,
    class: Class,
    nice: u8,
    cpu: Option<u32>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

impl Builder {
    /// A task of class [`Class::Task`] without a name.
    pub const fn new() -> Self {
        Builder { name: None, class: Class::Task, nice: 1, cpu: None }
    }

    /// The name that `ps` shows. 255 different names are remembered; later ones are shown as `task`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// The class.
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The nice factor: a task or thread that is ready again at once gets so many slots in a row in each round,
    /// where others get one. 1 is usual; 0 counts as 1. The most, 255, still lets all others go once a round.
    #[must_use]
    pub const fn nice(mut self, nice: u8) -> Self {
        self.nice = if nice == 0 { 1 } else { nice };
        self
    }

    /// Polls it on this CPU and nowhere else. Without, it is queued on the CPU that spawns it, and moves whenever it
    /// stands there ready and another one is idle or has less to do.
    #[must_use]
    pub const fn cpu(mut self, id: u32) -> Self {
        self.cpu = Some(id);
        self
    }

    /// Spawns. As [`spawn`].
    ///
    /// # Panics
    /// When [`cpu`](Builder::cpu) names a CPU that is not there.
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.try_spawn(future) {
            Ok(handle) => handle,
            Err(why) => not_spawned(why, Layout::new::<(Header, F)>()),
        }
    }

    /// Spawns, unless there is no memory.
    ///
    /// # Errors
    /// See [`SpawnError`]; the future is dropped.
    pub fn try_spawn<F>(self, future: F) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cpu = arch::local();
        let room = cell::Room::<F>::new(cpu).ok_or(SpawnError::NoMemory)?;
        let name = self.name.map_or(0, names::number);
        let (home, pinned) = match self.cpu {
            None => (cpu, 0),
            Some(id) => (cpu::by_id(id).ok_or(SpawnError::NoSuchCpu)?, PINNED),
        };
        let class = if self.class == Class::Thread { THREAD } else { 0 };
        let nice = if self.nice > 1 { NICE } else { 0 };
        let hooked = hooks::kind();
        let header =
            Header::new(cell::Room::<F>::vtable(), home, class | pinned | nice | hooked, name, self.nice);
        let task = room.fill(header, future);
        // SAFETY: the task is complete; the run loop unregisters it before it gives its reference back.
        if !unsafe { registry::register(cpu, task) } {
            // SAFETY: nobody has seen the task.
            unsafe {
                ((*task).vtable.drop_future)(task);
                ((*task).vtable.free)(task);
            }
            return Err(SpawnError::NoMemory);
        }
        // SAFETY: the word was made with SCHEDULED and without a queue, so the first push is ours; it was also
        // made with a reference for the handle. Not null, as it was written.
        unsafe {
            if hooked != 0 {
                hooks::spawned(task);
            }
            header::push_new(task, home, self.class);
            Ok(JoinHandle::new(NonNull::new_unchecked(task)))
        }
    }
}

#[cold]
#[inline(never)]
fn not_spawned(why: SpawnError, layout: Layout) -> ! {
    match why {
        SpawnError::NoMemory => handle_alloc_error(layout),
        SpawnError::NoSuchCpu => panic!("a task was to be spawned on a CPU that is not there"),
    }
}

/// The header of the task that is polled here, valid for as long as that poll.
#[inline]
pub(crate) fn current_header() -> Option<&'static Header> {
    // SAFETY: the caller runs inside the poll, which holds the executor's reference. The callers in this crate
    // do not keep the reference beyond it.
    unsafe { arch::current().as_ref() }
}

/// As [`current_header`], for a caller that cannot leave this CPU.
#[inline]
pub(crate) fn header_on(cpu: &CpuLocal) -> Option<&'static Header> {
    // SAFETY: as above.
    unsafe { cpu.current.load(Ordering::Relaxed).as_ref() }
}

/// The task that is polled on this CPU: the caller's own, also for code on a thread's stack. `None` outside.
///
/// In an interrupt handler: the task that was interrupted.
pub fn current_task() -> Option<TaskRef> {
    let task = NonNull::new(arch::current())?;
    // SAFETY: the poll under way holds the executor's reference.
    Some(unsafe { TaskRef::borrow(task.as_ptr()) })
}

/// Lets everything else that is ready go first, then goes on.
///
/// # Cancellation
/// Dropping it does nothing.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// See [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
