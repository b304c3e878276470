//! `pressure`: threads that want more memory than there is, and what that costs them and everybody else.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use executor::time::Instant;
use mm::{FaultStats, SwapStats};

use super::super::super::{CommandError, histogram::Histogram, output::say, ticker, units::Bytes};
use super::scene::{Scene, failed};
use super::swap::{Random, on_threads, read, rewrite, write};
use crate::{machine, memory};

/// Threads that touch pages.
const THREADS: u64 = 8;
/// One touch of so many is of the disk's file, if there is one.
const OF_FILE: u64 = 4;
/// And one of so many writes what is there again, if the disk can be written.
const REWRITES: u64 = 2 * OF_FILE;

/// What is counted, at one time.
struct Counts {
    faults: FaultStats,
    swap: Option<SwapStats>,
    stored: u64,
    requests: u64,
    ticks: Histogram,
}

impl Counts {
    fn now() -> Self {
        let memory = memory::memory();
        let requests = machine::disks().iter().map(|disk| disk.device.stats().requests).sum();
        Self {
            faults: memory.stats(),
            swap: memory.swap_stats(),
            stored: memory.write_back_stats().stored,
            requests,
            ticks: ticker::lateness(),
        }
    }
}

/// Touches so many pages of private memory at random, as often as there are pages, and pages of the first disk's file
/// between them, some of which it makes dirty as they are. Each page is a thread's own, and must hold what that has
/// written to it, or zero.
pub(in super::super) async fn run(pages: u64) -> Result<u8, CommandError> {
    let mut scene = Scene::new()?;
    let each = pages.div_ceil(THREADS);
    let start = scene.anonymous(each * THREADS).await?.as_u64();
    let disk = machine::disk("disk0").filter(|disk| disk.object.pages() > 0);
    let file = match disk {
        Some(disk) => {
            Some((scene.shared(&disk.object)?.as_u64(), disk.object.pages(), !disk.device.read_only()))
        }
        None => None,
    };
    let wrong = Arc::new(AtomicU64::new(0));
    let seen = wrong.clone();
    let touch_all = move |thread: u64| {
        let mut random = Random::new(thread + 1);
        for touch in 0..each {
            if let Some((file, pages, is_writable)) = file.filter(|_| touch % OF_FILE == 0) {
                let page = random.below(pages);
                if is_writable && touch % REWRITES == 0 {
                    rewrite(file, page);
                } else {
                    read(file, page);
                }
            }
            let page = random.below(each) * THREADS + thread;
            let word = read(start, page);
            seen.fetch_add(u64::from(word != 0 && word != page + 1), Relaxed);
            write(start, page);
        }
    };
    let (before, began) = (Counts::now(), Instant::now());
    let ended = on_threads(THREADS as usize, scene.space(), touch_all).await;
    let took = began.elapsed();
    let after = Counts::now();
    let of_file = disk.map_or("no disk", |disk| &disk.name);
    say!("memory      {} and {of_file}, {THREADS} threads, {} ms", Bytes::of_pages(pages), took.as_millis());
    report(&before, &after).await;
    drop(scene);
    memory::memory().settle().await;
    ended?;
    match wrong.load(Relaxed) {
        0 => Ok(0),
        wrong => Err(failed(alloc::format!("{wrong} pages held something else than was written"))),
    }
}

async fn report(before: &Counts, after: &Counts) {
    let since = |count: fn(&FaultStats) -> u64| count(&after.faults) - count(&before.faults);
    let (minor, major) = (since(|stats| stats.minor_faults), since(|stats| stats.major_faults));
    say!("faults      {minor} without waiting for a load, {major} after one");
    say!("reclaims    {} clean pages given back", since(|stats| stats.evictions));
    say!("stores      {} pages stored in files", after.stored - before.stored);
    say!("requests    {} by the disks, those of swap among them", after.requests - before.requests);
    match (&before.swap, &after.swap) {
        (Some(before), Some(after)) => {
            let (out, back) = (after.pages_out - before.pages_out, after.pages_in - before.pages_in);
            say!("swap        {out} pages out, {back} in");
        }
        _ => say!("swap        none"),
    }
    let ticks = after.ticks.since(&before.ticks);
    match ticks.count() {
        0 => say!("ticks       none"),
        count => say!("ticks       {count}, 99th percentile {} us late", ticks.percentile(99).div_ceil(1000)),
    }
}
