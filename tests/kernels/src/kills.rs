//! Threads that are killed.

use alloc::{sync::Arc, vec::Vec};
use core::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{WaitReason, time};
use futures_util::future::{Either, select};
use kernel::thread::{self, EndReason};
use mm::{PAGE_SIZE, PageIndex, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, expected_cpus, storm},
    crew::Crew,
    pages::{self, SlowLoads, Tally},
    usage, wild,
};

const THREADS: usize = 32;

/// Threads are killed while they wait for a page: those that own nothing end, those that own something get a
/// value and give it back, those that were not killed read what they should. No frame and no byte is lost.
pub(crate) async fn killed_threads_leak_nothing() -> Outcome {
    usage::stays_equal(4 * storm(), |_| async {
        let (pager, object) = pages::test_object(4);
        pager.hold();
        let window = pages::window(&object, 4)?;
        let [spared, killed] = [(); 2].map(|()| Arc::new(Tally::default()));
        let owned = Arc::new(());
        let [mut owners, mut slices, mut others] = [(); 3].map(|()| Crew::default());
        for thread in 0..THREADS {
            let page = thread % 4;
            let (shown, noted, mine) = (window.clone(), killed.clone(), owned.clone());
            owners.add("owner", move || {
                let heap: Vec<u64> = (0..1000).collect();
                pages::read(&shown, page, &noted);
                assert!(heap.iter().copied().eq(0..1000), "what the thread owns was changed");
                let _ = &mine;
            })?;
            let address = window.start().as_u64() + (page * PAGE_SIZE) as u64;
            slices.add("slice reader", move || wild::touch(address))?;
            let (shown, noted) = (window.clone(), spared.clone());
            others.add("spared", move || pages::read(&shown, page, &noted))?;
        }
        for crew in [&owners, &slices, &others] {
            crew.all_wait_for(WaitReason::Page).await?;
        }
        owners.kill();
        slices.kill();
        owners.finish().await?;
        ensure!(killed.all() == [0, 0, 0, 0, THREADS], "killed threads that own something: {killed}");
        ensure!(Arc::strong_count(&owned) == 1, "what killed threads owned is not given back");
        for end in slices.join().await? {
            ensure!(end == EndReason::Killed, "a killed thread that owns nothing was {end}");
        }
        ensure!(others.waiting_for(WaitReason::Page) == THREADS, "a thread that was not killed went on");
        ensure!(pager.held() == 4, "{} loads are held back, not 4", pager.held());
        pager.release_all().await;
        others.finish().await?;
        ensure!(spared.all() == [THREADS, 0, 0, 0, 0], "the others read: {spared}");
        ensure!(pager.loads() == 4, "{} loads for 4 pages", pager.loads());
        Ok(())
    })
    .await
}

/// A thread that is killed before it was ever entered never runs, and what it was to run is dropped. Where there are
/// other CPUs, one of them may have entered it before: then it runs to its end.
pub(crate) async fn killed_before_the_first_instruction() -> Outcome {
    let killed = Arc::new(AtomicUsize::new(0));
    let counted = killed.clone();
    usage::stays_equal(4 * storm(), move |_| kill_at_once(counted.clone())).await?;
    ensure!(killed.load(Relaxed) > 0, "no thread was killed before it ran");
    Ok(())
}

async fn kill_at_once(killed: Arc<AtomicUsize>) -> Outcome {
    let ran = Arc::new(AtomicUsize::new(0));
    let mut finished = 0;
    for _ in 0..THREADS {
        let mine = ran.clone();
        let run = move || {
            mine.fetch_add(1, Relaxed);
        };
        let handle = thread::spawn("never", run).needed("a thread could not be started")?;
        handle.thread().kill();
        match handle.await {
            EndReason::Killed => drop(killed.fetch_add(1, Relaxed)),
            EndReason::Finished(0) if expected_cpus() > 1 => finished += 1,
            end => ensure!(false, "a thread that was killed at once was {end}"),
        }
    }
    let ran_all = ran.load(Relaxed);
    ensure!(ran_all == finished, "{ran_all} threads ran, {finished} of them to their end");
    ensure!(Arc::strong_count(&ran) == 1, "what they were to run is not dropped");
    Ok(())
}

/// Drops all pages of an object, again and again.
async fn keep_dropping(object: &VmObject) -> Infallible {
    loop {
        drop(object.release(PageIndex::new(0)..PageIndex::new(object.pages())));
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads that found something else.
static WRONG: AtomicUsize = AtomicUsize::new(0);

/// Threads read pages that come slowly and are dropped all the time, and are killed one after the other at any moment of
/// that: each ends as killed, others read what they should, no load is left and nothing is lost.
pub(crate) async fn kill_storm() -> Outcome {
    const PAGES: usize = 6;
    usage::stays_equal(2, |_| async move {
        let (pager, object) = pages::test_object(PAGES as u64);
        let slow = SlowLoads::of(&pager);
        let window = pages::window(&object, PAGES)?;
        let start = window.start().as_u64();
        let spared = Arc::new(Tally::default());
        let mut others = Crew::default();
        let rounds = 30 * storm();
        for round in 0..rounds {
            let mut victims = Crew::default();
            for thread in 0..THREADS {
                let mut page = thread;
                // It owns nothing.
                victims.add("victim", move || {
                    loop {
                        page = (page + 1) % PAGES;
                        let at = (page * PAGE_SIZE) as u64;
                        WRONG.fetch_add(usize::from(wild::read(start + at) != at), Relaxed);
                    }
                })?;
            }
            let (shown, noted) = (window.clone(), spared.clone());
            others.add("spared", move || pages::read(&shown, round % PAGES, &noted))?;
            for victim in 0..THREADS {
                drop(object.invalidate(PageIndex::new((round + victim) as u64 % PAGES as u64)));
                match victim % 4 {
                    0 => time::sleep(Duration::from_micros(50)).await,
                    1 => executor::yield_now().await,
                    _ => {}
                }
                victims.kill_one(victim * 5 % THREADS);
            }
            // One that was killed while it ran ends in its next fault, so pages must not stay mapped.
            let Either::Left((ends, _)) = select(pin!(victims.join()), pin!(keep_dropping(&object))).await;
            for end in ends? {
                ensure!(end == EndReason::Killed, "a thread that was killed was {end}");
            }
        }
        others.finish().await?;
        slow.stop().await?;
        ensure!(spared.all() == [rounds, 0, 0, 0, 0], "those that were not killed read: {spared}");
        ensure!(pager.held() == 0, "{} loads are held back by nobody", pager.held());
        let (transfers, wrong) = (object.stats().transfers, WRONG.load(Relaxed));
        ensure!(transfers == 0, "{transfers} loads are under way that nobody serves");
        ensure!(wrong == 0, "{wrong} reads found something else");
        Ok(())
    })
    .await
}
