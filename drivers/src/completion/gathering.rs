//! Waiting for others to ask before the device is told: one notification, and one look at what it hands back, serve them all.
//!
//! Threads that are ready beside the queue task have often waited for this device, and ask for something again in their
//! next turn. Each gets one turn first, as long as such turns are short. One that is long is that of a thread that computes:
//! then requests go out at once for a while, so a device does not idle beside it.

use core::time::Duration;

use executor::time::now;

/// Turns of others at most.
const MOST: u32 = 32;
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
    /// Gives each thread that is ready on this CPU a turn.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn wait(&mut self) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let end = now() + PATIENCE;
        for _ in 0..MOST {
            if !executor::has_ready_thread() {
                return;
            }
            // One thread's turn.
            executor::yield_now().await;
            if now() >= end {
                self.pause = PAUSE;
                return;
            }
        }
    }
}
