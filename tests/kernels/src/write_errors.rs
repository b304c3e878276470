//! Disks that cannot store or flush: each error goes to the flush that covers it, once, and nothing else is harmed.

use alloc::sync::Arc;

use kernel::{machine, memory::memory};
use mm::{FlushError, PAGE_SIZE, PageError, PageIndex, StoreError, VmObject};

use crate::{
    check::{Needed, Outcome, ensure},
    pages,
};

const PAGES: u64 = 16;
/// The page of the first disk that can never be stored; see the host's part.
const BROKEN: u64 = 5;
/// The first page of the fourth disk that cannot be stored the first time.
const BROKEN_ONCE: u64 = 9;

async fn write_all(object: &Arc<VmObject>, word: u64) -> Outcome {
    for page in 0..PAGES {
        let at = page * PAGE_SIZE as u64;
        object.write(at, &(word + page).to_le_bytes()).await.needed("a page is written")?;
    }
    Ok(())
}

/// What the disk itself has of each page but one.
async fn check(object: &Arc<VmObject>, word: u64, but: Option<u64>) -> Outcome {
    for page in (0..PAGES).filter(|&page| Some(page) != but) {
        let index = PageIndex::new(page);
        object.release(index..index + 1).await;
        let mut bytes = [0; 8];
        object.read(page * PAGE_SIZE as u64, &mut bytes).await.needed("a page is read")?;
        ensure!(u64::from_le_bytes(bytes) == word + page, "page {page} is not what was flushed");
    }
    Ok(())
}

/// A page that cannot be stored the first time: alone its error reaches the flush, with others it is stored alone then.
async fn stored_at_last(object: &Arc<VmObject>) -> Outcome {
    write_all(object, 500).await?;
    let others = PageIndex::new(0)..PageIndex::new(BROKEN_ONCE);
    object.discard(others).await;
    let others = PageIndex::new(BROKEN_ONCE + 1)..PageIndex::new(PAGES);
    object.discard(others).await;
    let broken = StoreError { page: PageIndex::new(BROKEN_ONCE), error: PageError::Io };
    let answer = object.flush().await;
    ensure!(answer == Err(FlushError::Page(broken)), "a page that cannot be stored once: {answer:?}");
    let answer = object.flush().await;
    ensure!(answer.is_ok(), "the flush after it: {answer:?}");
    let mut bytes = [0; 8];
    object.release(PageIndex::new(BROKEN_ONCE)..PageIndex::new(BROKEN_ONCE + 1)).await;
    object.read(BROKEN_ONCE * PAGE_SIZE as u64, &mut bytes).await.needed("it is stored")?;
    ensure!(
        u64::from_le_bytes(bytes) == 500 + BROKEN_ONCE,
        "what was stored at the second try is something else"
    );
    write_all(object, 600).await?;
    let answer = object.flush().await;
    ensure!(answer.is_ok(), "all pages of a request are stored, the one that failed alone: {answer:?}");
    check(object, 600, None).await
}

/// One page of the first disk can never be stored, the flushes of the second fail once, those of the third always, and two
/// pages of the fourth cannot be stored the first time.
pub(crate) async fn write_errors_reach_the_flush_that_covers_them() -> Outcome {
    let object = &pages::disk()?.object;
    write_all(object, 100).await?;
    let broken = StoreError { page: PageIndex::new(BROKEN), error: PageError::Io };
    for _ in 0..2 {
        let answer = object.flush().await;
        ensure!(answer == Err(FlushError::Page(broken)), "a page that cannot be stored: {answer:?}");
    }
    check(object, 100, Some(BROKEN)).await?;
    let mut bytes = [0; 8];
    object.read(BROKEN * PAGE_SIZE as u64, &mut bytes).await.needed("it is still there")?;
    ensure!(u64::from_le_bytes(bytes) == 100 + BROKEN, "the page that cannot be stored is lost");
    let lost = PageIndex::new(BROKEN)..PageIndex::new(BROKEN + 1);
    object.discard(lost).await;
    let answer = object.flush().await;
    ensure!(answer.is_ok(), "nothing is left that cannot be stored: {answer:?}");

    let once = &machine::disk("disk1").needed("a second disk")?.object;
    write_all(once, 200).await?;
    let failed = Err(FlushError::Pager(PageError::Io));
    let answer = once.flush().await;
    ensure!(answer == failed, "the first flush: {answer:?}");
    let dirty = memory().write_back_stats().dirty;
    ensure!(dirty == PAGES as usize, "{dirty} pages are to be stored again");
    let answer = once.flush().await;
    ensure!(answer.is_ok(), "the second flush: {answer:?}");
    check(once, 200, None).await?;

    let never = &machine::disk("disk2").needed("a third disk")?.object;
    write_all(never, 300).await?;
    for _ in 0..3 {
        let answer = never.flush().await;
        ensure!(answer == failed, "a disk that cannot flush: {answer:?}");
    }
    // The others are as good as before.
    write_all(once, 400).await?;
    let answer = once.flush().await;
    ensure!(answer.is_ok(), "the second disk, after the third: {answer:?}");
    check(once, 400, None).await?;

    let disk = machine::disk("disk3").needed("a fourth disk")?;
    stored_at_last(&disk.object).await?;
    let errors = disk.device.stats().errors;
    ensure!(errors == 2, "the device has failed {errors} times");
    Ok(())
}
