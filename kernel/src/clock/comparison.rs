//! Do the time-stamp counters of two CPUs agree? Asked once, when a CPU is started.
//!
//! ```text
//! new CPU    asked = n, at t0 ──►                        ──► answered = n seen, at t1
//! boot CPU                     asked = n seen, answer = its time stamp, answered = n
//! ```
//! The answer was given between `t0` and `t1`, so the counters differ by `answer - (t0 + t1) / 2`, give or take half of
//! the way. Of some rounds the quickest counts. What is more than that is corrected where the CPU's counter can be
//! moved; then [`super::now`] needs no correction, and a thread may read it while it is moved from CPU to CPU.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | end of the comparison, the boot CPU that gives up | one word, exchanged: the first one decides |

use core::sync::atomic::{
    AtomicI64, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::arch::registers;

/// Questions of which the one counts that was answered most quickly.
const ROUNDS: u32 = 24;
/// How long the boot CPU looks for questions at a time, in ns.
const TURN: u64 = 1_000_000;
/// A difference that matters, in ns: less than any way from one CPU to another and back through a task.
const MATTERS: u64 = 1_000;

const OPEN: u32 = 0;
const DONE: u32 = 1;
const CLOSED: u32 = 2;

/// One CPU's comparison with the boot CPU.
pub(crate) struct Comparison {
    asked: AtomicU32,
    answered: AtomicU32,
    answer: AtomicU64,
    state: AtomicU32,
    /// What remains, in ticks: by how much the boot CPU's counter is ahead, and how far that may be wrong.
    offset: AtomicI64,
    uncertainty: AtomicU64,
}

/// The boot CPU gave up.
pub(crate) struct GivenUp;

#[derive(Clone, Copy)]
struct Round {
    offset: i64,
    way: u64,
}

impl Round {
    fn uncertainty(self) -> u64 {
        self.way / 2 + 1
    }
}

impl Comparison {
    pub(crate) const fn new() -> Self {
        Self {
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            answer: AtomicU64::new(0),
            state: AtomicU32::new(OPEN),
            offset: AtomicI64::new(0),
            uncertainty: AtomicU64::new(0),
        }
    }

    /// The new CPU's side: compares, and corrects its counter. Interrupts are off; takes as long as the boot CPU
    /// takes to answer.
    pub(crate) fn ask(&self) -> Result<(), GivenUp> {
        let mut best = self.best_of(1)?;
        if best.offset.unsigned_abs() > best.uncertainty() && registers::move_time_stamp(best.offset) {
            best = self.best_of(1 + ROUNDS)?;
        }
        self.offset.store(best.offset, Relaxed);
        self.uncertainty.store(best.uncertainty(), Relaxed);
        self.state.compare_exchange(OPEN, DONE, Release, Relaxed).map(drop).map_err(|_| GivenUp)
    }

    fn best_of(&self, first: u32) -> Result<Round, GivenUp> {
        let mut best = self.round(first)?;
        for number in first + 1..first + ROUNDS {
            let round = self.round(number)?;
            if round.way < best.way {
                best = round;
            }
        }
        Ok(best)
    }

    fn round(&self, number: u32) -> Result<Round, GivenUp> {
        let before = registers::time_stamp();
        self.asked.store(number, Release);
        while self.answered.load(Acquire) != number {
            if self.state.load(Relaxed) == CLOSED {
                return Err(GivenUp);
            }
            core::hint::spin_loop();
        }
        let after = registers::time_stamp();
        let way = after.wrapping_sub(before);
        let middle = before.wrapping_add(way / 2);
        Ok(Round { offset: self.answer.load(Relaxed).wrapping_sub(middle) as i64, way })
    }

    /// The boot CPU's side: answers for a moment; true when the comparison is done.
    pub(crate) fn serve(&self) -> bool {
        let end = super::now() + TURN;
        let mut answered = self.answered.load(Relaxed);
        // Before the first question there is nothing to hurry for.
        while answered != 0 || self.asked.load(Relaxed) != 0 {
            let asked = self.asked.load(Acquire);
            if asked != answered {
                self.answer.store(registers::time_stamp(), Relaxed);
                self.answered.store(asked, Release);
                answered = asked;
            }
            if self.state.load(Acquire) == DONE {
                return true;
            }
            if super::now() > end {
                break;
            }
            core::hint::spin_loop();
        }
        false
    }

    /// The boot CPU gives up; false when the comparison was done just before.
    pub(crate) fn close(&self) -> bool {
        self.state.compare_exchange(OPEN, CLOSED, Relaxed, Acquire).is_ok()
    }

    /// By how many ns the counters differ, when that matters and is more than what measuring them cannot tell.
    pub(crate) fn beyond(&self) -> Option<i64> {
        let khz = u64::from(super::tsc_khz()).max(1);
        let (offset, uncertainty) = (self.offset.load(Relaxed), self.uncertainty.load(Relaxed));
        let nanos = offset.unsigned_abs().saturating_mul(1_000_000) / khz;
        let matters = offset.unsigned_abs() > uncertainty && nanos > MATTERS;
        matters.then_some(nanos as i64 * offset.signum())
    }
}
