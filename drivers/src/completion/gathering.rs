//! Waiting for others to ask before the device is told: one notification, and one look at what it hands back, serve them all.
//!
//! Threads that are ready beside the queue task have often waited for this device, and ask for something again in their
//! next turn. They get turns first, as long as these are short and requests come of them. Turns that are long, or of which
//! none comes, are those of threads that compute: then requests go out at once for a while, so a device does not idle
//! beside them.

use core::time::Duration;

use executor::time::now;

/// Turns of others at most.
const MOST: u32 = 32;
/// Turns one after the other of which no request comes. Where a thread asks by way of a pager's task, that has its turn in
/// between.
const FRUITLESS: u32 = 4;
/// The longest time for all of them: what a computing thread costs a request, beside the rest of its slot.
const PATIENCE: Duration = Duration::from_micros(500);
/// After that, so often nothing is waited for.
const PAUSE: u32 = 32;

/// Whether it is worth while.
#[derive(Default)]
pub(super) struct Gathering {
    pause: u32,
}

impl Gathering {
    /// Gives threads that are ready on this CPU turns. `waiting` says how many requests there are to be offered.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn wait(&mut self, waiting: impl Fn() -> usize) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let end = now() + PATIENCE;
        let (mut before, mut fruitless) = (waiting(), 0);
        for _ in 0..MOST {
            if !executor::has_ready_thread() {
                return;
            }
            // One thread's turn.
            executor::yield_now().await;
            let after = waiting();
            fruitless = if after > before { 0 } else { fruitless + 1 };
            before = after;
            if now() >= end || fruitless == FRUITLESS {
                self.pause = PAUSE;
                return;
            }
        }
    }
}
