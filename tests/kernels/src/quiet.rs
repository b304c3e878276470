//! Who waits costs nothing.

use alloc::sync::Arc;
use core::time::Duration;

use executor::{WaitReason, time};
use kernel::arch::cpu;

use crate::{
    check::{Outcome, ensure, eventually},
    crew::Crew,
    pages::{self, Tally},
};

const THREADS: usize = 1000;
/// The disk's pages. It gives one a second, also while the threads are started, which on a busy host takes a while: then
/// others are started on the pages that are left.
const PAGES: usize = 1200;
const SECONDS: u64 = 3;

/// With all threads parked on a stalled disk, nothing polls: there are hardly any timer interrupts.
pub(crate) async fn parked_threads_poll_nothing() -> Outcome {
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, PAGES)?;
    let tally = Arc::new(Tally::default());
    let mut crew = Crew::default();
    let parked = |crew: &Crew| crew.waiting_for(WaitReason::Page);
    while parked(&crew) + 5 < THREADS {
        let missing = THREADS - parked(&crew);
        for page in crew.len()..crew.len() + missing {
            ensure!(page < PAGES, "{} of {PAGES} threads are parked", parked(&crew));
            let (window, tally) = (window.clone(), tally.clone());
            crew.add("reader", move || pages::read(&window, page, &tally))?;
        }
        let started = crew.len();
        let reached = || parked(&crew) + tally.right() == started;
        eventually("the threads are parked", reached).await?;
    }

    let polls = || executor::cpus().map(|cpu| cpu.counters().polls).sum::<u64>();
    let (timer, polled) = (cpu::counters().timer_interrupts, polls());
    time::sleep(Duration::from_secs(SECONDS)).await;
    let (timer, polled) = (cpu::counters().timer_interrupts - timer, polls() - polled);

    ensure!(parked(&crew) + 10 >= THREADS, "only {} threads are parked", parked(&crew));
    ensure!(timer < 10 * SECONDS, "{timer} timer interrupts in {SECONDS} s");
    // Each page that still comes is a few polls.
    ensure!(polled < 40 * SECONDS, "{polled} polls in {SECONDS} s");
    Ok(())
}
