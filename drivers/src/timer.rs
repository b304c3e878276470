//! How fast the CPU's clocks run, measured against the interval timer (PIT) once at boot.
//!
//! The interval timer counts at a rate that every PC keeps. Its channel 2 is started for a known number
//! of ticks, and the clocks to be calibrated are read just before the start and just after the end. A
//! delay anywhere in between (a hypervisor takes the CPU away) makes the clocks look faster, never
//! slower, so the slowest of several runs is the best.

use crate::port::{PIT_CHANNEL_2, PIT_COMMAND, SYSTEM_CONTROL_B};

/// The interval timer's rate in ticks a second.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of one run: 10 ms.
const RUN_TICKS: u16 = 11_932;
const RUNS: u32 = 5;
/// Looks at the output before the timer counts as absent. A run is some 10,000 looks.
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

/// Measures both clocks; takes about 50 ms. `None` if the interval timer does not answer or a clock
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
    let mut best = (u64::MAX, u64::MAX);
    for _ in 0..RUNS {
        let before = sample();
        timer.start(RUN_TICKS);
        let mut looks = 0;
        while !timer.is_over() {
            looks += 1;
            if looks == MAX_LOOKS {
                return None;
            }
        }
        let after = sample();
        best.0 = best.0.min(after.0.wrapping_sub(before.0));
        best.1 = best.1.min(after.1.wrapping_sub(before.1));
    }
    let hertz = |ticks: u64| ticks.checked_mul(PIT_HZ).map(|product| product / u64::from(RUN_TICKS));
    let rates = Rates { tsc_hz: hertz(best.0)?, apic_timer_hz: hertz(best.1)? };
    (rates.tsc_hz > 0 && rates.apic_timer_hz > 0).then_some(rates)
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// A timer whose every look takes a microsecond, and now and then a scheduler's delay.
    struct Fake<'a> {
        nanoseconds: &'a Cell<u64>,
        end: u64,
        delays: &'a [u64],
        runs: usize,
    }

    impl OneShot for Fake<'_> {
        fn start(&mut self, ticks: u16) {
            self.end = self.nanoseconds.get() + u64::from(ticks) * 1_000_000_000 / PIT_HZ;
            let delay = self.delays.get(self.runs).copied().unwrap_or(0);
            self.nanoseconds.set(self.nanoseconds.get() + delay);
            self.runs += 1;
        }
        fn is_over(&mut self) -> bool {
            self.nanoseconds.set(self.nanoseconds.get() + 1_000);
            self.nanoseconds.get() >= self.end
        }
    }

    fn run(delays: &[u64], apic_divider: u64) -> Option<Rates> {
        let nanoseconds = Cell::new(12_345);
        let mut fake = Fake { nanoseconds: &nanoseconds, end: 0, delays, runs: 0 };
        // A 3 GHz time stamp counter, a 1 GHz bus behind a divider.
        calibrate_with(&mut fake, || (nanoseconds.get() * 3, nanoseconds.get() / apic_divider))
    }

    #[test]
    fn both_rates_are_found_to_a_thousandth() {
        let rates = run(&[], 16).unwrap();
        assert!(rates.tsc_hz.abs_diff(3_000_000_000) < 3_000_000, "{rates:?}");
        assert!(rates.apic_timer_hz.abs_diff(62_500_000) < 62_500, "{rates:?}");
    }

    #[test]
    fn delays_in_all_runs_but_one_do_no_harm() {
        let rates = run(&[20_000_000, 15_000_000, 0, 90_000_000, 11_000_000], 1).unwrap();
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
        assert_eq!(run(&[], u64::MAX), None);
    }
}
