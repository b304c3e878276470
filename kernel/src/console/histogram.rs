//! How times are distributed, in a fixed number of counts.
//!
//! Buckets are exact up to 32 ns and 3 % wide above: each power of two has 32 of them.

use alloc::vec::Vec;

/// Powers of two that are told apart; what is longer (36 minutes) counts as that long.
const LARGEST_POWER: u32 = 40;
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;

/// How many counts a histogram has.
pub(crate) const BUCKETS: usize = (LARGEST_POWER - STEP_BITS + 2) as usize * STEPS;

/// The bucket that a time in ns falls into, below [`BUCKETS`].
pub(crate) fn bucket(ns: u64) -> usize {
    let ns = ns.min((2 << LARGEST_POWER) - 1);
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let power = ns.ilog2();
    let step = (ns >> (power - STEP_BITS)) as usize - STEPS;
    (power - STEP_BITS + 1) as usize * STEPS + step
}

/// The longest time in ns that falls into a bucket.
fn upper_edge(bucket: usize) -> u64 {
    let (group, step) = (bucket / STEPS, bucket % STEPS);
    match group {
        0 => step as u64,
        group => (((STEPS + step + 1) as u64) << (group - 1)) - 1,
    }
}

/// Counts of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    worst: u64,
}

impl Histogram {
    /// The counts of all buckets in order, and the longest time in ns.
    pub(crate) fn new(counts: impl Iterator<Item = u64>, worst: u64) -> Self {
        Self { counts: counts.collect(), worst }
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest, in ns; 0 without any.
    pub fn worst(&self) -> u64 {
        self.worst
    }

    /// A time in ns that `percent` of all are not longer than, at most 3 % too long; 0 without any.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut so_far = 0;
        let found = self.counts.iter().position(|count| {
            so_far += count;
            so_far >= rank
        });
        found.map_or(0, |bucket| upper_edge(bucket).min(self.worst))
    }

    /// How many times were longer than `over` ns and at most `up_to`, at most 3 % off.
    pub fn between(&self, over: u64, up_to: u64) -> u64 {
        let counts = self.counts.iter().enumerate();
        let within = |bucket: usize| (over + 1..=up_to).contains(&upper_edge(bucket).min(self.worst));
        counts.filter(|(bucket, _)| within(*bucket)).map(|(_, count)| count).sum()
    }

    /// What was counted since `earlier`. Its worst is at most 3 % too long.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        let counts: Vec<u64> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        let last = counts.iter().rposition(|&count| count > 0);
        let worst = last.map_or(0, |bucket| upper_edge(bucket).min(self.worst));
        Self { counts, worst }
    }
}
