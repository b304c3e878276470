//! Who gives way when memory is out: the threads of one space, all of them.
//!
//! Kernel threads without a space of their own are never among them. What they ask for is refused instead.

use alloc::sync::Arc;
use core::ops::Bound;

use mm::{AddressSpace, Victims};

use super::{THREADS, Thread, ThreadId};

/// The threads of this machine, as `mm` sees them.
pub(crate) struct AllThreads;

impl Victims for AllThreads {
    fn each_space(&self, told: &mut dyn FnMut(&Arc<AddressSpace>)) {
        each(|thread| {
            // What is ending already gives its memory back without being asked.
            if let Some(space) = thread.space().filter(|_| !thread.kill_requested()) {
                told(space);
            }
        });
    }

    fn end(&self, space: &Arc<AddressSpace>, pages: u64) {
        let mut is_named = false;
        each(|thread| {
            if !thread.space().is_some_and(|own| Arc::ptr_eq(own, space)) {
                return;
            }
            if !core::mem::replace(&mut is_named, true) {
                let (name, id, kib) = (thread.name(), thread.id(), pages * mm::PAGE_SIZE as u64 / 1024);
                log::warn!("out of memory: {name} (thread {id}) has the most, {kib} KiB, and is ended");
            }
            thread.end_for_memory();
        });
    }
}

/// Visits the threads that have not ended, with no lock held: each may be the last to hold its thread's record.
fn each(mut visit: impl FnMut(&Thread)) {
    let mut after = Bound::Unbounded;
    while let Some((id, thread)) = next(after) {
        visit(&thread);
        after = Bound::Excluded(id);
    }
}

fn next(after: Bound<ThreadId>) -> Option<(ThreadId, Arc<Thread>)> {
    let threads = THREADS.lock();
    threads.range((after, Bound::Unbounded)).find_map(|(id, thread)| Some((*id, thread.upgrade()?)))
}
