//! One load for all who want a page, and one error.

use alloc::sync::Arc;

use executor::WaitReason;
use kernel::{memory::memory, thread::EndReason, window::Window};
use mm::{Denial, PAGE_SIZE, PageError, PageIndex, PageState, TestPager, VmObject};

use crate::{
    check::{Outcome, ensure, eventually, storm},
    crew::Crew,
    pages::{self, Tally},
    usage, wild,
};

/// Threads that want the same page.
const THREADS: usize = 64;

/// Threads that want one page of a pager that is held back make one load, and all of them get the page.
pub(crate) async fn one_page_is_loaded_once() -> Outcome {
    usage::stays_equal(3, |_| async {
        let (pager, object) = pages::test_object(4);
        pager.hold();
        let window = pages::window(&object, 4)?;
        let tally = Arc::new(Tally::default());
        let crew = readers(&window, 2, THREADS, &tally)?;
        crew.all_wait_for(WaitReason::Page).await?;
        ensure!(pager.loads() == 1, "{} loads for one page", pager.loads());
        ensure!(pager.release(PageIndex::new(2)), "the pager has no request");
        crew.finish().await?;
        ensure!(tally.all() == [THREADS, 0, 0, 0, 0], "{THREADS} threads read: {tally}");
        ensure!(pager.loads() == 1, "{} loads for one page", pager.loads());
        let stats = object.stats();
        ensure!(stats.resident == 1 && stats.transfers == 0, "the object has {stats:?}");
        Ok(())
    })
    .await
}

/// Threads that want one page of a disk make one request to the device.
pub(crate) async fn one_disk_page_is_read_once() -> Outcome {
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, 4)?;
    let tally = Arc::new(Tally::default());
    // The disk answers once a second: after this, all threads come before the next answer.
    readers(&window, 0, 1, &tally)?.finish().await?;
    let before = disk.device.stats();
    let crew = readers(&window, 3, THREADS, &tally)?;
    crew.all_wait_for(WaitReason::Page).await?;
    crew.finish().await?;
    let after = disk.device.stats();
    ensure!(tally.all() == [THREADS + 1, 0, 0, 0, 0], "{THREADS} threads read: {tally}");
    ensure!(after.requests == before.requests + 1, "{} requests", after.requests - before.requests);
    ensure!(after.interrupts > before.interrupts, "no interrupt");
    Ok(())
}

/// A load that fails gives each of its waiters the error; the next thread makes a new load.
pub(crate) async fn failed_load_reaches_everyone() -> Outcome {
    let failing = PageIndex::new(1);
    usage::stays_equal(3, |_| async {
        let (pager, object) = pages::test_object(2);
        pager.hold();
        pager.fail(Some(failing), 1, PageError::Corrupted);
        let window = pages::window(&object, 2)?;
        fail_together(&pager, &object, &window).await?;
        // The next thread's load succeeds, and so does that of the page beside it.
        let tally = Arc::new(Tally::default());
        let mut crew = readers(&window, 1, 1, &tally)?;
        crew.all_wait_for(WaitReason::Page).await?;
        ensure!(pager.loads() == 2, "the next thread made no load of its own: {}", pager.loads());
        pager.release_all().await;
        let (beside, noted) = (window.clone(), tally.clone());
        crew.add("beside", move || pages::read(&beside, 0, &noted))?;
        crew.finish().await?;
        ensure!(tally.all() == [2, 0, 0, 0, 0], "after the failure: {tally}");
        Ok(())
    })
    .await
}

/// Half of the threads own something and get the error as a value, half of them own nothing and end.
async fn fail_together(pager: &TestPager, object: &Arc<VmObject>, window: &Arc<Window>) -> Outcome {
    let tally = Arc::new(Tally::default());
    let owners = readers(window, 1, THREADS / 2, &tally)?;
    let mut slices = Crew::default();
    let address = window.start().as_u64() + PAGE_SIZE as u64;
    for _ in 0..THREADS / 2 {
        slices.add("slice reader", move || wild::touch(address))?;
    }
    owners.all_wait_for(WaitReason::Page).await?;
    slices.all_wait_for(WaitReason::Page).await?;
    ensure!(pager.loads() == 1, "{} loads for one page", pager.loads());
    pager.release(PageIndex::new(1));
    owners.finish().await?;
    ensure!(tally.all() == [0, 0, THREADS / 2, 0, 0], "the load failed, and those who read it had: {tally}");
    for end in slices.join().await? {
        let expected = Denial::Corrupted { page: PageIndex::new(1) };
        ensure!(
            matches!(end, EndReason::Denied { address: at, why, .. } if at == address && why == expected),
            "the load failed, and a thread was {end}"
        );
    }
    let state = object.state(PageIndex::new(1));
    ensure!(state == PageState::Failed, "the page is {state:?}");
    Ok(())
}

/// A sector that cannot be read fails the page that it is in, for everyone, each time; one that cannot be read once fails
/// its page once; other pages are fine.
pub(crate) async fn failing_sector_reaches_everyone() -> Outcome {
    const FAILING: usize = 3;
    const FAILING_ONCE: usize = 5;
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, 8)?;
    for expected in [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]] {
        let tally = Arc::new(Tally::default());
        readers(&window, FAILING_ONCE, 1, &tally)?.finish().await?;
        ensure!(tally.all() == expected, "at the sector that fails once: {tally}");
    }
    for round in 1..=3 {
        let before = disk.device.stats();
        let tally = Arc::new(Tally::default());
        readers(&window, FAILING, THREADS, &tally)?.finish().await?;
        ensure!(tally.all() == [0, 0, THREADS, 0, 0], "round {round} at the failing sector: {tally}");
        let after = disk.device.stats();
        ensure!(after.errors > before.errors, "round {round} made no new try");
    }
    let tally = Arc::new(Tally::default());
    for page in (0..8).filter(|&page| page != FAILING) {
        readers(&window, page, 4, &tally)?.finish().await?;
    }
    ensure!(tally.all() == [28, 0, 0, 0, 0], "beside the failing sector: {tally}");
    let failed = memory().stats().loads_failed;
    ensure!(failed == disk.device.stats().errors, "{failed} loads failed");
    eventually("nothing is in flight", || disk.device.stats().in_flight == 0).await
}

/// Threads that read a page each note what they find.
fn readers(
    window: &Arc<Window>,
    page: usize,
    count: usize,
    tally: &Arc<Tally>,
) -> Result<Crew, crate::check::Failure> {
    let mut crew = Crew::default();
    for _ in 0..count {
        let (window, tally) = (window.clone(), tally.clone());
        crew.add("reader", move || pages::read(&window, page, &tally))?;
    }
    Ok(crew)
}

/// Pages of the disk that cannot be read, as the host has made it.
const BROKEN: [usize; 4] = [3, 20, 21, 63];

/// Many threads read pages here and there, and in order, of a disk where some cannot be read, while pages are given back:
/// those that are broken fail each time, and no other ever does, though they are loaded together.
pub(crate) async fn disk_error_storm() -> Outcome {
    const PAGES: usize = 64;
    const READERS: usize = 16;
    let reads = 400 * storm();
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, PAGES)?;
    let [broken, whole] = [(); 2].map(|()| Arc::new(Tally::default()));
    let mut crew = Crew::default();
    for reader in 0..READERS {
        let (window, broken, whole) = (window.clone(), broken.clone(), whole.clone());
        let mut page = reader * 4;
        crew.add("reader", move || {
            for read in 0..reads {
                let step = if reader % 2 == 0 { 1 } else { read * read + 7 };
                page = (page + step) % PAGES;
                let tally = if BROKEN.contains(&page) { &broken } else { &whole };
                pages::read(&window, page, tally);
            }
        })?;
    }
    let all = PageIndex::new(0)..PageIndex::new(PAGES as u64);
    let expected = READERS * reads;
    let done = || broken.all().into_iter().chain(whole.all()).sum::<usize>();
    while done() < expected {
        let before = done();
        disk.object.release(all.clone()).await;
        eventually("the readers go on", || done() >= expected.min(before + READERS)).await?;
    }
    crew.finish().await?;
    let [right, wrong, io, denied, killed] = broken.all();
    ensure!(io > 0 && [right, wrong, denied, killed] == [0; 4], "pages that cannot be read: {broken}");
    ensure!(whole.all() == [expected - io, 0, 0, 0, 0], "the others: {whole}");
    eventually("nothing is in flight", || disk.device.stats().in_flight == 0).await
}
