//! How fast the CPU's clocks run, measured against the interval timer (PIT) once at boot.
//!
//! The interval timer counts at a rate that every PC keeps. Its channel 2 is started for a known number
//! of ticks, and the clocks to be calibrated are read just before the start and just after the end.
//!
//! Starting it and noticing its end take time too, under a hypervisor a good deal. That time is the same
//! for a short run and a long one, so the difference of the two is measured. A delay in between (the CPU
//! is taken away) makes the clocks look faster, never slower, so of several runs the slowest counts.

use crate::port::{PIT_CHANNEL_2, PIT_COMMAND, SYSTEM_CONTROL_B};

/// The interval timer's rate in ticks a second.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of a short run (1 ms) and of a long one (21 ms; the counter has 16 bits, 54 ms).
const SHORT_RUN: u16 = 1_193;
const LONG_RUN: u16 = 25_057;
const RUNS: u32 = 4;
/// Looks at the output before the timer counts as absent. A run is some 20,000 looks.
const MAX_LOOKS: u32 = 2_000_000;

/// Channel 2, lower then upper byte of the count, mode 0 (output rises when the count ends), binary.
const ONE_SHOT: u8 = 0b1011_0000;
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Rates of the two clocks in ticks a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of the CPU's time stamp counter.
    pub tsc_hz: u64,
    /// Of the local APIC's timer, at the divider that the kernel has set.
    pub apic_timer_hz: u64,
}

/// The timer's registers; a seam for tests.
trait OneShot {
    /// Starts counting the given number of ticks.
    fn start(&mut self, ticks: u16);
    /// True once they are over.
    fn is_over(&mut self) -> bool;
}

struct Channel2;

impl OneShot for Channel2 {
    fn start(&mut self, ticks: u16) {
        let control = SYSTEM_CONTROL_B.read() & !(SPEAKER | GATE);
        SYSTEM_CONTROL_B.write(control | GATE);
        PIT_COMMAND.write(ONE_SHOT);
        let [low, high] = ticks.to_le_bytes();
        PIT_CHANNEL_2.write(low);
        // In mode 0 counting starts with the upper byte.
        PIT_CHANNEL_2.write(high);
    }
    fn is_over(&mut self) -> bool {
        SYSTEM_CONTROL_B.read() & OUTPUT != 0
    }
}

/// Measures both clocks; takes about 90 ms. `None` if the interval timer does not answer or a clock
/// stands still.
///
/// `sample` returns, at the same moment, the time stamp counter and the ticks that the local APIC's timer
/// has counted so far (as a number that grows: the kernel starts the timer at its largest count, masked,
/// and returns that minus the current count).
///
/// For boot: interrupts off, before other CPUs run. Spins.
pub fn calibrate(sample: impl FnMut() -> (u64, u64)) -> Option<Rates> {
    calibrate_with(&mut Channel2, sample)
}

fn calibrate_with(timer: &mut impl OneShot, mut sample: impl FnMut() -> (u64, u64)) -> Option<Rates> {
    let mut slowest = |ticks| {
        let mut slowest = (u64::MAX, u64::MAX);
        for _ in 0..RUNS {
            let (tsc, apic) = run(timer, ticks, &mut sample)?;
            slowest = (slowest.0.min(tsc), slowest.1.min(apic));
        }
        Some(slowest)
    };
    let (short, long) = (slowest(SHORT_RUN)?, slowest(LONG_RUN)?);
    let hertz = |short: u64, long: u64| {
        let product = long.checked_sub(short)?.checked_mul(PIT_HZ)?;
        Some(product / u64::from(LONG_RUN - SHORT_RUN)).filter(|&hertz| hertz > 0)
    };
    Some(Rates { tsc_hz: hertz(short.0, long.0)?, apic_timer_hz: hertz(short.1, long.1)? })
}

/// One run: how far the clocks went meanwhile.
fn run(timer: &mut impl OneShot, ticks: u16, sample: &mut impl FnMut() -> (u64, u64)) -> Option<(u64, u64)> {
    let before = sample();
    timer.start(ticks);
    if !(0..MAX_LOOKS).any(|_| timer.is_over()) {
        return None;
    }
    let after = sample();
    Some((after.0.wrapping_sub(before.0), after.1.wrapping_sub(before.1)))
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// A timer whose start and every look take some microseconds, and now and then a scheduler's delay.
    struct Fake<'a> {
        nanoseconds: &'a Cell<u64>,
        end: u64,
        delays: &'a [u64],
        runs: usize,
    }

    impl OneShot for Fake<'_> {
        fn start(&mut self, ticks: u16) {
            self.nanoseconds.set(self.nanoseconds.get() + 100_000);
            self.end = self.nanoseconds.get() + u64::from(ticks) * 1_000_000_000 / PIT_HZ;
            let delay = self.delays.get(self.runs).copied().unwrap_or(0);
            self.nanoseconds.set(self.nanoseconds.get() + delay);
            self.runs += 1;
        }
        fn is_over(&mut self) -> bool {
            self.nanoseconds.set(self.nanoseconds.get() + 3_000);
            self.nanoseconds.get() >= self.end
        }
    }

    fn measure(delays: &[u64], apic_divider: u64) -> Option<Rates> {
        let nanoseconds = Cell::new(12_345);
        let mut fake = Fake { nanoseconds: &nanoseconds, end: 0, delays, runs: 0 };
        // A 3 GHz time stamp counter, a 1 GHz bus behind a divider.
        calibrate_with(&mut fake, || (nanoseconds.get() * 3, nanoseconds.get() / apic_divider))
    }

    #[test]
    fn both_rates_are_found_to_a_thousandth() {
        let rates = measure(&[], 16).unwrap();
        assert!(rates.tsc_hz.abs_diff(3_000_000_000) < 3_000_000, "{rates:?}");
        assert!(rates.apic_timer_hz.abs_diff(62_500_000) < 62_500, "{rates:?}");
    }

    #[test]
    fn delays_in_all_runs_but_one_of_each_length_do_no_harm() {
        let delays = [20_000_000, 15_000_000, 0, 90_000_000, 31_000_000, 40_000_000, 35_000_000, 0];
        let rates = measure(&delays, 1).unwrap();
        assert!(rates.tsc_hz.abs_diff(3_000_000_000) < 3_000_000, "{rates:?}");
    }

    #[test]
    fn a_timer_that_never_ends_is_absent() {
        struct Dead;
        impl OneShot for Dead {
            fn start(&mut self, _ticks: u16) {}
            fn is_over(&mut self) -> bool {
                false
            }
        }
        assert_eq!(calibrate_with(&mut Dead, || (1, 1)), None);
    }

    #[test]
    fn a_clock_that_stands_still_is_an_error() {
        assert_eq!(measure(&[], u64::MAX), None);
    }
}
