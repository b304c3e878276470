//! How long faults take: what `faults` prints beside `mm`'s own counts.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::console::{
    Histogram,
    histogram::{BUCKETS, bucket},
};

static RESOLVED_AT_ONCE: AtomicU64 = AtomicU64::new(0);
static TIMES: [Times; FaultKind::ALL.len()] = [const { Times::new() }; FaultKind::ALL.len()];

/// Faults that parked their threads, by what the threads did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// They read.
    Read,
    /// They wrote.
    Write,
    /// They executed.
    Execute,
    /// Kernel threads' stacks grew.
    Stack,
}

impl FaultKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Execute, Self::Stack];
}

struct Times {
    counts: [AtomicU32; BUCKETS],
    shortest: AtomicU64,
    total: AtomicU64,
    longest: AtomicU64,
}

impl Times {
    const fn new() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            shortest: AtomicU64::new(u64::MAX),
            total: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }
}

/// Faults by how they ended, and times parked in ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultTimes {
    /// Served without parking the thread.
    pub at_once: u64,
    /// The thread was parked.
    pub parked: u64,
    /// The shortest time that a thread was parked; `None` when none was.
    pub shortest: Option<u64>,
    /// The mean.
    pub mean: u64,
    /// The longest.
    pub longest: u64,
}

/// Notes a fault that was served without parking.
pub(crate) fn at_once() {
    RESOLVED_AT_ONCE.fetch_add(1, Relaxed);
}

/// Notes a fault whose thread was parked for `ns`.
pub(crate) fn parked(kind: FaultKind, ns: u64) {
    let times = &TIMES[kind as usize];
    times.counts[bucket(ns)].fetch_add(1, Relaxed);
    times.total.fetch_add(ns, Relaxed);
    times.shortest.fetch_min(ns, Relaxed);
    times.longest.fetch_max(ns, Relaxed);
}

/// How long faults of a kind have parked threads since boot.
pub(crate) fn histogram(kind: FaultKind) -> Histogram {
    let Times { counts, longest, .. } = &TIMES[kind as usize];
    Histogram::new(counts.iter().map(|count| count.load(Relaxed).into()), longest.load(Relaxed))
}

/// All faults of threads since boot.
pub(crate) fn snapshot() -> FaultTimes {
    let counts = TIMES.iter().flat_map(|times| &times.counts);
    let parked = counts.map(|count| u64::from(count.load(Relaxed))).sum();
    let total: u64 = TIMES.iter().map(|times| times.total.load(Relaxed)).sum();
    let shortest = TIMES.iter().map(|times| times.shortest.load(Relaxed)).min();
    FaultTimes {
        at_once: RESOLVED_AT_ONCE.load(Relaxed),
        parked,
        shortest: shortest.filter(|_| parked > 0),
        mean: total.checked_div(parked).unwrap_or(0),
        longest: TIMES.iter().map(|times| times.longest.load(Relaxed)).max().unwrap_or(0),
    }
}
