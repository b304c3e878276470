//! Requests pile up at the device, and threads do not matter to them.

use alloc::sync::Arc;

use executor::{WaitReason, sync::Notify};
use kernel::{
    machine::Disk,
    memory,
    thread::{self, EndReason},
};
use mm::{PAGE_SIZE, PageIndex};

use crate::{
    check::{Failure, Outcome, ask_host, ensure, eventually},
    crew::Crew,
    pages::{self, Tally},
    usage::{self, Usage},
    wild,
};

/// The first of them is answered before the disk stalls, and one more each second.
const THREADS: usize = 80;
/// Every second page is read: the device's backend makes one of requests for neighbours, and would answer many at once.
const STRIDE: usize = 2;
/// So many must be there together.
const TOGETHER: usize = 64;

/// Threads that want a page each are all in flight at the device's queue at the same time.
pub(crate) async fn loads_are_in_flight_together() -> Outcome {
    let disk = pages::disk()?;
    let tally = Arc::new(Tally::default());
    let crew = pile_up(disk, TOGETHER, &tally).await?;
    let stats = disk.device.stats();
    ensure!(stats.max_in_flight >= TOGETHER as u64, "at most {} were in flight", stats.max_in_flight);
    let before = stats.requests;
    ask_host("let the disk go").await?;
    crew.finish().await?;
    ensure!(tally.all() == [THREADS, 0, 0, 0, 0], "{THREADS} threads read: {tally}");
    let stats = disk.device.stats();
    ensure!(stats.in_flight == 0, "{} are in flight at the end", stats.in_flight);
    ensure!(stats.requests == before, "{} requests were made again", stats.requests - before);
    Ok(())
}

/// Threads that are killed while the device works on their pages end at once; the loads end when the device
/// says so, and not a frame is lost.
pub(crate) async fn killed_loads_are_finished() -> Outcome {
    let (stalled, quick) = (pages::disk()?, pages::second_disk()?);
    // What is kept for the next time is there before the first look: the tables of stacks and window.
    many_stacks().await?;
    read_and_kill(quick, 0).await?;
    usage::still().await?;
    let (before, tables_before) = (Usage::now(), tables());
    let in_flight = read_and_kill(stalled, TOGETHER).await?;
    ensure!(in_flight as usize >= TOGETHER / 2, "{in_flight} in flight: the threads waited for the device");
    ask_host("let the disk go").await?;
    eventually("the device is done", || stalled.device.stats().in_flight == 0).await?;
    eventually("the pages are there", || stalled.object.stats().resident as usize == THREADS).await?;
    forget(stalled);
    // Not a frame may be missing: each load that is lost is one.
    let is_back = || Usage::now().frames == before.frames;
    let back = eventually("memory is back", is_back).await;
    back.map_err(|_| {
        let after = Usage::now();
        Failure::new(alloc::format!(
            "{before:?} of memory in use before, {after:?} after, {tables_before} and {} tables",
            tables()
        ))
    })?;
    // The two windows lie elsewhere than the first time where a CPU has not forgotten those yet. Each is shorter than
    // what a table shows, so it reaches into two.
    const { assert!(STRIDE * THREADS <= 512) };
    let made = tables() - tables_before;
    ensure!(made <= 4, "{made} page tables more, for the same windows and stacks");
    Ok(())
}

/// Page tables of the kernel's space, which are never given back.
fn tables() -> usize {
    memory::kernel_space().stats().tables as usize
}

/// As many threads at the same time as will be needed.
async fn many_stacks() -> Outcome {
    let open = Arc::new(Notify::new());
    let mut crew = Crew::default();
    for _ in 0..2 * THREADS {
        let open = open.clone();
        crew.add("patient", move || thread::block_on(open.notified()))?;
    }
    crew.all_wait_for(WaitReason::Notify).await?;
    open.notify_waiters();
    crew.finish().await
}

/// Two threads for each page, one of which owns something, and kills them when so many requests are at the
/// device. Returns how many are there when the threads have ended.
async fn read_and_kill(disk: &Disk, together: usize) -> Result<u64, Failure> {
    let tally = Arc::new(Tally::default());
    let crew = pile_up(disk, together, &tally).await?;
    let window = pages::window(&disk.object, STRIDE * THREADS)?;
    let mut slices = Crew::default();
    for page in 0..THREADS {
        let address = window.start().as_u64() + (STRIDE * page * PAGE_SIZE) as u64;
        slices.add("slice reader", move || wild::touch(address))?;
    }
    eventually("they wait", || slices.waiting_for(WaitReason::Page) >= together / 2).await?;
    crew.kill();
    slices.kill();
    crew.finish().await?;
    for end in slices.join().await? {
        // Some pages have come in time.
        ensure!(matches!(end, EndReason::Killed | EndReason::Finished(0)), "a killed thread was {end}");
    }
    let [right, wrong, io, denied, killed] = tally.all();
    ensure!(wrong + io + denied == 0 && right + killed == THREADS, "killed threads read: {tally}");
    let in_flight = disk.device.stats().in_flight;
    if together == 0 {
        eventually("the device is done", || disk.device.stats().in_flight == 0).await?;
        forget(disk);
    }
    Ok(in_flight)
}

fn forget(disk: &Disk) {
    drop(disk.object.release(PageIndex::new(0)..PageIndex::new(disk.object.pages())));
}

/// Threads that want a page each; so many of them wait, and their requests are at the device together.
async fn pile_up(disk: &Disk, together: usize, tally: &Arc<Tally>) -> Result<Crew, Failure> {
    let window = pages::window(&disk.object, STRIDE * THREADS)?;
    let device = &disk.device;
    let before = device.stats().requests;
    let mut crew = Crew::default();
    for page in 0..THREADS {
        let (window, tally) = (window.clone(), tally.clone());
        crew.add("reader", move || pages::read(&window, STRIDE * page, &tally))?;
    }
    let together = eventually("the requests are at the device together", || {
        let stats = device.stats();
        let all_made = (stats.requests - before) as usize == THREADS;
        all_made && stats.in_flight as usize >= together && crew.waiting_for(WaitReason::Page) >= together
    });
    together.await.map_err(|why| {
        let waiting = crew.waiting_for(WaitReason::Page);
        Failure::new(alloc::format!("{why}: {:?}, {waiting} threads wait", device.stats()))
    })?;
    Ok(crew)
}
