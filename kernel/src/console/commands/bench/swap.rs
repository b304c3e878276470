//! `bench swap`: random touches of memory that is four times what the machine has, against random reads of the same disk.
//!
//! Both sides have 32 pages under way: 32 tasks that read 4 KiB at a time by requests, and 32 threads that read a word of a
//! page at a time.
#![allow(unsafe_code, reason = "touches addresses of a space that the benchmark has made")]

use alloc::{string::ToString, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use drivers::{block::SECTOR_BYTES, dma::DmaBuffer, virtio_blk::VirtioBlk};
use executor::time::Instant;
use mm::{AddressSpace, PAGE_SIZE, SwapStats};

use super::super::super::{CommandError, output::say};
use super::scene::{Scene, failed};
use crate::{
    arch::registers::time_stamp,
    machine, memory, swap,
    thread::{self, EndReason},
};

/// The working set, and what is read by requests: 256 MiB.
const PAGES: u64 = 65_536;
/// Reads, and threads, at the same time.
const AT_ONCE: usize = 32;
/// Reads by requests of a round, and touches.
const READS: usize = 16_384;
const TOUCHES: usize = 24_576;
const ROUNDS: usize = 5;
/// Pages that leave at the end.
const LEAVE: usize = 2_048;

pub(super) async fn run() -> Result<u8, CommandError> {
    let disk =
        machine::disk(swap::NAME).ok_or_else(|| failed("the machine has no disk for swap: --swap FILE"))?;
    let mut scene = Scene::new()?;
    let start = scene.anonymous(PAGES).await?.as_u64();
    let space = scene.space();
    let before = stats()?;
    let began = Instant::now();
    on_threads(1, space, move |_| (0..PAGES).for_each(|page| write(start, page))).await?;
    let (written, micros) = (stats()?.pages_out - before.pages_out, began.elapsed().as_micros() as u64);
    say!("{} MiB written once: {written} pages out, {} a second", PAGES >> 8, per_second(written, micros));
    say!("{:>16} {:>12} {:>12} {:>12} {:>8}", "reads a second", "page-ins", "a second", "pages out", "ratio");
    let mut ratios = [0; ROUNDS];
    for (round, ratio) in (1..).zip(&mut ratios) {
        let reads = read_by_requests(&disk.device, round).await?;
        let (before, began) = (stats()?, Instant::now());
        let wrong = Arc::new(AtomicUsize::new(0));
        let seen = wrong.clone();
        let touch_all = move |thread: u64| {
            let mut random = Random::new(round * 1_000 + thread);
            for _ in 0..TOUCHES / AT_ONCE {
                let page = random.below(PAGES);
                seen.fetch_add(usize::from(read(start, page) != page + 1), Ordering::Relaxed);
            }
        };
        on_threads(AT_ONCE, space, touch_all).await?;
        let (after, micros) = (stats()?, began.elapsed().as_micros() as u64);
        if wrong.load(Ordering::Relaxed) > 0 {
            return Err(failed("a word came back from swap that is not what was written"));
        }
        let pages = after.pages_in - before.pages_in;
        let page_ins = per_second(pages, micros);
        *ratio = page_ins * 100 / reads.max(1);
        let (out, shown) =
            (after.pages_out - before.pages_out, alloc::format!("{}.{:02}", *ratio / 100, *ratio % 100));
        say!("{reads:>16} {pages:>12} {page_ins:>12} {out:>12} {shown:>8}");
    }
    // They have come back and were only read, so they leave without a write.
    let before = time_stamp();
    let freed = mm::swap_out(memory::memory(), LEAVE).await as u64;
    let ticks = (time_stamp() - before) / freed.max(1);
    say!("{freed} clean pages left, {ticks} ticks each, with both looks at it");
    ratios.sort_unstable();
    let median = ratios[ROUNDS / 2];
    say!("median ratio     {}.{:02}", median / 100, median % 100);
    Ok(0)
}

fn stats() -> Result<SwapStats, CommandError> {
    memory::memory().swap_stats().ok_or_else(|| failed("there is no swap"))
}

fn per_second(count: u64, micros: u64) -> u64 {
    count * 1_000_000 / micros.max(1)
}

/// How many random reads of a page a second the disk gives to tasks that each have one under way.
async fn read_by_requests(device: &Arc<VirtioBlk>, round: u64) -> Result<u64, CommandError> {
    let mut buffers = Vec::new();
    for _ in 0..AT_ONCE {
        buffers.push(DmaBuffer::new(PAGE_SIZE).ok_or_else(|| failed(mm::OutOfMemory))?);
    }
    let began = Instant::now();
    let mut tasks = Vec::new();
    for (number, mut buffer) in (0..).zip(buffers) {
        let (device, mut random) = (device.clone(), Random::new(round * 2_000 + number));
        tasks.push(executor::spawn(async move {
            for _ in 0..READS / AT_ONCE {
                // Slot 0 is none.
                let sector = (1 + random.below(PAGES)) * (PAGE_SIZE as u64 / SECTOR_BYTES);
                let (result, filled) = device.read(sector, buffer).await;
                result.map_err(|why| why.to_string())?;
                buffer = filled;
            }
            Ok(())
        }));
    }
    for task in tasks {
        let end: Result<(), alloc::string::String> =
            task.await.map_err(|_| failed("a reader was aborted"))?;
        end.map_err(failed)?;
    }
    Ok(per_second(READS as u64, began.elapsed().as_micros() as u64))
}

/// Runs so many threads in a space, and waits for their ends.
pub(super) async fn on_threads(
    threads: usize,
    space: &Arc<AddressSpace>,
    run: impl Fn(u64) + Clone + Send + 'static,
) -> Result<(), CommandError> {
    let mut handles = Vec::new();
    for number in 0..threads as u64 {
        let run = run.clone();
        handles.push(thread::spawn_here("bench", Some(space.clone()), move || run(number)).map_err(failed)?);
    }
    for handle in handles {
        match handle.await {
            EndReason::Finished(_) => {}
            end => return Err(failed(alloc::format!("a thread was {end}"))),
        }
    }
    Ok(())
}

fn word(start: u64, page: u64) -> *mut u64 {
    (start as usize + page as usize * PAGE_SIZE) as *mut u64
}

pub(super) fn write(start: u64, page: u64) {
    // SAFETY: only the threads of `on_threads` run in the space, which maps nothing else; a page that cannot be had
    // ends the thread.
    unsafe { word(start, page).write_volatile(page + 1) };
}

pub(super) fn read(start: u64, page: u64) -> u64 {
    // SAFETY: as above.
    unsafe { word(start, page).read_volatile() }
}

/// Makes a page dirty, whose content stays what it is, whoever else writes to it.
pub(super) fn rewrite(start: u64, page: u64) {
    // SAFETY: as above; the word is one of a page that is mapped for writing.
    let word = unsafe { AtomicU64::from_ptr(word(start, page)) };
    let seen = word.load(Ordering::Relaxed);
    let _either_way = word.compare_exchange(seen, seen, Ordering::Relaxed, Ordering::Relaxed);
}

/// xorshift: never twice the same page in a row for long.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }
}
