//! Who gives way when memory is out: one space at a time, the largest, and never the kernel's own.
//!
//! Which spaces there are, and how what runs in one is ended, is for whoever knows of threads ([`Victims`]). Here is the
//! choice, and that all of a victim's frames are back before there is another.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | the victim's threads fault, its space is emptied | they are told first, so they end; one that comes later finds no mapping |
//! | somebody keeps the space, its end is waited for | it is emptied, not dropped: nobody has to give it up |
//! | frames of the victim are in quarantine, the next choice | the emptying waits for all CPUs, and the reclaimer for the quarantine before it looks again |
//! | a device has pages and does not answer, or answers and no page becomes clean or leaves by it, frames are wanted | after five seconds of that nobody waits for it any more before a victim is chosen, and only what has frames counts |
//! | one device has been silent for long, another was just asked | stores, writes to swap and what fills frames have five seconds each |
//! | the victim is forked, or shares objects | what others see stays; if that was all, the next largest is chosen |

use alloc::sync::Arc;
use core::time::Duration;

use executor::time::{Instant, now};

use crate::{AddressSpace, Memory};

/// The spaces that something runs in, and a way to end that. Given to [`Memory::set_victims`].
pub trait Victims: Sync {
    /// Tells each space that may be chosen, once or more often: none of the kernel's own, and none that was chosen
    /// before.
    fn each_space(&self, told: &mut dyn FnMut(&Arc<AddressSpace>));

    /// Ends all that runs in a space that has so many pages, and tells whoever has to know why. Those who wait
    /// are woken, and let nobody else wait. Called by the background task, which is held up by it; with no lock held.
    fn end(&self, space: &Arc<AddressSpace>, pages: u64);
}

/// How long those who wait for frames wait for devices of which nothing comes.
const SILENCE: Duration = Duration::from_secs(5);

/// For how long nothing has come of one kind of thing that devices were asked for, as far as somebody waits for it.
#[derive(Default)]
pub(crate) struct Silence {
    since: Option<Since>,
}

struct Since {
    came: u64,
    answers: u64,
    at: Instant,
}

impl Silence {
    /// Until when it is worth waiting; `None` when that is over, or nothing is under way. `came` counts what has helped so
    /// far, and `answers` what devices have answered.
    pub(crate) fn ends(&mut self, is_under_way: bool, came: u64, answers: u64) -> Option<Instant> {
        if !is_under_way {
            self.since = None;
            return None;
        }
        let now = now();
        let since = match self.since.take() {
            Some(since) if since.came == came => since,
            _ => Since { came, answers, at: now },
        };
        let end = since.at + SILENCE;
        self.since = Some(since);
        Some(end).filter(|&end| now < end)
    }

    /// Nobody waits any more. A device that has answered meanwhile begins anew with the next who does; one that has not is
    /// still silent.
    pub(crate) fn rest(&mut self, answers: u64) {
        self.since.take_if(|since| since.answers != answers);
    }
}

/// The space that has the most pages that count, if it has at least so many: one with fewer would end for nothing.
fn largest(victims: &dyn Victims, least: u64, swap_counts: bool) -> Option<(Arc<AddressSpace>, u64)> {
    let mut largest = None;
    let mut most = least.saturating_sub(1);
    let mut last = core::ptr::null();
    victims.each_space(&mut |space| {
        // One with many threads is told for each.
        if core::mem::replace(&mut last, Arc::as_ptr(space)) == Arc::as_ptr(space) {
            return;
        }
        let pages = space.pages_held(swap_counts);
        if pages > most {
            most = pages;
            largest = Some(space.clone());
        }
    });
    largest.map(|space| (space, most))
}

/// Ends the largest space if somebody waits for a frame, and takes all of its memory. False if nobody waits, or no
/// space shows enough to bring the free frames above the low mark. What a space has in swap counts where others could use
/// its slots: where none is free, and the disk answers.
pub(crate) async fn end_largest(memory: &'static Memory, answers: bool) -> bool {
    let Some(victims) = memory.victims() else { return false };
    if !memory.frames().is_waited_for() {
        return false;
    }
    let least = memory.frames().marks().low.max(1);
    let swap_counts = memory.swap().is_none_or(|area| answers && area.is_full());
    let Some((space, pages)) = largest(victims, least as u64, swap_counts) else { return false };
    victims.end(&space, pages);
    space.empty_at_once();
    memory.settle().await;
    true
}

#[cfg(test)]
mod tests {
    use executor::{host, time};

    use super::*;

    #[test]
    fn a_device_that_answers_between_two_shortages_has_five_seconds_in_the_second() {
        let _clock = host::simulate_time();
        host::block_on(async {
            let mut silence = Silence::default();
            assert!(silence.ends(true, 7, 1).is_some());
            silence.rest(2);
            time::sleep(2 * SILENCE).await;
            assert!(silence.ends(true, 7, 2).is_some(), "it has answered since, though nothing came of it");
            silence.rest(2);
            time::sleep(2 * SILENCE).await;
            assert!(silence.ends(true, 7, 2).is_none(), "it has not");
            assert!(silence.ends(true, 8, 2).is_some(), "something has come");
            assert!(silence.ends(false, 8, 2).is_none());
        });
    }
}
