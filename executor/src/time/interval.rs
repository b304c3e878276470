//! Ticks at equal distances.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use alloc::boxed::Box;

use futures_core::Stream;

use super::{Duration, Instant, Sleep, now, sleep_until};

/// What happens to ticks whose time passed while nobody asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// They come one right after another until the interval has caught up.
    #[default]
    Burst,
    /// One comes late, and the next a whole period after it.
    Delay,
    /// One comes late, and the next at the next multiple of the period.
    Skip,
}

/// Ticks with `period` between them, the first at once.
///
/// # Panics
/// With a period of zero.
pub fn interval(period: Duration) -> Interval {
    interval_at(now(), period)
}

/// Ticks with `period` between them, the first at `start`.
///
/// # Panics
/// With a period of zero.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    Interval { sleep: Box::pin(sleep_until(start)), period, behavior: MissedTickBehavior::Burst }
}

/// See [`interval`].
pub struct Interval {
    sleep: Pin<Box<Sleep>>,
    period: Duration,
    behavior: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick ([`WaitReason::Timer`](crate::WaitReason::Timer)); returns when it was due.
    ///
    /// # Cancellation
    /// Dropping it loses no tick.
    pub async fn tick(&mut self) -> Instant {
        core::future::poll_fn(|context| self.poll_tick(context)).await
    }

    /// The form of [`tick`](Interval::tick) for own futures.
    pub fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        if self.sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let due = self.sleep.deadline();
        let next = self.next_after(due, now());
        self.sleep.as_mut().reset(next);
        Poll::Ready(due)
    }

    fn next_after(&self, due: Instant, now: Instant) -> Instant {
        let next = due + self.period;
        if next > now {
            return next;
        }
        match self.behavior {
            MissedTickBehavior::Burst => next,
            MissedTickBehavior::Delay => now + self.period,
            MissedTickBehavior::Skip => {
                let late = u128::from(now.as_nanos() - due.as_nanos()) % self.period.as_nanos();
                let late = Duration::from_nanos(late as u64);
                now + (self.period - late)
            }
        }
    }

    /// What happens to missed ticks.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.behavior
    }

    /// Says what happens to missed ticks.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.behavior = behavior;
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Lets the next tick come a period from now.
    pub fn reset(&mut self) {
        self.reset_at(now() + self.period);
    }

    /// Lets the next tick come at once.
    pub fn reset_immediately(&mut self) {
        self.reset_at(now());
    }

    /// Lets the next tick come at `deadline`.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
    }
}

/// [`tick`](Interval::tick) as a stream, which never ends.
impl Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(context).map(Some)
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interval({:?})", self.period)
    }
}
