//! What a task's polls have cost: their number and their time, in one word of its header.

use core::sync::atomic::{AtomicU64, Ordering};

const NANOS_BITS: u32 = 40;
const NANOS: u64 = (1 << NANOS_BITS) - 1;
const POLLS: u32 = u32::MAX >> 8;

/// What a task has spent at one moment. Both numbers wrap, so the difference of two moments is what says something:
/// [`since`](Spent::since).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How often it was polled, modulo 2^24.
    pub polls: u32,
    /// Nanoseconds in its polls, modulo 2^40 (18 minutes). Those of a thread are its slots.
    pub nanos: u64,
}

impl Spent {
    /// What was spent between `earlier` and this moment, if that was less than the numbers can hold.
    pub fn since(self, earlier: Spent) -> Spent {
        Spent {
            polls: self.polls.wrapping_sub(earlier.polls) & POLLS,
            nanos: self.nanos.wrapping_sub(earlier.nanos) & NANOS,
        }
    }
}

/// The word: `polls:24 | nanoseconds:40`. Where the nanoseconds wrap they carry one poll, which nobody misses; so both are
/// counted with one sum. Only the CPU that polls the task writes it.
pub(crate) struct Account(AtomicU64);

impl Account {
    pub(crate) const fn new() -> Self {
        Account(AtomicU64::new(0))
    }

    /// One poll more. Should the clock have gone back, so does the sum.
    #[inline]
    pub(crate) fn add(&self, nanos: u64) {
        let word = self.0.load(Ordering::Relaxed);
        self.0.store(word.wrapping_add(1 << NANOS_BITS).wrapping_add(nanos), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Spent {
        let word = self.0.load(Ordering::Relaxed);
        Spent { polls: (word >> NANOS_BITS) as u32, nanos: word & NANOS }
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, AtomicU64, NANOS, POLLS, Spent};

    #[test]
    fn polls_and_times_are_added_up() {
        let account = Account::new();
        account.add(5);
        account.add(7);
        assert_eq!(account.read(), Spent { polls: 2, nanos: 12 });
    }

    #[test]
    fn a_clock_that_goes_back_takes_that_time_back() {
        let account = Account::new();
        account.add(100);
        account.add(40_u64.wrapping_neg());
        assert_eq!(account.read(), Spent { polls: 2, nanos: 60 });
    }

    #[test]
    fn a_difference_is_right_beyond_the_end_of_both() {
        let before = Spent { polls: POLLS, nanos: NANOS - 9 };
        let account = Account(AtomicU64::new(u64::MAX - 9));
        assert_eq!(account.read(), before);
        account.add(30);
        // The nanoseconds carry one poll.
        assert_eq!(account.read().since(before), Spent { polls: 2, nanos: 30 });
    }
}
