//! Watching what the executor does, event by event.
//!
//! A task that is spawned while [`Hooks`] are installed has a bit in its state for it, beside others that make it take
//! a longer way: so the events of other tasks cost nothing.
#![allow(unsafe_code, reason = "a pointer that is written once, and tasks' headers")]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::reason::WaitReason;
use crate::task::state::{HOOKED, SCHEDULED};
use crate::task::{Header, TaskRef};

/// What is told to whoever watches, each event at the place where it happens. All do nothing unless they are written.
///
/// A hook must not panic, wait, or spawn, wake or abort a task. [`woken`](Hooks::woken) and
/// [`aborted`](Hooks::aborted) are called in any context, also by interrupt handlers and with spin locks held, so they
/// take no lock, allocate nothing and free nothing; the others are called with interrupts on, by tasks, threads and
/// run loops. Events of one task come one after the other, but for wakes and aborts, which come whenever they like.
pub trait Hooks: Sync {
    /// A task is spawned, and about to be ready.
    fn spawned(&self, _task: &TaskRef) {}

    /// A waiting task is about to be ready, other than by an abort. A wake of one that is ready or polled already is
    /// not told.
    fn woken(&self, _task: &TaskRef) {}

    /// This CPU begins to poll a task, or to drop the future of one that was aborted.
    fn poll_begins(&self, _task: &TaskRef) {}

    /// That is over, and took so many nanoseconds. `done`: the future is gone.
    fn poll_ends(&self, _task: &TaskRef, _nanos: u64, _done: bool) {}

    /// A task waits from here on: its poll has ended, and no wake came meanwhile. The reason is the first that was
    /// noted in that poll, if one was.
    fn parked(&self, _task: &TaskRef, _reason: Option<WaitReason>) {}

    /// Somebody asks for the end of a task, which may be over by itself before.
    fn aborted(&self, _task: &TaskRef) {}

    /// This CPU takes a ready task over from another one, whose number [`TaskRef::cpu`] still gives.
    fn stolen(&self, _task: &TaskRef) {}
}

/// HOOKED or nothing.
static KIND: AtomicU32 = AtomicU32::new(0);
static HOOKS: AtomicPtr<&'static dyn Hooks> = AtomicPtr::new(core::ptr::null_mut());

/// Has `hooks` told about every task that is spawned from here on, on all CPUs; earlier ones are not watched. Once. Not
/// for interrupt handlers.
///
/// # Panics
/// The second time.
pub fn install_hooks(hooks: &'static dyn Hooks) {
    let hooks = Box::into_raw(Box::new(hooks));
    let none = core::ptr::null_mut();
    let first = HOOKS.compare_exchange(none, hooks, Ordering::Release, Ordering::Relaxed).is_ok();
    assert!(first, "the executor's hooks are installed once");
    KIND.store(HOOKED, Ordering::Release);
}

/// The bit of a task that is spawned now.
#[inline]
pub(crate) fn kind() -> u32 {
    KIND.load(Ordering::Relaxed)
}

fn tell(f: impl FnOnce(&dyn Hooks)) {
    // SAFETY: null, or the leaked box that `install_hooks` stored.
    if let Some(hooks) = unsafe { HOOKS.load(Ordering::Acquire).as_ref() } {
        f(*hooks);
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
