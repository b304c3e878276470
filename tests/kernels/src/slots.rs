//! Preemption: time slots, and a heap that is used from the middle of everything.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use executor::{
    WaitReason,
    sync::Notify,
    time::{self, Instant},
};

use kernel::{memory::memory, thread::block_on, window::Window};
use mm::{PAGE_SIZE, PageIndex, Protection, TestPager, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, storm},
    crew::Crew,
    pages, usage,
};

/// Threads that only compute share the CPU about equally, and tasks run on time beside them.
pub(crate) async fn computing_threads_share_the_cpu() -> Outcome {
    const THREADS: usize = 3;
    const TIME: Duration = Duration::from_millis(400);
    let stop = Arc::new(AtomicBool::new(false));
    let counters: Vec<Arc<AtomicU64>> = (0..THREADS).map(|_| Arc::default()).collect();
    let mut crew = Crew::default();
    for counter in &counters {
        let (counter, stop) = (counter.clone(), stop.clone());
        crew.add("computing", move || {
            while !stop.load(Relaxed) {
                counter.fetch_add(1, Relaxed);
            }
        })?;
    }
    // Nothing but the ends of their slots takes the CPU from them.
    time::sleep(TIME).await;
    let counts: Vec<u64> = counters.iter().map(|counter| counter.load(Relaxed)).collect();
    let began = Instant::now();
    let mut turns = 0;
    while began.elapsed() < TIME {
        time::sleep(Duration::from_millis(5)).await;
        turns += 1;
    }
    stop.store(true, Relaxed);
    crew.finish().await?;
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    ensure!(*least > 0, "a computing thread never ran: {counts:?}");
    ensure!(*most * 10 < least * 12, "the threads' shares differ much: {counts:?}");
    ensure!(turns >= 14, "a task that sleeps for 5 ms had {turns} turns in {} ms", TIME.as_millis());
    Ok(())
}

/// A thread that faults all the time, and never waits, has no more than its slots.
pub(crate) async fn faulting_threads_share_the_cpu() -> Outcome {
    const PAGES: usize = 64;
    const TIME: Duration = Duration::from_millis(300);
    let [stop, pause] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let counter = Arc::new(AtomicU64::new(0));
    let mut crew = Crew::default();
    let (counted, over) = (counter.clone(), stop.clone());
    crew.add("computing", move || {
        while !over.load(Relaxed) {
            counted.fetch_add(1, Relaxed);
        }
    })?;
    let object = VmObject::zero(memory(), PAGES as u64);
    let bytes = PAGES * PAGE_SIZE;
    let window = Window::map(object.clone(), bytes, Protection::READ_WRITE);
    let mut window = window.needed("memory cannot be mapped")?;
    let (over, paused) = (stop.clone(), pause.clone());
    crew.add("faulting", move || {
        while !over.load(Relaxed) {
            if paused.load(Relaxed) {
                block_on(time::sleep(TIME / 100));
                continue;
            }
            window.as_mut_slice().iter_mut().step_by(PAGE_SIZE).for_each(|byte| *byte += 1);
            block_on(object.release(PageIndex::new(0)..PageIndex::new(PAGES as u64)));
        }
    })?;
    let progress = async || {
        let before = counter.load(Relaxed);
        time::sleep(TIME).await;
        counter.load(Relaxed) - before
    };
    pause.store(true, Relaxed);
    let alone = progress().await;
    pause.store(false, Relaxed);
    let beside = progress().await;
    stop.store(true, Relaxed);
    let faults = crew.faults();
    crew.finish().await?;
    ensure!(faults > 100, "{faults} faults");
    // Its share is the half.
    ensure!(
        beside * 5 > alone * 2,
        "it counted to {alone} alone, and to {beside} beside a thread that faults"
    );
    Ok(())
}

/// A task that is woken in a thread's poll before the thread is entered does not wait for the end of its time slot.
pub(crate) async fn woken_task_runs_before_the_thread() -> Outcome {
    let (wake, loads) = (Arc::new(Notify::new()), AtomicU64::new(0));
    let [has_run, seen] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let waker = wake.clone();
    // The second load is asked for by the thread's own future, between its wait for the first and the thread.
    let wakes = move |_: PageIndex, _: &mut [u8]| match loads.fetch_add(1, Relaxed) {
        0 => {}
        _ => waker.notify_one(),
    };
    let pager = TestPager::new(memory(), Box::new(wakes));
    let object = VmObject::new(memory(), pager.clone(), 1);
    pager.hold();
    let window = pages::window(&object, 1)?;
    let ran = has_run.clone();
    let task = executor::spawn(async move {
        wake.notified().await;
        ran.store(true, Relaxed);
    });
    let mut crew = Crew::default();
    let noted = seen.clone();
    crew.add("reader", move || {
        if window.read_at(0, &mut [0]).is_ok() {
            noted.store(has_run.load(Relaxed), Relaxed);
        }
    })?;
    crew.all_wait_for(WaitReason::Page).await?;
    drop(object.invalidate(PageIndex::new(0)));
    pager.release_all().await;
    crew.finish().await?;
    task.await.needed("the woken task")?;
    ensure!(pager.loads() == 2, "{} loads", pager.loads());
    ensure!(seen.load(Relaxed), "the thread was entered first");
    Ok(())
}

/// Threads that are preempted anywhere allocate and free things of many sizes, and nobody finds anything
/// changed.
pub(crate) async fn heap_storm() -> Outcome {
    const THREADS: u64 = 24;
    let turns = 400 * storm() as u64;
    let ticks = Arc::new(AtomicBool::new(false));
    let end = ticks.clone();
    // Tasks allocate, too.
    let task = executor::spawn(async move {
        while !end.load(Relaxed) {
            drop(alloc::vec![1_u8; 300]);
            time::sleep(Duration::from_micros(150)).await;
        }
    });
    let outcome = usage::stays_equal(2, |_| async {
        let mut crew = Crew::default();
        for thread in 0..THREADS {
            crew.add("allocating", move || allocate(thread, turns))?;
        }
        crew.finish().await
    });
    let outcome = outcome.await;
    ticks.store(true, Relaxed);
    let _ = task.await;
    outcome
}

/// Keeps up to 16 things, each filled with what only this thread would write.
fn allocate(thread: u64, turns: u64) {
    let mut random = thread << 32 | 1;
    let mut kept: [Option<Box<[u64]>>; 16] = Default::default();
    for turn in 0..turns {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (slot, words) = ((random >> 60) as usize, (random >> 33) % 200 + 1);
        if let Some(old) = kept[slot].take() {
            let first = old[0];
            assert_eq!(first >> 48, thread, "somebody else's memory");
            assert!(old.iter().all(|&word| word == first), "memory of thread {thread} was changed");
        }
        kept[slot] = Some(alloc::vec![thread << 48 | turn; words as usize].into());
        if turn % 64 == 0 {
            let text: String =
                (0..words as u32).map(|number| char::from(b'a' + (number % 26) as u8)).collect();
            assert!(text.starts_with('a'), "a string was changed");
        }
    }
}
