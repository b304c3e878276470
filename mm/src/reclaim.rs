//! Giving clean pages back when frames run short: second chance, in the order in which pages were last
//! looked at.
//!
//! A page that was used since the last look is kept and becomes the youngest; the others go. Dirty pages
//! and pages of zero objects are not listed at all, because nobody else has what is in them.

use core::sync::atomic::Ordering;
use core::time::Duration;

use crate::Memory;
use crate::vm_object::Eviction;

/// Pages that are looked at before others get a turn.
const BATCH: usize = 32;
/// How long the victim of an empty memory has to give its frames back before the next is named.
const GRACE: Duration = Duration::from_millis(10);

/// The background task that keeps frames free: spawned once for each [`Memory`]. It sleeps until the free
/// frames fall below the low mark, gives clean pages back until the high mark is reached, and names a victim
/// when there is nothing to give back and nothing on its way.
///
/// # Cancellation
/// May be dropped at any time; waits for memory may then never end.
pub async fn reclaimer(memory: &'static Memory) -> ! {
    loop {
        memory.frames().wait_until_short().await;
        loop {
            let stats = memory.frames().stats();
            if stats.free >= stats.high {
                break;
            }
            if reclaim(memory, stats.high - stats.free).await > 0 {
                continue;
            }
            // A frame that is being filled will be clean or free soon, and says so.
            if memory.filling.load(Ordering::Acquire) > 0 || !memory.frames().name_victim() {
                break;
            }
            executor::time::sleep(GRACE).await;
        }
    }
}

/// Gives back up to `target` clean pages, those unused for longest first, and returns how many. Looks at
/// each page at most twice.
///
/// # Cancellation
/// Dropping the future keeps what was given back.
pub async fn reclaim(memory: &'static Memory, target: usize) -> usize {
    let looks = memory.frames().stats().clean * 2;
    let mut freed = 0;
    for look in 0..looks {
        if freed == target {
            break;
        }
        if look % BATCH == BATCH - 1 {
            executor::yield_now().await;
        }
        let Some(clean) = memory.frames().oldest_clean() else { break };
        let Some(object) = memory.object(clean.object) else { continue };
        if object.evict(clean.page, clean.frame) == Eviction::Freed {
            freed += 1;
        }
    }
    freed
}
