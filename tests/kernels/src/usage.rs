//! Memory in use, and that it is given back.

use kernel::{cpus, heap, memory::memory, thread};
use mm::PAGE_SIZE;

use crate::check::{Failure, Outcome, eventually};

/// Memory in use at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Frames that are not free, without the heap's, which it keeps.
    pub(crate) frames: usize,
    /// Bytes of the heap.
    pub(crate) heap: usize,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let (frames, heap) = (memory().frames().stats(), heap::stats());
        // The heap does not count the few bytes that it needs itself of each run of frames.
        Self { frames: frames.total - frames.free - heap.claimed.div_ceil(PAGE_SIZE), heap: heap.used }
    }
}

impl Usage {
    /// Whether later use shows no loss.
    fn is_back(self, later: Self) -> bool {
        let heap = match cpus::online() {
            1 => self.heap == later.heap,
            _ => later.heap as i64 - self.heap as i64 <= SLACK_HEAP,
        };
        heap && self.has_frames_back(later)
    }

    /// Whether later use shows no loss of frames.
    pub(crate) fn has_frames_back(self, later: Self) -> bool {
        match cpus::online() {
            1 => self.frames == later.frames,
            _ => later.frames as i64 - self.frames as i64 <= SLACK_FRAMES,
        }
    }
}

/// Rounds before the first look: lists have grown, page tables are there.
pub(crate) const WARM_UP: usize = 3;

/// On several CPUs each has lists of its own, which grow with what happened to be there: so much more may be in use after
/// some rounds. What is lost by each thread or page of a round is more than that.
const SLACK_FRAMES: i64 = 64;
const SLACK_HEAP: i64 = 128 << 10;

/// Memory is still when so many looks find the same.
const STILL: usize = 4;

/// Runs `round` again and again: after each, memory must be as after the one before.
pub(crate) async fn stays_equal<F>(rounds: usize, mut round: impl FnMut(usize) -> F) -> Outcome
where
    F: Future<Output = Outcome> + Send,
{
    let tasks = executor::live_tasks();
    for number in 0..WARM_UP {
        round(number).await?;
        settled(tasks).await?;
    }
    let before = Usage::now();
    for number in 0..rounds {
        round(WARM_UP + number).await?;
        settled(tasks).await?;
    }
    let back = eventually("memory is given back", || before.is_back(Usage::now())).await;
    back.map_err(|_| leak(before, Usage::now(), rounds))
}

fn leak(before: Usage, after: Usage, rounds: usize) -> Failure {
    let frames = after.frames as i64 - before.frames as i64;
    let heap = after.heap as i64 - before.heap as i64;
    Failure::new(alloc::format!("{rounds} rounds lost {frames} frames and {heap} bytes of the heap"))
}

/// Waits until no thread is left, and no task but the `tasks` that were there before: windows are unmapped by
/// tasks.
async fn settled(tasks: usize) -> Outcome {
    eventually("all threads are gone", || thread::count() == 0).await?;
    eventually("all tasks are gone", || executor::live_tasks() <= tasks).await?;
    still().await
}

/// Waits until what is freed a bit later is freed.
pub(crate) async fn still() -> Outcome {
    let (mut last, mut looks) = (Usage::now(), 0);
    let is_still = || {
        let now = Usage::now();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks >= STILL
    };
    eventually("memory is still", is_still).await
}
