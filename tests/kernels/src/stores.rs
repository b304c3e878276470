//! Changed pages go to the disk, while threads go on changing them.

use alloc::sync::Arc;
use core::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::time;
use kernel::{
    memory::{kernel_space, memory},
    thread::block_on,
};
use mm::{PAGE_SIZE, PageIndex, Placement, Protection, reclaim};

use crate::{
    check::{Needed, Outcome, ensure, storm},
    crew::Crew,
    pages, wild,
};

const WRITERS: u64 = 4;
const PAGES_EACH: u64 = 12;
/// So many times pages are stored and count as clean.
const MARKED: usize = 1500;

/// Between two rounds of a writer, and of the test.
const PAUSE: Duration = Duration::from_millis(2);

/// What the threads and the test share.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    wrong: AtomicUsize,
    /// What each writer has written last.
    last: [AtomicU64; WRITERS as usize],
}

/// Threads count in the pages of a disk, each word one higher than they left it, while these are stored, marked as
/// clean and given back all the time: no count is ever lost.
pub(crate) async fn store_storm() -> Outcome {
    let object = &pages::disk()?.object;
    let pages = WRITERS * PAGES_EACH;
    let all = PageIndex::new(0)..PageIndex::new(pages);
    let (space, anywhere) = (kernel_space(), Placement::Anywhere);
    let start = space.map(object, all.start, pages, Protection::READ_WRITE, anywhere);
    let start = start.needed("the disk cannot be mapped")?;
    let word = move |page: u64| start.as_u64() + page * PAGE_SIZE as u64 + 8;
    let counts = Arc::new(Counts::default());
    let mut crew = Crew::default();
    for writer in 0..WRITERS {
        let counts = counts.clone();
        crew.add("writer", move || {
            let mut round = 0;
            while !counts.stop.load(Relaxed) {
                for page in writer * PAGES_EACH..(writer + 1) * PAGES_EACH {
                    let expected = if round == 0 { page * PAGE_SIZE as u64 + 8 } else { round };
                    counts.wrong.fetch_add(usize::from(wild::read(word(page)) != expected), Relaxed);
                    wild::write(word(page), round + 1);
                }
                round += 1;
                // Long enough to be found unwritten now and then.
                block_on(time::sleep(PAUSE));
            }
            counts.last[writer as usize].store(round, Relaxed);
        })?;
    }
    let mut marked = 0;
    while marked < MARKED * storm() {
        marked += object.store_and_mark(all.clone()).await.needed("a page cannot be stored")?;
        reclaim(memory(), pages as usize).await;
        time::sleep(PAUSE).await;
    }
    counts.stop.store(true, Relaxed);
    crew.finish().await?;
    let wrong = counts.wrong.load(Relaxed);
    ensure!(wrong == 0, "{wrong} counts were lost");
    // What the disk has now is read again.
    object.store_and_mark(all.clone()).await.needed("a page cannot be stored")?;
    object.release(all).await;
    let loads = memory().stats().loads_started;
    let (mut crew, noted) = (Crew::default(), counts.clone());
    crew.add("reader", move || {
        for page in 0..pages {
            let expected = noted.last[(page / PAGES_EACH) as usize].load(Relaxed);
            noted.wrong.fetch_add(usize::from(wild::read(word(page)) != expected), Relaxed);
        }
    })?;
    crew.finish().await?;
    let (wrong, loads) = (counts.wrong.load(Relaxed), memory().stats().loads_started - loads);
    ensure!(wrong == 0, "{wrong} pages of the disk are not what was stored last");
    ensure!(loads == pages, "{loads} of {pages} pages were read again");
    space.unmap(start..mm::VirtAddr::truncated(word(pages) - 8)).await.needed("the disk cannot be unmapped")
}

/// A flush ends when the device has acknowledged a flush command, and needs none where nothing was stored.
pub(crate) async fn flush_is_one_command_of_the_device() -> Outcome {
    let disk = pages::disk()?;
    let commands = |expected: u64, before: u64, what: &str| {
        let commands = disk.device.stats().requests - before;
        ensure!(commands == expected, "{what}: {commands} requests of the device");
        Ok(())
    };
    for page in 0..4 {
        disk.object.write(page * PAGE_SIZE as u64, &page.to_le_bytes()).await.needed("a page is written")?;
    }
    let before = disk.device.stats().requests;
    disk.object.flush().await.needed("the disk can be flushed")?;
    commands(2, before, "four pages in order, and a flush")?;
    disk.object.flush().await.needed("the disk can be flushed")?;
    commands(2, before, "and nothing more")?;
    disk.object.write(0, &[1]).await.needed("a page is written")?;
    disk.object.store_and_mark(PageIndex::new(0)..PageIndex::new(1)).await.needed("a page is stored")?;
    disk.object.flush().await.needed("the disk can be flushed")?;
    commands(4, before, "a store, and a flush")
}

/// Threads that share a file which is larger than memory.
const SHARERS: u64 = 16;
/// What each word of the file is changed by.
const CHANGE: u64 = 0x5a5a_0000_0000_a5a5;

/// Sixteen threads rewrite each word of a disk that is four times as large as memory, mapped by all of them, and it is
/// flushed: each finds what was there before, and the host finds what they have written.
pub(crate) async fn file_outgrows_memory() -> Outcome {
    let disk = pages::disk()?;
    let pages = disk.object.pages();
    let free = memory().frames().stats().free as u64;
    ensure!(pages > 3 * free, "{pages} pages are no match for {free} free frames");
    let (space, anywhere) = (kernel_space(), Placement::Anywhere);
    let start = space.map(&disk.object, PageIndex::new(0), pages, Protection::READ_WRITE, anywhere);
    let start = start.needed("the disk cannot be mapped")?.as_u64();
    let (done, wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut crew = Crew::default();
    for sharer in 0..SHARERS {
        let (done, wrong) = (done.clone(), wrong.clone());
        crew.add("sharer", move || {
            for page in pages * sharer / SHARERS..pages * (sharer + 1) / SHARERS {
                let first = page * PAGE_SIZE as u64;
                for offset in (first..first + PAGE_SIZE as u64).step_by(8) {
                    let word = wild::read(start + offset);
                    wrong.fetch_add(usize::from(word != offset), Relaxed);
                    wild::write(start + offset, word ^ CHANGE);
                }
                done.fetch_add(1, Relaxed);
            }
        })?;
    }
    crew.finish_while_counting(|| done.load(Relaxed)).await?;
    let wrong = wrong.load(Relaxed);
    ensure!(wrong == 0, "{wrong} words were not what the disk had");
    disk.object.flush().await.needed("the disk can be flushed")?;
    let stats = memory().write_back_stats();
    ensure!(stats.dirty == 0 && stats.parked == 0, "{stats:?} after a flush");
    ensure!(stats.cleaned > 0, "nothing was written back before it was flushed");
    Ok(())
}
