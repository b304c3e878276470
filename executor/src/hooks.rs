//! Watching what the executor does, event by event.
//!
//! While [`Hooks`] are installed each task has a bit in its state for it, beside others that make it take a longer way: so
//! where none are installed, events cost nothing.
#![allow(unsafe_code, reason = "a place that is written once, and tasks' headers")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::reason::WaitReason;
use crate::task::state::{HOOKED, SCHEDULED};
use crate::task::{Header, TaskRef, tasks};

/// What is told to whoever watches, each event at the place where it happens. All do nothing unless they are written.
///
/// A hook must not panic, wait, or spawn, wake or abort a task. Who calls it:
///
/// | hook | called by |
/// | --- | --- |
/// | [`woken`](Hooks::woken), [`aborted`](Hooks::aborted) | anybody, also interrupt handlers, and with spin locks held: so it takes no lock, allocates nothing and frees nothing |
/// | [`spawned`](Hooks::spawned) | whoever spawns: a task, a thread or the boot code, perhaps with interrupts off or a spin lock held |
/// | the others | run loops, with interrupts on and no lock held |
///
/// Events of one task come one after the other, but for aborts, which come whenever they like.
pub trait Hooks: Sync {
    /// A task is spawned: [`tasks`] lists it already, as ready, and it is queued next. Not told where there
    /// is no memory for one.
    fn spawned(&self, _task: &TaskRef) {}

    /// A waiting task is about to be ready, other than by an abort. A wake of one that is ready or polled already is
    /// not told.
    fn woken(&self, _task: &TaskRef) {}

    /// This CPU begins to poll a task, or to drop the future of one that was aborted. It is the
    /// [`current_task`](crate::current_task) already.
    fn poll_begins(&self, _task: &TaskRef) {}

    /// That is over, and took so many nanoseconds. `done`: the future is gone. The task still shows as running, and is the
    /// current one.
    fn poll_ends(&self, _task: &TaskRef, _nanos: u64, _done: bool) {}

    /// A task is about to wait: its poll has ended, right before [`poll_ends`](Hooks::poll_ends) was told, and no wake
    /// had come until then. It still shows as running. One that is woken between this look and the end of its running
    /// does not wait but is queued again, and that wake is not told. The reason is the first that was noted in that
    /// poll, if one was.
    fn parked(&self, _task: &TaskRef, _reason: Option<WaitReason>) {}

    /// Somebody asks for the end of a task, each time that somebody does: it may be over by itself before, or be over
    /// already. Threads are not aborted, and so not told of.
    fn aborted(&self, _task: &TaskRef) {}

    /// This CPU takes a ready task over from another one, whose number [`TaskRef::cpu`] still gives. It is in no queue at
    /// this moment.
    fn stolen(&self, _task: &TaskRef) {}
}

/// HOOKED once the hooks are there, before that nothing.
static KIND: AtomicU32 = AtomicU32::new(0);
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOKS: Place = Place(UnsafeCell::new(None));

/// Written once, by whoever took it first.
struct Place(UnsafeCell<Option<&'static dyn Hooks>>);

// SAFETY: it is written before KIND says so, and read after that.
unsafe impl Sync for Place {}

/// Has `hooks` told about every task that is spawned from here on, on all CPUs, and about those that are there: a
/// poll that is under way may be told of at its end only, or not at all, and so may tasks that others are just
/// spawning. Once. Allocates nothing. Not for interrupt handlers.
///
/// # Panics
/// The second time.
pub fn install_hooks(hooks: &'static dyn Hooks) {
    assert!(!IS_TAKEN.swap(true, Ordering::Relaxed), "the executor's hooks are installed once");
    // SAFETY: nobody else comes here, and nobody reads it yet.
    unsafe { *HOOKS.0.get() = Some(hooks) };
    KIND.store(HOOKED, Ordering::Release);
    for task in tasks() {
        // SAFETY: the reference keeps it.
        unsafe { (*task.as_ptr()).state.hook() };
    }
}

/// The bit of a task that is spawned now.
#[inline]
pub(crate) fn kind() -> u32 {
    KIND.load(Ordering::Relaxed)
}

fn tell(f: impl FnOnce(&dyn Hooks)) {
    if KIND.load(Ordering::Acquire) == 0 {
        return;
    }
    // SAFETY: it was written before, and is not written again.
    if let Some(hooks) = unsafe { *HOOKS.0.get() } {
        f(hooks);
    }
}

/// # Safety
/// Somebody's reference keeps the task during the call; so for the functions below.
#[cold]
pub(crate) unsafe fn spawned(task: *mut Header) {
    // SAFETY: the caller's promise.
    let task = unsafe { TaskRef::borrow(task) };
    tell(|hooks| hooks.spawned(&task));
}

#[cold]
pub(crate) unsafe fn woken(task: *mut Header) {
    // SAFETY: the caller's promise.
    let task = unsafe { TaskRef::borrow(task) };
    tell(|hooks| hooks.woken(&task));
}

#[cold]
pub(crate) unsafe fn poll_begins(task: *mut Header) {
    // SAFETY: the caller's promise.
    let task = unsafe { TaskRef::borrow(task) };
    tell(|hooks| hooks.poll_begins(&task));
}

/// Tells of the end of a poll, and whether the task waits then.
#[cold]
pub(crate) fn poll_ends(task: &TaskRef, took: u64, done: bool) {
    tell(|hooks| {
        hooks.poll_ends(task, took, done);
        // SAFETY: the reference keeps it.
        let header = unsafe { &*task.as_ptr() };
        if !done && header.state.load() & SCHEDULED == 0 {
            hooks.parked(task, header.reason().map(|(reason, _)| reason));
        }
    });
}

#[cold]
pub(crate) unsafe fn aborted(task: *mut Header) {
    // SAFETY: the caller's promise.
    let task = unsafe { TaskRef::borrow(task) };
    tell(|hooks| hooks.aborted(&task));
}

#[cold]
pub(crate) unsafe fn stolen(task: *mut Header) {
    // SAFETY: the caller's promise.
    let task = unsafe { TaskRef::borrow(task) };
    tell(|hooks| hooks.stolen(&task));
}
