//! Giving clean pages back.

use crate::Memory;

/// The background task that keeps frames free: the kernel spawns it once for each [`Memory`].
pub async fn reclaimer(memory: &'static Memory) -> ! {
    let _ = memory;
    todo!()
}

/// Gives back up to `target` clean pages; returns how many.
pub async fn reclaim(memory: &'static Memory, target: usize) -> usize {
    let _ = (memory, target);
    todo!()
}
