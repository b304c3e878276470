//! More memory without a file than there are frames, private or shared, through a disk for swap.
#![allow(unsafe_code, reason = "threads touch the words of spaces that the test has made")]

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use executor::Builder;
use kernel::{
    cpus,
    memory::{self, memory},
    thread::{self, EndReason, ThreadHandle},
};
use mm::{
    AddressSpace, Denial, PAGE_SIZE, PageError, PageIndex, Placement, Protection, SecondChance, SharedMemory,
    SwapStats, VirtAddr, swap_out,
};

use crate::{
    check::{Failure, Needed, Outcome, ensure, while_counting},
    usage,
};

/// Where a space of a test begins.
pub(crate) const START: usize = 1 << 40;
pub(crate) const PAGE_WORDS: usize = PAGE_SIZE / 8;
/// 256 MiB.
const PAGES: usize = 65_536;
/// 128 MiB.
const SHARED: usize = PAGES / 2;
/// Threads of a space.
const THREADS: usize = 4;

pub(crate) fn stats() -> Result<SwapStats, Failure> {
    memory().swap_stats().needed("a disk for swap")
}

/// A space with so many pages of its own.
pub(crate) fn space(pages: usize) -> Result<Arc<AddressSpace>, Failure> {
    let space = memory::new_user_space().needed("a space")?;
    let place = Placement::Fixed(VirtAddr::truncated(START as u64));
    space.map_anonymous(pages as u64, Protection::READ_WRITE, place).needed("memory")?;
    Ok(space)
}

fn word(number: usize) -> *mut u64 {
    (START + number * 8) as *mut u64
}

/// What a word holds after a round: each differs from all others, and none is zero.
pub(crate) fn value(number: usize, round: u64) -> u64 {
    (number as u64 + 1) * 16 + round
}

pub(crate) fn write(number: usize, round: u64) {
    // SAFETY: the thread runs in the test's space; a page that cannot be had ends it.
    unsafe { word(number).write_volatile(value(number, round)) };
}

pub(crate) fn read(number: usize) -> u64 {
    // SAFETY: as above.
    unsafe { word(number).read_volatile() }
}

/// What the threads of a test have done.
#[derive(Default)]
struct Tally {
    pages: AtomicUsize,
    wrong: AtomicUsize,
}

/// Starts a thread in a space, on one of the CPUs.
pub(crate) async fn start(
    cpu: usize,
    space: &Arc<AddressSpace>,
    run: impl FnMut() + Send + 'static,
) -> Result<ThreadHandle, Failure> {
    let space = space.clone();
    let cpu = (cpu % cpus::online()) as u32;
    let begun = Builder::new().cpu(cpu).spawn(async move { thread::spawn_here("swapper", Some(space), run) });
    begun.await.needed("a task")?.needed("a thread")
}

/// Threads go through so many pages of a space, each through a part, and look at or change each word.
async fn go_through(
    space: &Arc<AddressSpace>,
    pages: usize,
    tally: &Arc<Tally>,
    each: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Outcome {
    let mut handles = Vec::new();
    for number in 0..THREADS {
        let (tally, each) = (tally.clone(), each.clone());
        let run = move || {
            for page in pages * number / THREADS..pages * (number + 1) / THREADS {
                let words = page * PAGE_WORDS..(page + 1) * PAGE_WORDS;
                let wrong = words.filter(|&word| !each(word)).count();
                tally.wrong.fetch_add(wrong, Relaxed);
                tally.pages.fetch_add(1, Relaxed);
            }
        };
        handles.push(start(number, space, run).await?);
    }
    for handle in handles {
        let end = while_counting("the threads go on", handle, || tally.pages.load(Relaxed)).await?;
        ensure!(end == EndReason::Finished(0), "a thread was {end}");
    }
    Ok(())
}

async fn fork(space: &Arc<AddressSpace>) -> Result<Arc<AddressSpace>, Failure> {
    let table = mm::PageTable::new_user(memory(), memory::kernel_space().root()).needed("a table")?;
    space.fork(table).await.needed("a fork")
}

/// Which words a side of a fork rewrites.
fn is_rewritten(number: usize, round: u64) -> bool {
    (number / PAGE_WORDS) as u64 % 3 == round
}

/// Four times the memory is written, forked, partly rewritten on both sides, and checked word by word; then nothing is left.
pub(crate) async fn memory_goes_through_swap() -> Outcome {
    let frames = memory().frames().stats().total;
    ensure!(PAGES > 3 * frames, "{PAGES} pages are no match for {frames} frames");
    let tally = Arc::new(Tally::default());
    let write_all = |number: usize| {
        write(number, 0);
        true
    };
    let parent = space(PAGES)?;
    go_through(&parent, PAGES, &tally, write_all).await?;
    let child = fork(&parent).await?;
    for (space, round) in [(&parent, 1), (&child, 2)] {
        let rewrite = move |number| {
            if is_rewritten(number, round) {
                write(number, round);
            }
            true
        };
        go_through(space, PAGES, &tally, rewrite).await?;
    }
    for (space, round) in [(&parent, 1), (&child, 2)] {
        let is_right =
            move |number| read(number) == value(number, if is_rewritten(number, round) { round } else { 0 });
        go_through(space, PAGES, &tally, is_right).await?;
    }
    let wrong = tally.wrong.load(Relaxed);
    ensure!(wrong == 0, "{wrong} words are not what was written");
    let stats = stats()?;
    ensure!(stats.pages_out > 100_000 && stats.pages_in > 100_000, "hardly anything was swapped: {stats:?}");
    ensure!(stats.failed_in + stats.failed_out == 0, "the disk has failed: {stats:?}");
    drop((parent, child));
    nothing_is_left().await
}

/// Twice the memory is shared by two sides of a fork. One side writes it, each rewrites a part, and both find, word by word,
/// what either has written; then nothing is left.
pub(crate) async fn shared_memory_goes_through_swap() -> Outcome {
    let frames = memory().frames().stats().total;
    ensure!(2 * SHARED > 3 * frames, "{SHARED} pages are no match for {frames} frames");
    let tally = Arc::new(Tally::default());
    let shared = SharedMemory::try_new(memory(), SHARED as u64).needed("shared memory")?;
    let parent = memory::new_user_space().needed("a space")?;
    let place = Placement::Fixed(VirtAddr::truncated(START as u64));
    parent
        .map_shared(&shared, PageIndex::new(0), SHARED as u64, Protection::READ_WRITE, place)
        .needed("a mapping")?;
    let child = fork(&parent).await?;
    for (space, round) in [(&parent, 0), (&child, 1), (&parent, 2)] {
        let write_some = move |number| {
            if round == 0 || is_rewritten(number, round) {
                write(number, round);
            }
            true
        };
        go_through(space, SHARED, &tally, write_some).await?;
    }
    for space in [&parent, &child] {
        let is_right = |number: usize| {
            let round = [1, 2].into_iter().find(|&round| is_rewritten(number, round));
            read(number) == value(number, round.unwrap_or(0))
        };
        go_through(space, SHARED, &tally, is_right).await?;
    }
    let wrong = tally.wrong.load(Relaxed);
    ensure!(wrong == 0, "{wrong} words are not what was written");
    let stats = stats()?;
    ensure!(stats.pages_out > 30_000 && stats.pages_in > 30_000, "hardly anything was swapped: {stats:?}");
    ensure!(stats.failed_in + stats.failed_out == 0, "the disk has failed: {stats:?}");
    drop((parent, child, shared));
    nothing_is_left().await
}

/// All slots are free when no space is left.
async fn nothing_is_left() -> Outcome {
    usage::settled(executor::live_tasks()).await?;
    memory().settle().await;
    let stats = stats()?;
    ensure!((stats.used_slots, stats.writing) == (0, 0), "slots are left over: {stats:?}");
    Ok(())
}

/// Pages of the test of errors: slot n holds page n - 1, as they leave in order.
const FEW: usize = 32;
/// What the host has made of the disk.
const READS_FAIL: usize = 4;
const ONE_READ_FAILS: usize = 8;
const WRITES_FAIL: usize = 6;
const ONE_WRITE_FAILS: usize = 10;

/// How a thread ends that reads the first word of a page: as it must if the page holds what was written.
async fn read_page(space: &Arc<AddressSpace>, page: usize) -> Result<EndReason, Failure> {
    let tally = Arc::new(Tally::default());
    let seen = tally.clone();
    let run = move || {
        let is_right = read(page * PAGE_WORDS) == value(page * PAGE_WORDS, 0);
        seen.wrong.fetch_add(usize::from(!is_right), Relaxed);
    };
    let end = while_counting("a thread reads a page", start(0, space, run).await?, || 0).await?;
    ensure!(tally.wrong.load(Relaxed) == 0, "page {page} is not what was written");
    Ok(end)
}

/// The disk fails to read one slot for ever and one once, and to write one for ever and one once: a page that cannot
/// be written stays, one that cannot be read ends the thread that needs it, and no other is harmed.
pub(crate) async fn errors_of_swap() -> Outcome {
    // Slots are given in the order in which pages leave: one that is known.
    memory().set_policy(&SecondChance);
    let space = space(FEW)?;
    let write_all = || (0..FEW).for_each(|page| write(page * PAGE_WORDS, 0));
    let end = start(0, &space, write_all).await?.await;
    ensure!(end == EndReason::Finished(0), "the writer was {end}");
    let freed = swap_out(memory(), FEW).await;
    let after = stats()?;
    ensure!((freed, after.failed_out) == (FEW - 2, 2), "{freed} pages left: {after:?}");
    let freed = swap_out(memory(), 2).await;
    let after = stats()?;
    ensure!(
        (freed, after.failed_out) == (2, 2),
        "pages {WRITES_FAIL} and {ONE_WRITE_FAILS} do not leave by other slots: {after:?}"
    );
    let io = |page: usize| Denial::Io { page: PageIndex::new(page as u64), error: PageError::Io };
    let failures = [(READS_FAIL, true), (READS_FAIL, true), (ONE_READ_FAILS, true), (ONE_READ_FAILS, false)];
    for (page, fails) in failures {
        let end = read_page(&space, page).await?;
        let expected = match end {
            EndReason::Denied { why, .. } => fails && why == io(page),
            end => !fails && end == EndReason::Finished(0),
        };
        ensure!(expected, "who read page {page} was {end}");
    }
    for page in (0..FEW).filter(|&page| page != READS_FAIL) {
        let end = read_page(&space, page).await?;
        ensure!(end == EndReason::Finished(0), "who read page {page} was {end}");
    }
    drop(space);
    nothing_is_left().await
}
