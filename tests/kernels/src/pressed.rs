//! All memory is changed, the heap is full, and the disk that pages leave for crawls: the machine goes on.

use alloc::{sync::Arc, vec, vec::Vec};
use core::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::time;
use kernel::{
    memory::{self, memory},
    thread::EndReason,
};
use mm::{AddressSpace, Denial, PageIndex, Placement, Protection, VirtAddr};

use crate::{
    check::{Needed, Outcome, ask_host, ensure, eventually, in_time},
    full::Pieces,
    pages, stores,
    swap::{self, PAGE_WORDS, read, space, start, stats, value, write},
};

const THREADS: usize = 4;
/// Pages that are written for each 4 frames of the machine.
const PAGES_OF_4: usize = 5;
/// From tick to tick, and how many are counted: the 99th percentile of so many is late 4 times.
const TICK: Duration = Duration::from_millis(10);
const TICKS: usize = 400;
/// Measured so often at most; the best counts, as the host may be busy with something else.
const TRIES: usize = 8;
/// Ticks may be so much later than in the same machine when it is idle.
const TOLERANCE: Duration = Duration::from_millis(5);

/// What the threads do.
#[derive(Default)]
struct Tally {
    pages: AtomicUsize,
    wrong: AtomicUsize,
    over: AtomicBool,
}

/// Goes through a part of the pages again and again: each page holds what it did in the last round.
fn rewrite(pages: Range<usize>, tally: &Tally) {
    for round in 0.. {
        for page in pages.clone() {
            let first = page * PAGE_WORDS;
            let is_right = round == 0 || read(first) == value(first, round - 1);
            tally.wrong.fetch_add(usize::from(!is_right), Relaxed);
            write(first, round);
            tally.pages.fetch_add(1, Relaxed);
            if tally.over.load(Relaxed) {
                return;
            }
        }
    }
}

/// How late a 10 ms ticker is, in 99 of 100 cases. Takes nothing from the heap.
async fn lateness(of_ticks: &mut [Duration]) -> Duration {
    for late in of_ticks.iter_mut() {
        let due = time::now() + TICK;
        time::sleep_until(due).await;
        *late = time::now() - due;
    }
    of_ticks.sort_unstable();
    of_ticks[of_ticks.len() * 99 / 100]
}

/// Private memory and a file are each four times as large as memory, and are rewritten at once: each word is right in the
/// end, of the one here, of the other on the host.
pub(crate) async fn memory_and_a_file_outgrow_memory_at_once() -> Outcome {
    let file = executor::spawn(stores::file_outgrows_memory());
    swap::memory_goes_through_swap().await?;
    file.await.needed("the task of the file")?
}

/// More pages than there are frames.
fn too_many() -> usize {
    memory().frames().stats().total * PAGES_OF_4 / 4
}

/// Four threads change more pages than there are frames, which leave for swap by ten requests a second.
pub(crate) async fn full_machine_with_a_crawling_disk_goes_on() -> Outcome {
    let mut ticks = vec![Duration::ZERO; TICKS];
    let idle = lateness(&mut ticks).await;
    let pages = too_many();
    let out = || stats().map_or(0, |stats| stats.pages_out);
    goes_on(space(pages)?, pages, idle, ticks, out, || async { Ok(()) }).await?;
    kernel::println!("{:?}", stats()?);
    Ok(())
}

/// The same with pages of a file, all of which may be dirty, and whose disk becomes that slow when memory is full.
pub(crate) async fn full_machine_with_a_crawling_file_goes_on() -> Outcome {
    let mut ticks = vec![Duration::ZERO; TICKS];
    let idle = lateness(&mut ticks).await;
    let (pages, file) = (too_many(), &pages::disk()?.object);
    // So that nothing is stored before frames are short.
    memory().set_dirty_limit(2 * pages);
    let space = memory::new_user_space().needed("a space")?;
    let place = Placement::Fixed(VirtAddr::truncated(swap::START as u64));
    space.map(file, PageIndex::new(0), pages as u64, Protection::READ_WRITE, place).needed("a mapping")?;
    let out = || memory().write_back_stats().stored;
    let crawl = || async {
        ask_host("let the disk crawl").await?;
        let (dirty, frames) = (memory().write_back_stats().dirty, memory().frames().stats());
        ensure!(dirty > frames.total / 2, "{dirty} pages are dirty, of {frames:?}");
        Ok(())
    };
    goes_on(space, pages, idle, ticks, out, crawl).await?;
    kernel::println!("{:?}", memory().write_back_stats());
    Ok(())
}

/// Four threads change so many pages of a space, which leave for a disk of ten requests a second, from when `crawl` is done;
/// then the heap is filled. Pages come and go, slowly; ticks are as punctual as in the idle machine; and nobody is told
/// anything worse than that there is no memory.
async fn goes_on<C: Future<Output = Outcome>>(
    space: Arc<AddressSpace>,
    pages: usize,
    mut idle: Duration,
    mut ticks: Vec<Duration>,
    out: impl Fn() -> u64,
    crawl: impl FnOnce() -> C,
) -> Outcome {
    let tally = Arc::new(Tally::default());
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let part = pages * number / THREADS..pages * (number + 1) / THREADS;
        let tally = tally.clone();
        threads.push(start(number, &space, move || rewrite(part.clone(), &tally)).await?);
    }
    eventually("pages leave", || out() > 256).await?;
    crawl().await?;
    let full = (Pieces::<4000>::take(), Pieces::<400>::take(), Pieces::<40>::take());
    let before = (tally.pages.load(Relaxed), out());
    let mut crawling = lateness(&mut ticks).await;
    for _ in 1..TRIES {
        if crawling <= idle + TOLERANCE {
            break;
        }
        crawling = crawling.min(lateness(&mut ticks).await);
    }
    eventually("pages leave and are written while the heap is full", || {
        out() >= before.1 + 64 && tally.pages.load(Relaxed) >= before.0 + 16
    })
    .await?;
    drop(full);
    tally.over.store(true, Relaxed);
    for thread in threads {
        let end = in_time("a thread ends", thread).await?;
        let expected = match end {
            EndReason::Denied { why, .. } => why == Denial::OutOfMemory,
            end => end == EndReason::Finished(0),
        };
        ensure!(expected, "a thread was {end}");
    }
    let wrong = tally.wrong.load(Relaxed);
    ensure!(wrong == 0, "{wrong} pages are not what was written");
    kernel::println!("idle: {idle:?}; crawling: {crawling:?}");
    drop(space);
    if crawling > idle + TOLERANCE {
        // The host may have more to do now than at the beginning.
        idle = idle.max(lateness(&mut ticks).await);
    }
    ensure!(crawling <= idle + TOLERANCE, "ticks are {crawling:?} late, and {idle:?} in the idle machine");
    Ok(())
}
