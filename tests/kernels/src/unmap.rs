//! Mappings that go while their pages are on the way.

use alloc::sync::Arc;
use core::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{WaitReason, time};
use kernel::{memory::kernel_space, thread::EndReason};
use mm::{Denial, PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, in_time, storm},
    crew::Crew,
    pages::{self, SlowLoads, Tally},
    usage, wild,
};

const THREADS: usize = 16;

/// Threads that wait for a page of a mapping that goes find nothing mapped; the load itself goes on, and its
/// page is there for the next mapping.
pub(crate) async fn unmap_during_a_load() -> Outcome {
    usage::stays_equal(3, |_| async {
        let (pager, object) = pages::test_object(1);
        pager.hold();
        let start = map(&object)?;
        let mut crew = Crew::default();
        for _ in 0..THREADS {
            crew.add("reader", move || wild::touch(start.as_u64()))?;
        }
        crew.all_wait_for(WaitReason::Page).await?;
        // Does not wait for the load.
        in_time("the mapping is gone", unmap(start, 1)).await??;
        ensure!(pager.held() == 1, "the load went with the mapping");
        let stats = object.stats();
        ensure!(stats.mappings == 0 && stats.transfers == 1, "after the unmapping the object has {stats:?}");
        pager.release_all().await;
        for end in crew.join().await? {
            ensure!(
                matches!(end, EndReason::Denied { why: Denial::NoMapping, address, .. } if address == start.as_u64()),
                "nothing is mapped any more, and a thread was {end}"
            );
        }
        let window = pages::window(&object, 1)?;
        let tally = Arc::new(Tally::default());
        let mut crew = Crew::default();
        let noted = tally.clone();
        crew.add("reader", move || pages::read(&window, 0, &noted))?;
        crew.finish().await?;
        ensure!(tally.right() == 1 && pager.loads() == 1, "mapped again: {tally}, {} loads", pager.loads());
        Ok(())
    })
    .await
}

fn map(object: &Arc<VmObject>) -> Result<VirtAddr, crate::check::Failure> {
    let pages = object.pages();
    let start = kernel_space().map(object, PageIndex::new(0), pages, Protection::READ, Placement::Anywhere);
    start.needed("the object cannot be mapped")
}

async fn unmap(start: VirtAddr, pages: usize) -> Outcome {
    let end = VirtAddr::truncated(start.as_u64() + (pages * PAGE_SIZE) as u64);
    kernel_space().unmap(start..end).await.needed("the object cannot be unmapped")
}

/// Reads that found something else.
static WRONG: AtomicUsize = AtomicUsize::new(0);

/// Pages are mapped, touched, released and unmapped at once from several threads and tasks, with loads that
/// take their time: whoever reads something reads the right thing.
pub(crate) async fn unmap_storm() -> Outcome {
    const PAGES: usize = 8;
    let rounds = 60 * storm();
    usage::stays_equal(2, |_| async move {
        let (pager, object) = pages::test_object(PAGES as u64);
        let slow = SlowLoads::of(&pager);
        for round in 0..rounds {
            let start = map(&object)?;
            let mut crew = Crew::default();
            for thread in 0..THREADS {
                let at = (thread % PAGES * PAGE_SIZE) as u64;
                // The thread may end in the middle, so it owns nothing.
                crew.add("reader", move || {
                    if wild::read(start.as_u64() + at) != at {
                        WRONG.fetch_add(1, Relaxed);
                    }
                })?;
            }
            if round % 3 == 0 {
                executor::yield_now().await;
            }
            drop(object.invalidate(PageIndex::new((round % PAGES) as u64)));
            if round % 2 == 0 {
                time::sleep(Duration::from_micros(100)).await;
            }
            in_time("the mapping is gone", unmap(start, PAGES)).await??;
            for end in crew.join().await? {
                let expected =
                    matches!(end, EndReason::Finished(0) | EndReason::Denied { why: Denial::NoMapping, .. });
                ensure!(expected, "in the storm a thread was {end}");
            }
        }
        slow.stop().await?;
        let wrong = WRONG.load(Relaxed);
        ensure!(wrong == 0, "{wrong} reads found something else");
        Ok(())
    })
    .await
}
