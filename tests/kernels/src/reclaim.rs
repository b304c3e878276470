//! More pages than memory.

use alloc::sync::Arc;

use kernel::memory::memory;
use mm::{PAGE_SIZE, reclaim};

use crate::{
    check::{Outcome, ensure, eventually},
    crew::Crew,
    pages::{self, Tally},
};

const THREADS: usize = 6;

/// Threads read a disk that is four times as large as what is free, each all of it and from another place on:
/// pages are given back behind them, and read again rightly.
pub(crate) async fn readers_outgrow_memory() -> Outcome {
    let disk = pages::disk()?;
    let pages = disk.bytes as usize / PAGE_SIZE;
    let frames = memory().frames();
    let free = frames.stats().free;
    ensure!(pages >= 4 * free, "{pages} pages are no match for {free} free frames");
    let window = pages::window(&disk.object, pages)?;
    let tally = Arc::new(Tally::default());
    let mut crew = Crew::default();
    for thread in 0..THREADS {
        let (window, tally) = (window.clone(), tally.clone());
        // Each goes half of the way, and begins a bit further on: they meet some pages, and miss others.
        let first = pages * thread / THREADS;
        crew.add("reader", move || {
            for page in 0..pages / 2 {
                pages::read(&window, (first + page) % pages, &tally);
            }
        })?;
    }
    crew.finish_while_counting(|| tally.right()).await?;
    let reads = THREADS * (pages / 2);
    ensure!(tally.all() == [reads, 0, 0, 0, 0], "{reads} reads: {tally}");
    let evictions = memory().stats().evictions;
    ensure!(evictions as usize > pages - free, "{evictions} pages given back, of {pages} read");
    eventually("nobody waits for memory", || frames.stats().waiting == 0).await?;
    // What the readers have left can all be given back.
    reclaim(memory(), pages).await;
    let left = disk.object.stats().resident;
    ensure!(left == 0, "{left} clean pages cannot be given back");
    Ok(())
}
