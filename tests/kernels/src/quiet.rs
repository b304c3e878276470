//! Who waits costs nothing.

use alloc::sync::Arc;
use core::time::Duration;

use executor::{WaitReason, time};
use kernel::arch::cpu;

use crate::{
    check::{Outcome, ensure},
    crew::Crew,
    pages::{self, Tally},
};

const THREADS: usize = 1000;
const SECONDS: u64 = 3;

/// With all threads parked on a stalled disk, nothing polls: there are hardly any timer interrupts.
pub(crate) async fn parked_threads_poll_nothing() -> Outcome {
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, THREADS)?;
    let tally = Arc::new(Tally::default());
    let mut crew = Crew::default();
    for page in 0..THREADS {
        let (window, tally) = (window.clone(), tally.clone());
        crew.add("reader", move || pages::read(&window, page, &tally))?;
    }
    // The disk gives a page a second, also while the threads are started, which on a busy host takes a while.
    let parked = |crew: &Crew| crew.waiting_for(WaitReason::Page) + 100 >= THREADS;
    crate::check::eventually("the threads are parked", || parked(&crew)).await?;

    let polls = || executor::cpus().map(|cpu| cpu.counters().polls).sum::<u64>();
    let (timer, polled) = (cpu::counters().timer_interrupts, polls());
    time::sleep(Duration::from_secs(SECONDS)).await;
    let (timer, polled) = (cpu::counters().timer_interrupts - timer, polls() - polled);

    ensure!(parked(&crew), "only {} threads are parked", crew.waiting_for(WaitReason::Page));
    ensure!(timer < 10 * SECONDS, "{timer} timer interrupts in {SECONDS} s");
    // Each page that still comes is a few polls.
    ensure!(polled < 40 * SECONDS, "{polled} polls in {SECONDS} s");
    Ok(())
}
