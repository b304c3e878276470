//! The measurement against a machine that takes its time, on a host that takes the CPU away.

use core::cell::Cell;

use super::*;

/// A machine of which every operation takes some time, and now and then much more.
struct Machine {
    nanoseconds: Cell<u64>,
    random: Cell<u64>,
    /// One operation in so many is followed by a delay; 0: none.
    one_in: u64,
    delay: u64,
    started: u64,
}

impl Machine {
    fn new(one_in: u64, delay: u64) -> Self {
        let random = Cell::new(one_in.wrapping_mul(31) + delay + 1);
        Self { nanoseconds: Cell::new(12_345), random, one_in, delay, started: 0 }
    }

    /// Lets an operation take its time; returns when it began.
    fn pass(&self, nanoseconds: u64) -> u64 {
        let now = self.nanoseconds.get();
        let next = self.random.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.random.set(next);
        let is_delayed = self.one_in != 0 && (next >> 33).is_multiple_of(self.one_in);
        self.nanoseconds.set(now + nanoseconds + if is_delayed { self.delay } else { 0 });
        now
    }

    fn ticks(&self, now: u64) -> u64 {
        (now - self.started) * PIT_HZ / 1_000_000_000
    }
}

/// The machine's timer.
struct Fake<'a>(&'a Cell<Option<Machine>>);

impl Fake<'_> {
    fn with<R>(&self, f: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.0.take().expect("no two at once");
        let result = f(&mut machine);
        self.0.set(Some(machine));
        result
    }
}

impl Countdown for Fake<'_> {
    fn start(&mut self, from: u16) {
        assert_eq!(from, FIRST_COUNT);
        self.with(|machine| {
            machine.pass(2_000);
            machine.started = machine.nanoseconds.get();
        });
    }

    fn count(&mut self) -> u16 {
        self.with(|machine| {
            let now = machine.pass(1_000);
            machine.pass(1_000);
            FIRST_COUNT.wrapping_sub(machine.ticks(now) as u16)
        })
    }

    fn is_over(&mut self) -> bool {
        self.with(|machine| {
            let now = machine.pass(1_000);
            machine.ticks(now) >= u64::from(FIRST_COUNT)
        })
    }
}

/// Measures a 3 GHz time stamp counter, and a 1 GHz bus behind a divider.
fn measure_on(machine: Machine, divider: u64) -> Option<Rates> {
    let machine = Cell::new(Some(machine));
    let clock = Fake(&machine);
    let sample = || {
        clock.with(|machine| {
            let now = machine.pass(100);
            (now * 3, now / divider)
        })
    };
    calibrate_with(&mut Fake(&machine), sample)
}

#[track_caller]
fn assert_right(rates: Option<Rates>, divider: u64) {
    let rates = rates.expect("both clocks run");
    let (tsc, apic) = (3_000_000_000, 1_000_000_000 / divider);
    assert!(rates.tsc_hz.abs_diff(tsc) < tsc / 1000, "{rates:?}");
    assert!(rates.apic_timer_hz.abs_diff(apic) < apic / 1000, "{rates:?}");
}

#[test]
fn both_rates_are_found_to_a_thousandth() {
    assert_right(measure_on(Machine::new(0, 0), 16), 16);
    assert_right(measure_on(Machine::new(0, 0), 1), 1);
}

#[test]
fn a_host_that_takes_the_cpu_away_does_no_harm() {
    // Rarely and for long, often and for a moment, often and for a while, past the end of the count.
    let hosts = [(2_000, 30_000_000), (50, 200_000), (10, 5_000_000), (20, 12_000_000), (12_000, 60_000_000)];
    for (one_in, delay) in hosts {
        assert_right(measure_on(Machine::new(one_in, delay), 16), 16);
    }
}

#[test]
fn a_timer_that_never_counts_is_absent() {
    struct Dead(u16);
    impl Countdown for Dead {
        fn start(&mut self, _from: u16) {}
        fn count(&mut self) -> u16 {
            self.0
        }
        fn is_over(&mut self) -> bool {
            false
        }
    }
    let mut time = 0;
    let mut sample = || {
        time += 1;
        (time, time)
    };
    assert_eq!(calibrate_with(&mut Dead(0xffff), &mut sample), None);
    assert_eq!(calibrate_with(&mut Dead(0), &mut sample), None);
}

#[test]
fn a_timer_that_is_always_over_is_absent() {
    struct Over;
    impl Countdown for Over {
        fn start(&mut self, _from: u16) {}
        fn count(&mut self) -> u16 {
            0xffff
        }
        fn is_over(&mut self) -> bool {
            true
        }
    }
    assert_eq!(calibrate_with(&mut Over, || (1, 1)), None);
}

#[test]
fn a_clock_that_stands_still_is_an_error() {
    assert_eq!(measure_on(Machine::new(0, 0), u64::MAX), None);
}
