//! Memory in use, and that it is given back.

use kernel::{
    cpus, heap,
    memory::{kernel_space, memory},
    thread,
};
use mm::PAGE_SIZE;

use crate::check::{Failure, Outcome, eventually};

/// Memory in use at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Frames that are not free, without those of the heap and of the kernel's page tables, which stay.
    pub(crate) frames: usize,
    /// Bytes of the heap.
    pub(crate) heap: usize,
}

impl Usage {
    pub(crate) fn now() -> Self {
        // What is kept for tasks to come is in nobody's use.
        executor::release_kept_memory();
        let (frames, heap) = (memory().frames().stats(), heap::stats());
        // The heap does not count the few bytes that it needs itself of each run of frames.
        let kept = heap.claimed.div_ceil(PAGE_SIZE) + kernel_space().stats().tables as usize;
        Self { frames: frames.total - frames.free - kept, heap: heap.used }
    }
}

/// Rounds before the first look: lists have grown, page tables are there.
pub(crate) const WARM_UP: usize = 3;

/// On several CPUs lists and page tables grow to what happens to be there at once, which is not the same in every round.
/// After so many times the rounds at most there are some in which nothing grows, unless something is lost in each.
const BLOCKS: usize = 8;

/// Memory is still when so many looks find the same.
const STILL: usize = 4;

/// Runs `round` again and again: after some of them, memory must be as before. On one CPU the first so many decide.
pub(crate) async fn stays_equal<F>(rounds: usize, mut round: impl FnMut(usize) -> F) -> Outcome
where
    F: Future<Output = Outcome> + Send,
{
    let tasks = executor::live_tasks();
    for number in 0..WARM_UP {
        round(number).await?;
        settled(tasks).await?;
    }
    let mut before = Usage::now();
    let blocks = if cpus::online() == 1 { 1 } else { BLOCKS };
    for block in 1..=blocks {
        for number in 0..rounds {
            round(WARM_UP + number).await?;
            settled(tasks).await?;
        }
        let after = Usage::now();
        if after == before || blocks > 1 && after.frames <= before.frames && after.heap <= before.heap {
            return Ok(());
        }
        if block == blocks {
            return Err(leak(before, after, rounds));
        }
        before = after;
    }
    Ok(())
}

fn leak(before: Usage, after: Usage, rounds: usize) -> Failure {
    let frames = after.frames as i64 - before.frames as i64;
    let heap = after.heap as i64 - before.heap as i64;
    let quarantined = memory().frames().stats().quarantined;
    Failure::new(alloc::format!(
        "{rounds} rounds lost {frames} frames and {heap} bytes of the heap; {quarantined} frames are in quarantine"
    ))
}

/// Waits until no thread is left, and no task but the `tasks` that were there before: windows are unmapped by
/// tasks.
pub(crate) async fn settled(tasks: usize) -> Outcome {
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
