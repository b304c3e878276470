//! A meeting point.
#![allow(unsafe_code, reason = "waiters are part of futures, linked by pointers")]

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::atomic::const_unless_loom;
use crate::list::List;
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};
use crate::waiter::{Batch, Rest, Stage, Waiter, Waiters};

struct State {
    /// Of this round, and those of earlier ones that are not woken yet, in front.
    waiters: Waiters,
    round: u32,
    /// How many of this round are here.
    arrived: usize,
}

/// Lets a number of tasks go on together when the last one has come; then it starts over.
pub struct Barrier {
    state: SpinLock<State>,
    n: usize,
}

/// Says who came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for one task of each round: the last to come.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl Barrier {
    const_unless_loom! {
        /// For `n` tasks; zero counts as one.
        pub fn new(n: usize) -> Self {
            let state = State { waiters: List::new(), round: 0, arrived: 0 };
            Barrier { state: SpinLock::new("barrier", state), n }
        }
    }

    /// Waits until all have come ([`WaitReason::Notify`]).
    ///
    /// # Cancellation
    /// Dropping it before the others came takes its arrival back.
    pub fn wait(&self) -> BarrierWait<'_> {
        BarrierWait { barrier: self, waiter: Waiter::new(0) }
    }

    /// Wakes those of earlier rounds.
    fn release(&self) {
        loop {
            let mut state = self.state.lock();
            let round = state.round;
            let batch = Batch::release(&mut state.waiters, |waiter| waiter.need.get() != round);
            drop(state);
            if batch.wake() == Rest::Nothing {
                return;
            }
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Barrier({})", self.n)
    }
}

/// See [`Barrier::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct BarrierWait<'a> {
    barrier: &'a Barrier,
    waiter: Waiter,
}

impl Future for BarrierWait<'_> {
    type Output = BarrierWaitResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BarrierWaitResult> {
        let this = self.as_ref().get_ref();
        let waker = context.waker().clone();
        let mut state = this.barrier.state.lock();
        let stage = this.waiter.stage();
        let over = stage == Stage::Queued && this.waiter.need.get() != state.round;
        if over || stage == Stage::Released {
            // SAFETY: the waiter only ever joins this queue.
            let (_, old) = unsafe { this.waiter.leave(&mut state.waiters) };
            drop(state);
            drop((old, waker));
            return Poll::Ready(BarrierWaitResult(false));
        }
        if stage == Stage::Idle {
            if state.arrived + 1 >= this.barrier.n {
                state.arrived = 0;
                state.round = state.round.wrapping_add(1);
                drop(state);
                this.barrier.release();
                return Poll::Ready(BarrierWaitResult(true));
            }
            state.arrived += 1;
            this.waiter.need.set(state.round);
        }
        // SAFETY: pinned, dropped with `leave`, always the same queue.
        let old = unsafe { this.waiter.join(&mut state.waiters, waker) };
        drop(state);
        drop(old);
        waits_for(WaitReason::Notify);
        Poll::Pending
    }
}

impl Drop for BarrierWait<'_> {
    fn drop(&mut self) {
        if self.waiter.stage() == Stage::Idle {
            return;
        }
        let mut state = self.barrier.state.lock();
        // SAFETY: the waiter only ever joins this queue.
        let (stage, waker) = unsafe { self.waiter.leave(&mut state.waiters) };
        if stage == Stage::Queued && self.waiter.need.get() == state.round {
            state.arrived -= 1;
        }
        drop(state);
        drop(waker);
    }
}

impl fmt::Debug for BarrierWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BarrierWait")
    }
}
