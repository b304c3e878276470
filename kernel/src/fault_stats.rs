//! How long faults take: what `faults` prints beside `mm`'s own counts.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static RESOLVED_AT_ONCE: AtomicU64 = AtomicU64::new(0);
static PARKED: AtomicU64 = AtomicU64::new(0);
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
static TOTAL: AtomicU64 = AtomicU64::new(0);
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Faults by how they ended, and times parked in ns.
#[derive(Clone, Copy, Debug)]
pub struct FaultTimes {
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
pub(crate) fn parked(ns: u64) {
    PARKED.fetch_add(1, Relaxed);
    TOTAL.fetch_add(ns, Relaxed);
    SHORTEST.fetch_min(ns, Relaxed);
    LONGEST.fetch_max(ns, Relaxed);
}

/// All faults of threads since boot.
pub fn snapshot() -> FaultTimes {
    let parked = PARKED.load(Relaxed);
    FaultTimes {
        at_once: RESOLVED_AT_ONCE.load(Relaxed),
        parked,
        shortest: (parked > 0).then(|| SHORTEST.load(Relaxed)),
        mean: TOTAL.load(Relaxed).checked_div(parked).unwrap_or(0),
        longest: LONGEST.load(Relaxed),
    }
}
