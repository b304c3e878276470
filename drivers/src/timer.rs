//! How fast the CPU's clocks run, measured against the interval timer (PIT) once at boot.
//!
//! The interval timer counts at a rate that every PC keeps. Its channel 2 counts down while its count and
//! the clocks are read together twice, some 20 ms apart.
//!
//! A hypervisor may take the CPU away at any instruction, and then what was read "together" was not. So
//! each reading is enclosed by two looks at the clocks, and of several readings the one counts whose
//! looks are closest; how close says how good the measurement is, and a bad one is repeated.

use crate::port::{PIT_CHANNEL_2, PIT_COMMAND, SYSTEM_CONTROL_B};

#[cfg(test)]
mod tests;

/// The interval timer's rate in ticks a second.
const PIT_HZ: u64 = 1_193_182;
/// Where the count begins. It is over after 55 ms, and a measurement that takes longer does not count.
const FIRST_COUNT: u16 = u16::MAX;
/// Ticks between the two readings, at least: 20 ms.
const SPAN: u16 = 23_864;
/// Readings of which the best is taken.
const READINGS: u32 = 8;
/// Measurements of which the best is taken, if none is good enough before.
const MEASUREMENTS: u32 = 12;
/// A measurement is good enough when its uncertainty is a 2,000th.
const GOOD: u64 = 2_000;
/// Looks at the count before the timer counts as absent. A measurement takes some 10,000.
const MAX_LOOKS: u32 = 1_000_000;

/// Channel 2, lower then upper byte of the count, mode 0 (output rises when the count ends), binary.
const ONE_SHOT: u8 = 0b1011_0000;
/// Holds channel 2's count for the next two reads.
const LATCH: u8 = 0b1000_0000;
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
trait Countdown {
    /// Starts counting down.
    fn start(&mut self, from: u16);
    /// The count now.
    fn count(&mut self) -> u16;
    /// True once it has reached zero; from then on `count` means nothing.
    fn is_over(&mut self) -> bool;
}

struct Channel2;

impl Countdown for Channel2 {
    fn start(&mut self, from: u16) {
        let control = SYSTEM_CONTROL_B.read() & !SPEAKER;
        SYSTEM_CONTROL_B.write(control | GATE);
        PIT_COMMAND.write(ONE_SHOT);
        let [low, high] = from.to_le_bytes();
        PIT_CHANNEL_2.write(low);
        // In mode 0 counting starts with the upper byte.
        PIT_CHANNEL_2.write(high);
    }

    fn count(&mut self) -> u16 {
        PIT_COMMAND.write(LATCH);
        u16::from_le_bytes([PIT_CHANNEL_2.read(), PIT_CHANNEL_2.read()])
    }

    fn is_over(&mut self) -> bool {
        SYSTEM_CONTROL_B.read() & OUTPUT != 0
    }
}

/// Measures both clocks; takes 25 ms, on a busy host up to some hundred. `None` if the interval timer does
/// not answer or a clock stands still.
///
/// `sample` returns, at the same moment, the time stamp counter and the ticks that the local APIC's timer
/// has counted so far (as a number that grows: the kernel starts the timer at its largest count, masked,
/// and returns that minus the current count).
///
/// For boot: interrupts off, before other CPUs run. Spins.
pub fn calibrate(sample: impl FnMut() -> (u64, u64)) -> Option<Rates> {
    calibrate_with(&mut Channel2, sample)
}

fn calibrate_with(timer: &mut impl Countdown, mut sample: impl FnMut() -> (u64, u64)) -> Option<Rates> {
    let mut best: Option<Measurement> = None;
    for _ in 0..MEASUREMENTS {
        let Some(measurement) = measure(timer, &mut sample)? else { continue };
        if best.as_ref().is_none_or(|best| measurement.is_better_than(best)) {
            best = Some(measurement);
        }
        if best.as_ref().is_some_and(Measurement::is_good) {
            break;
        }
    }
    best?.rates()
}

/// The count and the clocks, read together.
#[derive(Clone, Copy)]
struct Reading {
    count: u16,
    tsc: u64,
    apic: u64,
    /// How far the time stamp counter went meanwhile.
    width: u64,
}

/// The best of some readings.
fn read(timer: &mut impl Countdown, sample: &mut impl FnMut() -> (u64, u64)) -> Reading {
    let readings = (0..READINGS).map(|_| {
        let before = sample();
        let count = timer.count();
        let after = sample();
        let (width, apic_width) = (after.0.wrapping_sub(before.0), after.1.wrapping_sub(before.1));
        let (tsc, apic) = (before.0.wrapping_add(width / 2), before.1.wrapping_add(apic_width / 2));
        Reading { count, tsc, apic, width }
    });
    readings.min_by_key(|reading| reading.width).expect("there is more than one reading")
}

/// One measurement. `None` if the timer does not answer, `Some(None)` if it was over before the end.
fn measure(
    timer: &mut impl Countdown,
    sample: &mut impl FnMut() -> (u64, u64),
) -> Option<Option<Measurement>> {
    timer.start(FIRST_COUNT);
    // The count is taken over with the timer's next tick; until then it reads as before.
    timer.count();
    let first = read(timer, sample);
    let mut looks = 0;
    while !timer.is_over() && first.count.saturating_sub(timer.count()) < SPAN {
        looks += 1;
        if looks == MAX_LOOKS {
            return None;
        }
    }
    let last = read(timer, sample);
    if timer.is_over() || last.count >= first.count {
        return Some(None);
    }
    Some(Some(Measurement {
        ticks: (first.count - last.count).into(),
        tsc: last.tsc.wrapping_sub(first.tsc),
        apic: last.apic.wrapping_sub(first.apic),
        uncertainty: first.width.saturating_add(last.width) / 2,
    }))
}

/// How far each clock went between two readings, and how far the first of them may be wrong.
struct Measurement {
    ticks: u64,
    tsc: u64,
    apic: u64,
    uncertainty: u64,
}

impl Measurement {
    fn is_good(&self) -> bool {
        self.uncertainty.saturating_mul(GOOD) <= self.tsc
    }

    fn is_better_than(&self, other: &Self) -> bool {
        let product = |uncertainty: u64, tsc: u64| u128::from(uncertainty) * u128::from(tsc);
        product(self.uncertainty, other.tsc) < product(other.uncertainty, self.tsc)
    }

    fn rates(&self) -> Option<Rates> {
        let hertz = |clock: u64| Some(clock.checked_mul(PIT_HZ)? / self.ticks).filter(|&hertz| hertz > 0);
        Some(Rates { tsc_hz: hertz(self.tsc)?, apic_timer_hz: hertz(self.apic)? })
    }
}
