//! The part of a task that is the same for all: 64 bytes, followed by the future or its output.
#![allow(unsafe_code, reason = "tasks are reached through pointers that wakers carry")]

use core::sync::atomic::{AtomicU32 as Counter, AtomicU64};
use core::task::Waker;

use super::Class;
use super::spent::Account;
use super::state::State;
use crate::atomic::{AtomicPtr, Ordering, UnsafeCell, fence_after_update};
use crate::cpu::CpuLocal;
use crate::hooks;
use crate::reason::WaitReason;
use crate::steal::{self, SLEEPERS};

/// What the run loop does with a future whose type it does not know.
pub(crate) struct Vtable {
    /// Polls; true if done: then the output stands where the future was.
    pub(crate) poll: unsafe fn(*mut Header) -> bool,
    pub(crate) drop_future: unsafe fn(*mut Header),
    /// Moves the output to where the second pointer says.
    pub(crate) take_output: unsafe fn(*mut Header, *mut ()),
    pub(crate) drop_output: unsafe fn(*mut Header),
    /// Frees the memory, and nothing but the memory.
    pub(crate) free: unsafe fn(*mut Header),
}

/// See the module.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) state: State,
    /// Its number in the registry; written once, under the registry's lock.
    pub(crate) id: Counter,
    /// The next in the one stack or queue that the task is in; owned by who put it there.
    pub(crate) link: AtomicPtr<Header>,
    pub(crate) vtable: &'static Vtable,
    /// The CPU that polls it. Changed by who owns the queue that it stands in, when it is stolen.
    pub(crate) home: core::sync::atomic::AtomicPtr<CpuLocal>,
    /// The handle's while JOINER is clear and the task not DONE; else `finish`'s.
    pub(crate) joiner: UnsafeCell<Option<Waker>>,
    info: AtomicU64,
    pub(crate) account: Account,
}

// SAFETY: the joiner follows the protocol of `task::state`; everything else is atomic or constant.
unsafe impl Sync for Header {}

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Header>() == 64);

/// The info word: `since:40 | nice:8 | name:8 | reason:8`. Only the CPU that polls the task writes it.
/// `since` counts units of 1,024 ns, so it is good for 35 years.
const REASON: u64 = 0xff;
const NAME_SHIFT: u32 = 8;
const NICE_SHIFT: u32 = 16;
const SINCE_SHIFT: u32 = 24;
const SINCE_UNIT_SHIFT: u32 = 10;
const CONSTANT: u64 = 0xffff << NAME_SHIFT;

impl Header {
    pub(crate) fn new(
        vtable: &'static Vtable,
        home: &'static CpuLocal,
        kind: u32,
        name: u8,
        nice: u8,
    ) -> Self {
        Header {
            state: State::new(kind),
            id: Counter::new(0),
            link: AtomicPtr::new(core::ptr::null_mut()),
            vtable,
            home: core::sync::atomic::AtomicPtr::new(core::ptr::from_ref(home).cast_mut()),
            joiner: UnsafeCell::new(None),
            info: AtomicU64::new(u64::from(name) << NAME_SHIFT | u64::from(nice) << NICE_SHIFT),
            account: Account::new(),
        }
    }

    pub(crate) fn name(&self) -> u8 {
        (self.info.load(Ordering::Relaxed) >> NAME_SHIFT) as u8
    }

    pub(crate) fn nice(&self) -> u8 {
        (self.info.load(Ordering::Relaxed) >> NICE_SHIFT) as u8
    }

    /// The reason noted in the last poll, and when that ended in nanoseconds since boot.
    pub(crate) fn reason(&self) -> Option<(WaitReason, u64)> {
        let info = self.info.load(Ordering::Relaxed);
        let reason = WaitReason::from_number((info & REASON) as u8)?;
        Some((reason, info >> SINCE_SHIFT << SINCE_UNIT_SHIFT))
    }

    /// Called in the task's own poll. The first reason of a poll stays.
    #[inline]
    pub(crate) fn note_reason(&self, reason: WaitReason) {
        let info = self.info.load(Ordering::Relaxed);
        if info & REASON == 0 {
            self.info.store(info | reason as u64, Ordering::Relaxed);
        }
    }

    /// Before a poll: nothing is noted yet in it.
    #[inline]
    pub(crate) fn begin_notes(&self) {
        self.info.store(self.info.load(Ordering::Relaxed) & CONSTANT, Ordering::Relaxed);
    }

    /// After a poll that ended at `now` and was pending: what was noted, if anything was, is waited for from here on.
    #[inline]
    pub(crate) fn end_notes(&self, now: u64) {
        let info = self.info.load(Ordering::Relaxed);
        if info & REASON != 0 {
            let info = info & (CONSTANT | REASON);
            self.info.store(info | now >> SINCE_UNIT_SHIFT << SINCE_SHIFT, Ordering::Relaxed);
        }
    }
}

/// Pushes a task that somebody just turned from idle to scheduled, and that is neither a thread nor hooked.
///
/// # Safety
/// The caller was told to push this task, and pushes once.
#[inline]
unsafe fn push_plain(task: *mut Header) {
    // SAFETY: the task is scheduled and not done, so the executor's reference keeps it; CPUs are never freed.
    unsafe { push_new(task, &*(*task).home.load(Ordering::Relaxed), Class::Task) };
}

/// Pushes a task or thread that somebody just turned from idle to scheduled.
///
/// # Safety
/// As for [`push_plain`].
#[cold]
unsafe fn push(task: *mut Header) {
    // SAFETY: as for `push_plain`.
    unsafe {
        if (*task).state.is_hooked() {
            hooks::woken(task);
        }
        push_quietly(task);
    }
}

/// As [`push`], when no hook is to hear about it.
///
/// # Safety
/// As for [`push_plain`].
pub(crate) unsafe fn push_quietly(task: *mut Header) {
    // SAFETY: as for `push_plain`.
    unsafe {
        let class = if (*task).state.is_thread() { Class::Thread } else { Class::Task };
        push_new(task, &*(*task).home.load(Ordering::Relaxed), class);
    }
}

/// Pushes a task or thread whose home and class are known.
///
/// # Safety
/// As for [`push_plain`].
#[inline]
pub(crate) unsafe fn push_new(task: *mut Header, home: &'static CpuLocal, class: Class) {
    let stack = if class == Class::Thread { &home.woken_threads } else { &home.woken_tasks };
    // SAFETY: the caller's turn of SCHEDULED makes the link ours. From here on the task may be gone.
    unsafe { stack.push(task) };
    notify(home);
}

/// Sees to it that somebody looks at what was just pushed. Comes after the push.
#[inline]
fn notify(home: &'static CpuLocal) {
    // Pairs with the fence in `idle::idle`: either we see that somebody sleeps, or whoever does sees what was pushed.
    fence_after_update();
    if SLEEPERS.load(Ordering::Relaxed) > 0 {
        steal::pushed_while_some_sleep(home);
    }
}

/// Wakes a task. Any context.
///
/// # Safety
/// The caller holds a reference.
#[inline]
pub(crate) unsafe fn wake(task: *mut Header) {
    // SAFETY: the caller's reference keeps the header; then it is our turn to push.
    unsafe {
        let woken = (*task).state.wake();
        if woken.is_to_push_plain() {
            push_plain(task);
        } else if woken.is_to_push() {
            push(task);
        }
    }
}

/// Wakes a task and gives a reference back. Any context.
///
/// # Safety
/// The caller gives away a reference of its own.
#[inline]
pub(crate) unsafe fn wake_and_release(task: *mut Header) {
    // SAFETY: the caller's reference keeps the header until here; then whoever pushes has its turn of SCHEDULED,
    // and the last has the task alone.
    unsafe {
        let woken = (*task).state.wake_and_drop();
        if woken.is_to_push_plain() {
            push_plain(task);
        } else if woken.is_to_push() {
            push(task);
        } else if woken.was_last() {
            bury(task);
        }
    }
}

/// Sends a task that nobody has any more to its CPU's reaper. Any context.
///
/// # Safety
/// The last reference is gone.
#[cold]
unsafe fn bury(task: *mut Header) {
    // SAFETY: a task that is done is in no queue; CPUs are never freed.
    unsafe {
        let home = &*(*task).home.load(Ordering::Relaxed);
        home.dead.push(task);
        home.call_attention();
    }
}

/// Gives a reference back; the last one sends the task's memory to its CPU's reaper. Any context.
///
/// # Safety
/// The caller gives away a reference of its own.
#[inline]
pub(crate) unsafe fn release(task: *mut Header) {
    // SAFETY: the caller's reference keeps the header until here.
    unsafe {
        if (*task).state.drop_reference() {
            bury(task);
        }
    }
}
