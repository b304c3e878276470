//! Quantities as people read them: three digits or so, and a unit. No floating point: the kernel has none.

use core::fmt;

/// A time in nanoseconds, like `12.3 us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &[(1, "ns"), (1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")])
    }
}

/// A number of bytes, like `511 B` or `1.50 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) u64);

impl Bytes {
    /// So many pages or frames.
    pub(super) fn of_pages(pages: u64) -> Self {
        Self(pages.saturating_mul(mm::PAGE_SIZE as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &[(1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB")])
    }
}

/// A rate in kilohertz, like `2.40 GHz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kilohertz(pub(super) u64);

impl fmt::Display for Kilohertz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, &[(1, "kHz"), (1_000, "MHz"), (1_000_000, "GHz")])
    }
}

/// Shows `value` in the largest unit that it is at least one of; in the smallest without decimals.
fn scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(u64, &str)]) -> fmt::Result {
    let fitting = units.iter().rev().find(|(size, _)| value >= *size);
    let &(size, name) = fitting.unwrap_or(&units[0]);
    let places = match value / size {
        _ if size == units[0].0 => 0,
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let steps = 10_u128.pow(places);
    let rounded = (u128::from(value) * steps + u128::from(size / 2)) / u128::from(size);
    let (whole, part) = (rounded / steps, rounded % steps);
    match places {
        0 => f.pad(&alloc::format!("{whole} {name}")),
        places => f.pad(&alloc::format!("{whole}.{part:0places$} {name}", places = places as usize)),
    }
}
