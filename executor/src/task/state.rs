//! The state word of a task: what each bit means and which function moves it.
//!
//! ```text
//!            spawn
//!              |
//!              v        start              end_pending (no wake came)
//!        +-> QUEUED ------------> RUNNING ----------------------------> IDLE
//!        |     ^                   |  |  ^                               |
//!        |     | end_pending       |  |  | wake, abort: set SCHEDULED,   |
//!        |     | (SCHEDULED is set)|  |  | RUNNING stays                 |
//!        |     +-------------------+  |  +--                             |
//!        |                            | finish                           |
//!        |                            v                                  |
//!        |                          DONE (+ CANCELLED after an abort)    |
//!        +------------------------ wake, abort --------------------------+
//!                                (who set SCHEDULED pushes)
//! ```
//! QUEUED is SCHEDULED without RUNNING, IDLE is neither. Who turns a word without SCHEDULED, RUNNING and DONE
//! into one with SCHEDULED, and nobody else, pushes the task: so it is in at most one queue, once.
//!
//! References are counted in the upper bits of the same word: the executor's own (from `spawn` until `finish`),
//! the `JoinHandle`'s, and one for each waker and `TaskRef`. The executor's lasts until the task is done, so a
//! wake needs no reference of its own.

use crate::atomic::{AtomicU32, Ordering};

/// In a queue, or to be queued at the end of the poll under way. Set by `wake`, `abort`; cleared by `start`.
pub(crate) const SCHEDULED: u32 = 1 << 0;
/// Being polled. Set by `start`; cleared by `end_pending` and `finish`.
pub(crate) const RUNNING: u32 = 1 << 1;
/// The future is gone; the output is there unless CANCELLED or taken. Set by `finish`, never cleared.
pub(crate) const DONE: u32 = 1 << 2;
/// An abort was asked for: the next `start` drops the future. Never cleared; says nothing once DONE.
pub(crate) const ABORTED: u32 = 1 << 3;
/// DONE without an output. Never set without DONE.
pub(crate) const CANCELLED: u32 = 1 << 4;
/// The `JoinHandle` wants the output. Cleared when it is dropped without having taken it.
pub(crate) const HANDLE: u32 = 1 << 5;
/// The join waker is there, and belongs to `finish`. Set and cleared by the `JoinHandle`, never once DONE.
pub(crate) const JOINER: u32 = 1 << 6;
/// The task is a thread's run loop. Constant.
pub(crate) const THREAD: u32 = 1 << 7;
/// Polled on its home CPU only: never stolen. Constant.
pub(crate) const PINNED: u32 = 1 << 8;
/// The task's nice factor is more than 1. Constant.
pub(crate) const NICE: u32 = 1 << 9;
/// Hooks are told about it: they were installed when it was spawned, or since. Never cleared.
pub(crate) const HOOKED: u32 = 1 << 10;
/// One reference.
pub(crate) const REFERENCE: u32 = 1 << 11;
/// More references than this are a leak that would overflow the word.
const TOO_MANY: u32 = u32::MAX / 2;

/// The word.
pub(crate) struct State(AtomicU32);

/// The word before a wake or an abort, which says what is left to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Woken(u32);

impl Woken {
    const BUSY: u32 = SCHEDULED | RUNNING | DONE;
    const SPECIAL: u32 = THREAD | HOOKED;

    /// The task was idle: push it. Else it is queued already, is polled right now, or is done.
    #[inline]
    pub(crate) fn is_to_push(self) -> bool {
        self.0 & Self::BUSY == 0
    }

    /// The same of a task that is neither a thread nor hooked.
    #[inline]
    pub(crate) fn is_to_push_plain(self) -> bool {
        self.0 & (Self::BUSY | Self::SPECIAL) == 0
    }

    /// Of a wake that has given a reference back, if the task is not to be pushed: it was the last one, so send the task
    /// to its reaper.
    #[inline]
    pub(crate) fn was_last(self) -> bool {
        self.0 < 2 * REFERENCE
    }
}

/// The word at the beginning of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start(u32);

impl Start {
    /// The task is hooked, or its future must be dropped instead of polled.
    #[inline]
    pub(crate) fn is_special(self) -> bool {
        self.0 & (ABORTED | HOOKED) != 0
    }

    /// The future must be dropped instead of polled.
    pub(crate) fn is_cancelled(self) -> bool {
        self.0 & ABORTED != 0
    }
}

/// The word at the end of a poll that returned `Pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AfterPoll(u32);

impl AfterPoll {
    /// The task is done.
    pub(crate) const DONE: Self = AfterPoll(DONE);

    /// A wake came meanwhile: the task is to be queued again. Else it waits, or is done.
    #[inline]
    pub(crate) fn is_ready(self) -> bool {
        self.0 & SCHEDULED != 0
    }

    /// It is neither a thread, nor pinned, nor nice.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & (THREAD | PINNED | NICE) == 0
    }
}

impl State {
    /// Queued, with the executor's and the handle's reference. `kind` is of THREAD, PINNED, NICE and HOOKED.
    pub(crate) fn new(kind: u32) -> Self {
        debug_assert!(kind & !(THREAD | PINNED | NICE | HOOKED) == 0);
        State(AtomicU32::new(SCHEDULED | HANDLE | kind | (2 * REFERENCE)))
    }

    pub(crate) fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_thread(&self) -> bool {
        self.0.load(Ordering::Relaxed) & THREAD != 0
    }

    #[inline]
    pub(crate) fn is_hooked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & HOOKED != 0
    }

    /// Hooks are told about it from now on.
    pub(crate) fn hook(&self) {
        self.0.fetch_or(HOOKED, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_pinned(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PINNED != 0
    }

    /// Any context. The OR happens even where SCHEDULED is set: it publishes what the waker wrote before to
    /// the poll that follows.
    #[inline]
    pub(crate) fn wake(&self) -> Woken {
        Woken(self.0.fetch_or(SCHEDULED, Ordering::AcqRel))
    }

    /// As [`wake`](State::wake), and gives a reference back in the same step.
    #[inline]
    pub(crate) fn wake_and_drop(&self) -> Woken {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let new = (old | SCHEDULED) - REFERENCE;
            match self.0.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Woken(old),
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    pub(crate) fn abort(&self) -> Woken {
        Woken(self.0.fetch_or(SCHEDULED | ABORTED, Ordering::AcqRel))
    }

    /// QUEUED to RUNNING.
    #[inline]
    pub(crate) fn start(&self) -> Start {
        // One addition clears SCHEDULED and sets RUNNING: they are known to be set and clear.
        let old = self.0.fetch_add(RUNNING - SCHEDULED, Ordering::AcqRel);
        debug_assert!(old & (SCHEDULED | RUNNING | DONE) == SCHEDULED);
        Start(old)
    }

    /// The poll returned `Pending`.
    #[inline]
    pub(crate) fn end_pending(&self) -> AfterPoll {
        let old = self.0.fetch_sub(RUNNING, Ordering::AcqRel);
        debug_assert!(old & (RUNNING | DONE) == RUNNING);
        AfterPoll(old)
    }

    /// RUNNING to DONE. Returns the word before: HANDLE says whether anybody wants the output, JOINER whether a
    /// join waker was left.
    #[inline]
    pub(crate) fn finish(&self, cancelled: bool) -> u32 {
        let add = if cancelled { DONE | CANCELLED } else { DONE };
        let old = self.0.fetch_add(add - RUNNING, Ordering::AcqRel);
        debug_assert!(old & (RUNNING | DONE) == RUNNING);
        old
    }

    /// The handle has written the join waker. False if the task was done before: then the waker is the handle's
    /// to take back.
    pub(crate) fn set_joiner(&self) -> bool {
        let change = |old| if old & DONE != 0 { None } else { Some(old | JOINER) };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// The handle wants to change the join waker. False if the task was done before: the waker belongs to
    /// `finish`.
    pub(crate) fn clear_joiner(&self) -> bool {
        let change = |old| if old & DONE != 0 { None } else { Some(old & !JOINER) };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// The handle goes. Returns the word before: if DONE, the output is the handle's to drop; else, if JOINER,
    /// the join waker is.
    pub(crate) fn drop_handle(&self) -> u32 {
        let change = |old| Some(if old & DONE != 0 { old & !HANDLE } else { old & !(HANDLE | JOINER) });
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change) {
            Ok(old) | Err(old) => old,
        }
    }

    #[inline]
    pub(crate) fn add_reference(&self) {
        let old = self.0.fetch_add(REFERENCE, Ordering::Relaxed);
        assert!(old < TOO_MANY, "millions of wakers of one task: they are leaked somewhere");
    }

    /// Whether the caller's reference is the only one, so that nobody can make another.
    #[inline]
    pub(crate) fn is_last_reference(&self) -> bool {
        self.load() < 2 * REFERENCE
    }

    /// True if it was the last one.
    #[inline]
    pub(crate) fn drop_reference(&self) -> bool {
        self.0.fetch_sub(REFERENCE, Ordering::AcqRel) < 2 * REFERENCE
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_pushes_an_idle_task_once() {
        let state = State::new(0);
        assert!(!state.wake().is_to_push());
        assert!(!state.start().is_special());
        assert!(!state.end_pending().is_ready());
        assert!(state.wake().is_to_push_plain());
        assert!(!state.wake().is_to_push());
    }

    #[test]
    fn a_wake_during_the_poll_queues_again_at_its_end() {
        let state = State::new(0);
        state.start();
        assert!(!state.wake().is_to_push());
        let after = state.end_pending();
        assert!(after.is_ready() && after.is_plain());
        assert!(!state.start().is_special());
    }

    #[test]
    fn an_abort_is_seen_by_the_next_start() {
        let state = State::new(THREAD);
        assert!(state.is_thread());
        state.start();
        assert!(!state.abort().is_to_push());
        let after = state.end_pending();
        assert!(after.is_ready() && !after.is_plain());
        assert!(state.start().is_cancelled());
        let old = state.finish(true);
        assert_eq!(old & (HANDLE | JOINER), HANDLE);
        assert_eq!(state.load() & (DONE | CANCELLED | RUNNING), DONE | CANCELLED);
        assert!(!state.wake().is_to_push());
    }

    #[test]
    fn the_join_waker_belongs_to_the_end_once_done() {
        let state = State::new(0);
        assert!(state.set_joiner());
        assert!(state.clear_joiner());
        assert!(state.set_joiner());
        state.start();
        assert_ne!(state.finish(false) & JOINER, 0);
        assert!(!state.clear_joiner());
        assert!(!state.set_joiner());
        assert_ne!(state.drop_handle() & DONE, 0);
        assert!(!state.drop_reference());
        assert!(state.drop_reference());
    }
}
