//! Touches of memory by a kernel thread, each of them timed.
#![allow(unsafe_code, reason = "touches addresses of a space that the benchmark has made")]

use alloc::{string::ToString, sync::Arc, vec::Vec};

use executor::sync::oneshot;
use mm::{Access, AddressSpace, PAGE_SIZE, VirtAddr};

use super::super::super::CommandError;
use crate::{arch::registers::time_stamp, thread};

/// Pages that are touched one after the other.
#[derive(Clone, Copy)]
pub(super) struct Touches {
    pub(super) start: VirtAddr,
    pub(super) pages: usize,
    pub(super) access: Access,
}

/// Touches pages of `space`, which are mapped for the kernel, on a kernel thread that runs in it; what each touch took
/// that faulted, in ticks of the time-stamp counter.
///
/// # Errors
/// When there is no memory for it, or a page cannot be had.
pub(super) async fn touch(space: &Arc<AddressSpace>, touches: Touches) -> Result<Vec<u64>, CommandError> {
    let mut ticks = Vec::new();
    if ticks.try_reserve_exact(touches.pages).is_err() {
        return Err(CommandError::Failed(mm::OutOfMemory.to_string()));
    }
    let (sender, receiver) = oneshot::channel();
    let mut ready = Some((sender, ticks));
    let entry = move || {
        let Some((sender, mut ticks)) = ready.take() else { return };
        touch_all(touches, &mut ticks);
        let _unwanted = sender.send(ticks);
    };
    let thread = thread::spawn_here("bench", Some(space.clone()), entry)
        .map_err(|why| CommandError::Failed(why.to_string()))?;
    let end = thread.await;
    receiver.await.map_err(|_| CommandError::Failed(alloc::format!("the thread was {end}")))
}

fn touch_all(touches: Touches, ticks: &mut Vec<u64>) {
    let faults = || thread::current().map_or(0, |thread| thread.stats().faults);
    for page in 0..touches.pages {
        let word = (touches.start.as_u64() as usize + page * PAGE_SIZE) as *mut u64;
        let faults_before = faults();
        let before = time_stamp();
        // SAFETY: nobody else knows the space, whose lower half only the benchmark maps; a page that cannot be had ends
        // the thread.
        unsafe {
            match touches.access {
                Access::Write => word.write_volatile(page as u64),
                _ => drop(word.read_volatile()),
            }
        }
        let took = time_stamp() - before;
        if faults() != faults_before {
            ticks.push(took);
        }
    }
}
