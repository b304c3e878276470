//! What has happened in a memory, counted.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::Memory;

/// What has happened so far. Each is a count since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) loads_started: AtomicU64,
    pub(crate) loads_ahead: AtomicU64,
    pub(crate) loads_shared: AtomicU64,
    pub(crate) loads_failed: AtomicU64,
    pub(crate) loads_invalidated: AtomicU64,
    pub(crate) zero_fills: AtomicU64,
    /// Those of them that had left before.
    pub(crate) zeros_back: AtomicU64,
    pub(crate) minor_faults: AtomicU64,
    pub(crate) major_faults: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Touches that `settle` has tried until they were done.
    pub(crate) settled: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A copy of the counters. Each is a count since the start; they are not taken at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Loads handed to a pager.
    pub loads_started: u64,
    /// Of these, pages that nobody had asked for.
    pub loads_ahead: u64,
    /// Faults that joined a load under way.
    pub loads_shared: u64,
    /// Loads that ended with an error.
    pub loads_failed: u64,
    /// Loads whose data was thrown away because the page was invalidated or released meanwhile.
    pub loads_invalidated: u64,
    /// Pages filled with zeros at their first touch.
    pub zero_fills: u64,
    /// Faults resolved without waiting for a load.
    pub minor_faults: u64,
    /// Faults resolved after waiting for a load.
    pub major_faults: u64,
    /// Faults denied, for whatever reason.
    pub denied: u64,
    /// Clean pages given back.
    pub evictions: u64,
    /// Times that a fault started over because the mapping or the page changed meanwhile.
    pub retries: u64,
    /// Times that all CPUs were waited for, or would have been if others had been busy.
    pub shootdowns: u64,
}

impl Memory {
    /// What has happened so far.
    pub fn stats(&self) -> FaultStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        FaultStats {
            loads_started: read(&counters.loads_started),
            loads_ahead: read(&counters.loads_ahead),
            loads_shared: read(&counters.loads_shared),
            loads_failed: read(&counters.loads_failed),
            loads_invalidated: read(&counters.loads_invalidated),
            zero_fills: read(&counters.zero_fills),
            minor_faults: read(&counters.minor_faults),
            major_faults: read(&counters.major_faults),
            denied: read(&counters.denied),
            evictions: read(&counters.evictions),
            retries: read(&counters.retries),
            shootdowns: self.frames.waits(),
        }
    }

    /// A number that grows with each touch that is done, whether for a program or for the kernel.
    pub(crate) fn settled(&self) -> u64 {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Faults that were resolved at once are among the former only, other touches among the latter.
        read(&self.counters.minor_faults).wrapping_add(read(&self.counters.settled))
    }
}
