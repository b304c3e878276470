//! Notifications between tasks.
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::atomic::const_unless_loom;
use crate::list::List;
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};
use crate::waiter::{Batch, Rest, Stage, Waiter, Waiters, give_first};

struct State {
    waiters: Waiters,
    /// A `notify_one` came while nobody waited.
    permit: bool,
    /// How often `notify_waiters` was called.
    rounds: u32,
}

/// Wakes one waiting task, or all. Not for interrupt handlers: see [`Signal`](super::Signal).
pub struct Notify {
    state: SpinLock<State>,
    reason: WaitReason,
}

impl Default for Notify {
    fn default() -> Self {
        Notify::new()
    }
}

impl Notify {
    const_unless_loom! {
        /// Nobody was notified yet. Who waits shows [`WaitReason::Notify`].
        pub fn new() -> Self {
            Notify::with_reason(WaitReason::Notify)
        }
    }

    const_unless_loom! {
        /// As `new`, for another reason.
        pub fn with_reason(reason: WaitReason) -> Self {
            let state = State { waiters: List::new(), permit: false, rounds: 0 };
            Notify { state: SpinLock::new("notify", state), reason }
        }
    }

    /// Wakes the one that waits longest. If nobody waits, the next one does not wait; this is remembered once.
    pub fn notify_one(&self) {
        let mut state = self.state.lock();
        let waker = if state.waiters.is_empty() {
            state.permit = true;
            None
        } else {
            give_first(&mut state.waiters, Stage::Given)
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes all whose [`notified`](Notify::notified) future exists; leaves no permit.
    pub fn notify_waiters(&self) {
        let mut state = self.state.lock();
        let round = state.rounds.wrapping_add(1);
        state.rounds = round;
        loop {
            // Who joined in this round came after the call.
            let batch = Batch::release(&mut state.waiters, |waiter| waiter.need.get() != round);
            drop(state);
            if batch.wake() == Rest::Nothing {
                return;
            }
            state = self.state.lock();
        }
    }

    /// Waits for a notification.
    ///
    /// # Cancellation
    /// Dropping it gives up the place in the queue; a `notify_one` that it got and did not use goes to the next
    /// one, or is remembered.
    pub fn notified(&self) -> Notified<'_> {
        let rounds = self.state.lock().rounds;
        Notified { notify: self, waiter: Waiter::new(0), rounds }
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify")
    }
}

/// See [`Notify::notified`].
#[must_use = "futures do nothing unless awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    waiter: Waiter,
    rounds: u32,
}

impl Notified<'_> {
    /// Joins the queue now, or takes a permit: true if the notification is there already.
    pub fn enable(self: Pin<&mut Self>) -> bool {
        self.poll_with(Waker::noop())
    }

    fn poll_with(self: Pin<&mut Self>, waker: &Waker) -> bool {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        let waker = waker.clone();
        let mut state = this.notify.state.lock();
        let stage = this.waiter.stage();
        if matches!(stage, Stage::Given | Stage::Released) || this.rounds != state.rounds {
            // SAFETY: the waiter only ever joins this queue.
            let (stage, old) = unsafe { this.waiter.leave(&mut state.waiters) };
            // Both came: the one that was for this waiter alone is not used.
            let unused = stage == Stage::Given && this.rounds != state.rounds;
            this.rounds = state.rounds;
            drop(state);
            drop((old, waker));
            if unused {
                this.notify.notify_one();
            }
            return true;
        }
        if stage == Stage::Idle && core::mem::take(&mut state.permit) {
            return true;
        }
        this.waiter.need.set(state.rounds);
        // SAFETY: pinned, dropped with `leave`, always the same queue.
        let old = unsafe { this.waiter.join(&mut state.waiters, waker) };
        drop(state);
        drop(old);
        false
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let reason = self.notify.reason;
        if self.poll_with(context.waker()) {
            return Poll::Ready(());
        }
        waits_for(reason);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if self.waiter.stage() == Stage::Idle {
            return;
        }
        let mut state = self.notify.state.lock();
        // SAFETY: the waiter only ever joins this queue.
        let (stage, waker) = unsafe { self.waiter.leave(&mut state.waiters) };
        drop(state);
        drop(waker);
        if stage == Stage::Given {
            self.notify.notify_one();
        }
    }
}

impl fmt::Debug for Notified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notified")
    }
}
