//! `bench mm`: what faults, unmapping and forks cost, by loads and stores of a kernel thread.
//!
//! A figure is the median of many, after some that do not count: the others pay for a page table, or are interrupted.
//! The mean is beside it.

use alloc::{string::String, sync::Arc, vec, vec::Vec};

use executor::sync::Mutex;
use mm::{Access, PAGE_SIZE, VmObject};

use super::super::super::{CommandError, output::say, room::make_room};
use super::scene::{AtOnce, Scene, after, failed};
use crate::{arch::registers::time_stamp, memory};

/// Pages that are touched for one figure.
const PAGES: u64 = 2000;
/// Measured before those that count.
const WARM_UP: usize = 100;
/// Pages that are unmapped together: 32 MiB.
const UNMAPPED: u64 = 8192;
/// Pages under one table that are protected one by one when they are forked.
const FEW: u64 = 32;
/// With so many pages or tables under it, a table is protected as a whole.
const MANY: u64 = 100;
/// Forks that are measured, after some that are not.
const FORKS: usize = 9;
const FORKS_BEFORE: usize = 2;
/// Mappings that are forked; each fourth is shared.
const MAPPINGS: u64 = 8;
/// Pages of a large one, and how many of them are measured.
const LARGE: u64 = 512;
const LARGE_PAGES: usize = 9;
const GIB: u64 = (1 << 30) / PAGE_SIZE as u64;
const MIB: u64 = (1 << 20) / PAGE_SIZE as u64;

static ALONE: Mutex<()> = Mutex::new(());

/// All rows. Each has a space of its own, which is gone before the next.
pub(super) async fn run() -> Result<u8, CommandError> {
    // One at a time: the other would be measured with it.
    let _alone = ALONE.lock().await;
    make_room((2 * UNMAPPED) as usize).await?;
    say!("in ticks of the time-stamp counter, with --icount one instruction each:");
    say!("{:<48} {:>7} {:>7} {:>7}", "", "at most", "median", "mean");
    first_touches().await?;
    large_pages().await?;
    copies().await?;
    copy_through_levels().await?;
    not_mapped().await?;
    unmaps().await?;
    loads().await?;
    forks().await?;
    Ok(0)
}

/// Prints a line; the median.
async fn report(what: &str, limit: u64, mut ticks: Vec<u64>) -> u64 {
    let mean = ticks.iter().sum::<u64>() / ticks.len().max(1) as u64;
    ticks.sort_unstable();
    let median = ticks.get(ticks.len() / 2).copied().unwrap_or(0);
    say!("{what:<48} {limit:>7} {median:>7} {mean:>7}");
    median
}

/// The same, without those that come before the ones that count.
async fn report_warm(what: &str, limit: u64, ticks: Vec<u64>) {
    report(what, limit, ticks.into_iter().skip(WARM_UP).collect()).await;
}

async fn settled() {
    memory::memory().settle().await;
}

async fn first_touches() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let written = scene.anonymous(PAGES).await?;
    report_warm("first write to a lazy page", 1_000, scene.touch(written, PAGES, Access::Write).await?).await;
    let read = scene.anonymous(PAGES).await?;
    report_warm("first read of a lazy page", 350, scene.touch(read, PAGES, Access::Read).await?).await;
    drop(scene);
    settled().await;
    Ok(())
}

/// Without the time in which others had their turn, while the page was cleared: there are none.
async fn large_pages() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let mut ticks = Vec::new();
    for _ in 0..LARGE_PAGES {
        let start = scene.anonymous_large(LARGE)?;
        ticks.append(&mut scene.touch(start, 1, Access::Write).await?);
        scene.unmap(start, LARGE).await?;
        settled().await;
    }
    report("first write to 2 MiB that become one page", 350_000, ticks).await;
    drop(scene);
    settled().await;
    Ok(())
}

async fn copies() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let start = scene.anonymous(FEW).await?;
    scene.touch(start, FEW, Access::Write).await?;
    let mut ticks = Vec::new();
    while ticks.len() < PAGES as usize {
        let (_, twin) = scene.fork().await?;
        ticks.append(&mut scene.touch(start, FEW, Access::Write).await?);
        drop(twin);
        settled().await;
    }
    report_warm("copy on write, protected at the leaf", 1_150, ticks).await;
    drop(scene);
    settled().await;
    Ok(())
}

async fn copy_through_levels() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    // A table of each level with many entries: of pages, of tables of pages, and of those of other mappings.
    let start = scene.anonymous(GIB).await?;
    for number in 1..MANY {
        let page = scene.anonymous_at(start, number * GIB, 1).await?;
        scene.touch(page, 1, Access::Write).await?;
    }
    for span in [1, 512] {
        for number in 0..MANY {
            scene.touch(after(start, number * span), 1, Access::Write).await?;
        }
    }
    let mut ticks = Vec::new();
    for _ in 0..FORKS_BEFORE + FORKS {
        let (_, twin) = scene.fork().await?;
        ticks.append(&mut scene.touch(start, 1, Access::Write).await?);
        drop(twin);
        settled().await;
    }
    let counted = ticks.split_off(FORKS_BEFORE.min(ticks.len()));
    report("first write after fork, three protected levels", 3_800, counted).await;
    drop(scene);
    settled().await;
    Ok(())
}

async fn not_mapped() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let object = VmObject::try_zero(memory::memory(), PAGES).map_err(failed)?;
    let (first, second) = (scene.shared(&object)?, scene.shared(&object)?);
    scene.touch(first, PAGES, Access::Write).await?;
    report_warm("page in memory but not mapped", 350, scene.touch(second, PAGES, Access::Read).await?).await;
    drop((scene, object));
    settled().await;
    Ok(())
}

async fn unmaps() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let mut ticks = Vec::new();
    for _ in 0..3 {
        let start = scene.anonymous(UNMAPPED).await?;
        scene.touch(start, UNMAPPED, Access::Write).await?;
        ticks.push(scene.unmap(start, UNMAPPED).await? / UNMAPPED);
    }
    report("unmap, a page of 32 MiB, and its end", 180, ticks).await;
    let object = VmObject::try_zero(memory::memory(), UNMAPPED).map_err(failed)?;
    let mut ticks = Vec::new();
    for _ in 0..3 {
        let start = scene.shared(&object)?;
        scene.touch(start, UNMAPPED, Access::Write).await?;
        ticks.push(scene.unmap(start, UNMAPPED).await? / UNMAPPED);
    }
    report("unmap, a page of 32 MiB of an object", 180, ticks).await;
    drop((scene, object));
    settled().await;
    Ok(())
}

async fn loads() -> Result<(), CommandError> {
    let mut scene = Scene::new()?;
    let object = VmObject::try_new(memory::memory(), Arc::new(AtOnce), PAGES).map_err(failed)?;
    let start = scene.shared(&object)?;
    report_warm(
        "load by a pager that answers at once",
        2_500,
        scene.touch(start, PAGES, Access::Read).await?,
    )
    .await;
    settled().await;
    // All looks at them, until nobody has used them lately, and the wait for all CPUs.
    let before = time_stamp();
    let gone = mm::reclaim(memory::memory(), PAGES as usize).await;
    let ticks = time_stamp() - before;
    report("reclaim of a clean page", 700, vec![ticks / gone.max(1) as u64]).await;
    drop((scene, object));
    settled().await;
    Ok(())
}

async fn forks() -> Result<(), CommandError> {
    let small = fork_of("fork of 16 MiB", 16 * MIB).await?;
    let large = 1024 * MIB;
    // Beside the pages their tables, and what is known about them.
    if let Err(why) = make_room((large + large / 40) as usize).await {
        say!("fork of 1 GiB was not measured: {why}; --memory 1400M gives enough");
        return Ok(());
    }
    let large = fork_of("fork of 1 GiB", large).await?;
    let apart = small.abs_diff(large) * 100 / small.max(1);
    say!("the two forks differ by {apart} % (at most 20 %)");
    Ok(())
}

/// Forks a space where so many pages are there, and some were written since the last fork.
async fn fork_of(what: &str, pages: u64) -> Result<u64, CommandError> {
    let mut scene = Scene::new()?;
    let each = pages / MAPPINGS;
    let mut starts = vec![];
    for number in 0..MAPPINGS {
        let start = if number % 4 == 3 {
            scene.shared(&VmObject::try_zero(memory::memory(), each).map_err(failed)?)?
        } else {
            scene.anonymous(each).await?
        };
        scene.touch(start, each, Access::Write).await?;
        starts.push(start);
    }
    let mut ticks = Vec::new();
    for _ in 0..FORKS_BEFORE + FORKS {
        let (took, twin) = scene.fork().await?;
        ticks.push(took);
        for start in &starts {
            scene.touch(*start, 1, Access::Write).await?;
        }
        drop(twin);
        settled().await;
    }
    let what = alloc::format!("{what}, {MAPPINGS} mappings, 2 of them shared");
    let median = report(&what, 20_000, ticks.split_off(FORKS_BEFORE)).await;
    drop::<(Scene, String)>((scene, what));
    settled().await;
    Ok(median)
}
