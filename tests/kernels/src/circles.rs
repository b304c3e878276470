//! A pager that is a thread, and touches what it makes.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use executor::sync::mpsc::{self, Sender};
use kernel::{
    memory::memory,
    thread::{EndReason, block_on},
    window::ReadError,
};
use mm::{Denial, PageError, PageRequest, Pager, VmObject};

use crate::{
    check::{Outcome, ensure},
    crew::Crew,
    pages, usage, wild,
};

/// Hands its requests to a thread.
struct ByThread(Sender<PageRequest>);

impl Pager for ByThread {
    fn name(&self) -> &str {
        "by thread"
    }

    fn load(&self, request: PageRequest) {
        // A request that finds no room is abandoned.
        let _ = self.0.try_send(request);
    }
}

/// A thread that makes a page faults on that page: it is told so, and goes on; whoever wanted the page gets the error that
/// it makes of that.
pub(crate) async fn pager_thread_faults_on_its_own_page() -> Outcome {
    usage::stays_equal(3, |_| async {
        let (requests, mut arrived) = mpsc::channel(1);
        let object = VmObject::new(memory(), Arc::new(ByThread(requests)), 1);
        let window = pages::window(&object, 1)?;
        let was_denied = Arc::new(AtomicBool::new(false));
        let (mut pager, mut reader) = (Crew::default(), Crew::default());
        let (shown, denied) = (window.clone(), was_denied.clone());
        pager.add("pager", move || {
            let Some(request) = block_on(arrived.recv()) else { return };
            let serving = request.served_here();
            let read = shown.read_at(0, &mut [0; 8]);
            drop(serving);
            denied.store(read == Err(ReadError::Denied(Denial::Deadlock)), Relaxed);
            request.complete(Err(PageError::Io));
        })?;
        let start = window.start().as_u64();
        reader.add("reader", move || wild::touch(start))?;
        pager.finish().await?;
        ensure!(was_denied.load(Relaxed), "the pager's thread was not told that it waits for itself");
        for end in reader.join().await? {
            let failed =
                matches!(end, EndReason::Denied { why: Denial::Io { error: PageError::Io, .. }, .. });
            ensure!(failed, "the reader was {end}");
        }
        Ok(())
    })
    .await
}
