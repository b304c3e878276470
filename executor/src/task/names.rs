//! Names of tasks, kept once each, so that a task holds one byte for its name; and for each name the longest poll.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::lock::SpinLock;

/// The name of who was not named.
const UNNAMED: &str = "task";
/// More names than this are shown as unnamed.
const MOST: usize = 256;

struct Names {
    known: [&'static str; MOST],
    count: usize,
}

static NAMES: SpinLock<Names> = SpinLock::new("task names", Names { known: [UNNAMED; MOST], count: 1 });

/// In nanoseconds, by the name's number; 0: none is noted.
static LONGEST: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// A task of that name had a poll of so many nanoseconds.
pub(crate) fn note_poll(number: u8, nanos: u64) {
    LONGEST[usize::from(number)].fetch_max(nanos, Ordering::Relaxed);
}

/// The longest poll of those that were noted for the name.
pub(crate) fn longest_poll(number: u8) -> Option<u64> {
    Some(LONGEST[usize::from(number)].load(Ordering::Relaxed)).filter(|&nanos| nanos > 0)
}

/// The number for a name; 0, which stands for "task", once there are 255 different ones.
pub(crate) fn number(name: &'static str) -> u8 {
    let mut names = NAMES.lock();
    let count = names.count;
    if let Some(found) = names.known[..count].iter().position(|known| *known == name) {
        return found as u8;
    }
    if count == MOST {
        return 0;
    }
    names.known[count] = name;
    names.count += 1;
    count as u8
}

/// The name for a number. Never waits for long: a panic report may ask while the lock is held, and then gets
/// the default.
pub(crate) fn name(number: u8) -> &'static str {
    if number == 0 {
        return UNNAMED;
    }
    for _ in 0..1000 {
        if let Some(names) = NAMES.try_lock() {
            return names.known[usize::from(number)];
        }
        core::hint::spin_loop();
    }
    UNNAMED
}

#[cfg(test)]
mod tests {
    use super::{name, number};

    #[test]
    fn a_name_keeps_its_number() {
        let first = number("names-test-a");
        let second = number("names-test-b");
        assert_ne!(first, second);
        assert_eq!(number("names-test-a"), first);
        assert_eq!((name(first), name(second), name(0)), ("names-test-a", "names-test-b", "task"));
    }
}
