//! The host's real clock: the processor's time-stamp counter where it counts evenly, which takes a tenth of the
//! instructions of the operating system's clock.
#![allow(unsafe_code, reason = "the counter is read by an instruction")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a thread turns ticks into nanoseconds. It does not know at first, and while its clock is simulated.
pub(super) struct Rate {
    /// As [`NANOS_PER_TICK`].
    nanos: AtomicU64,
}

impl Rate {
    pub(super) const fn unknown() -> Self {
        Rate { nanos: AtomicU64::new(0) }
    }

    pub(super) fn forget(&self) {
        self.nanos.store(0, Ordering::Relaxed);
    }

    /// Nanoseconds since the counter began, if the rate is known.
    #[inline]
    pub(super) fn now(&self) -> Option<u64> {
        match self.nanos.load(Ordering::Relaxed) {
            0 => None,
            rate => Some(nanos(ticks(), rate)),
        }
    }

    /// The same, also where it is not known yet; where the counter cannot be used, since the first reading.
    #[cold]
    pub(super) fn learn(&self) -> u64 {
        let now = now_by_system();
        self.nanos.store(NANOS_PER_TICK.load(Ordering::Acquire), Ordering::Relaxed);
        now
    }
}

#[inline]
fn nanos(ticks: u64, rate: u64) -> u64 {
    ((u128::from(ticks) * u128::from(rate)) >> 64) as u64
}

/// Nanoseconds for a tick, times 2^64; zero until it is known, and where the counter cannot be used: also where a tick
/// takes a nanosecond or more.
static NANOS_PER_TICK: AtomicU64 = AtomicU64::new(0);

#[inline]
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is there on all of these processors, and only reads.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Whether the counter counts at the same rate always and on all processors.
fn is_even() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::__cpuid;
        const FEATURES: u32 = 0x8000_0007;
        __cpuid(0x8000_0000).eax >= FEATURES && __cpuid(FEATURES).edx & 1 << 8 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The counter, and the system's clock at the same moment.
fn pair() -> (u64, Instant) {
    let tries = (0..8).map(|_| {
        let (before, instant) = (ticks(), Instant::now());
        (ticks().wrapping_sub(before), before, instant)
    });
    // Nothing came in between in the quickest.
    tries.min_by_key(|&(took, ..)| took).map_or_else(|| (0, Instant::now()), |(_, ticks, now)| (ticks, now))
}

/// The first reading compares the counter with the system's clock.
#[cold]
fn now_by_system() -> u64 {
    static START: OnceLock<Option<Instant>> = OnceLock::new();
    let start = START.get_or_init(|| {
        let (first, start) = pair();
        if !is_even() {
            return Some(start);
        }
        std::thread::sleep(Duration::from_millis(10));
        let (last, end) = pair();
        let rate = (end.duration_since(start).as_nanos() << 64) / u128::from(last.wrapping_sub(first).max(1));
        // Too slow by the error of such a comparison, so that no timer is early by the system's clock.
        let Ok(rate @ 1..) = u64::try_from(rate - rate / 10_000) else { return Some(start) };
        NANOS_PER_TICK.store(rate, Ordering::Release);
        None
    });
    match start {
        Some(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        None => {
            let rate = NANOS_PER_TICK.load(Ordering::Acquire);
            nanos(ticks(), rate)
        }
    }
}
