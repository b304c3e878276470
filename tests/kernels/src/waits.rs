//! Kernel threads wait for what tasks wait for.

use alloc::{sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{
    WaitReason,
    sync::{Mutex, Notify, Semaphore, mpsc},
    time::{self, Instant},
};
use kernel::thread::{Killed, block_on, call, killed, spawn, try_block_on};

use crate::{
    check::{Needed, Outcome, ensure, in_time, storm},
    crew::Crew,
    usage,
};

const THREADS: usize = 8;
const TURNS: usize = 200;

/// Threads and tasks share a mutex, a semaphore and a channel, sleep, and join each other.
pub(crate) async fn threads_wait_for_what_tasks_wait_for() -> Outcome {
    usage::stays_equal(2 * storm(), |_| async {
        mutex().await?;
        channel().await?;
        sleep().await?;
        join().await
    })
    .await
}

/// A sum that would lose additions without the mutex: whoever holds it lets others run.
async fn mutex() -> Outcome {
    let sum = Arc::new(Mutex::new(0_usize));
    let places = Arc::new(Semaphore::new(2));
    let mut crew = Crew::default();
    for _ in 0..THREADS {
        let (sum, places) = (sum.clone(), places.clone());
        crew.add("adder", move || {
            for _ in 0..TURNS {
                let place = block_on(places.acquire());
                let mut sum = block_on(sum.lock());
                let before = *sum;
                call::yield_now();
                *sum = before + 1;
                drop((sum, place));
            }
        })?;
    }
    let shared = sum.clone();
    let task = executor::spawn(async move {
        for _ in 0..TURNS {
            let mut sum = shared.lock().await;
            let before = *sum;
            executor::yield_now().await;
            *sum = before + 1;
        }
    });
    crew.finish().await?;
    in_time("the task has added", task).await?.needed("the adding task")?;
    let sum = *sum.lock().await;
    ensure!(sum == (THREADS + 1) * TURNS, "{sum} additions, not {}", (THREADS + 1) * TURNS);
    Ok(())
}

/// A thread's sends wait for the task that receives, and arrive in order.
async fn channel() -> Outcome {
    let (sender, mut receiver) = mpsc::channel(3);
    let mut crew = Crew::default();
    crew.add("sender", move || {
        for number in 0..TURNS {
            assert!(block_on(sender.send(number)).is_ok(), "the receiver is gone");
        }
    })?;
    let mut received = Vec::new();
    while let Some(number) = in_time("the sender sends", receiver.recv()).await? {
        received.push(number);
    }
    ensure!(
        received.iter().copied().eq(0..TURNS),
        "received {} numbers, or in another order",
        received.len()
    );
    crew.finish().await
}

/// Threads never wake too early, and all of them sleep at the same time.
async fn sleep() -> Outcome {
    /// Long enough for all of them to fall asleep, also on a host with other work.
    const TIME: Duration = Duration::from_secs(1);
    let early = Arc::new(AtomicUsize::new(0));
    let mut crew = Crew::default();
    let began = Instant::now();
    for _ in 0..THREADS {
        let early = early.clone();
        crew.add("sleeper", move || {
            let began = Instant::now();
            block_on(time::sleep(TIME));
            early.fetch_add(usize::from(began.elapsed() < TIME), Relaxed);
        })?;
    }
    crew.all_wait_for(WaitReason::Timer).await?;
    crew.finish().await?;
    ensure!(early.load(Relaxed) == 0, "{} threads woke too early", early.load(Relaxed));
    let took = began.elapsed();
    ensure!(
        took < TIME * THREADS as u32,
        "{THREADS} threads slept one after the other: {} ms",
        took.as_millis()
    );
    Ok(())
}

/// A thread joins a task and a thread.
async fn join() -> Outcome {
    let mut crew = Crew::default();
    crew.add("joiner", || {
        let task = executor::spawn(async {
            time::sleep(Duration::from_millis(5)).await;
            42
        });
        assert_eq!(block_on(task), Ok(42));
        if let Ok(thread) = spawn("joined", || block_on(time::sleep(Duration::from_millis(5)))) {
            assert_eq!(block_on(thread), kernel::thread::EndReason::Finished(0));
        }
    })?;
    crew.finish().await
}

/// A thread that is killed while it waits in `try_block_on` gets that as a value; one in `block_on` waits on.
pub(crate) async fn kill_ends_a_wait() -> Outcome {
    usage::stays_equal(4 * storm(), |_| async {
        let (open, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gave_up = Arc::new(AtomicUsize::new(0));
        let [mut ends, mut stays, mut loops] = [(); 3].map(|()| Crew::default());
        for _ in 0..THREADS {
            let (never, gave_up, owned) = (never.clone(), gave_up.clone(), alloc::vec![7_u8; 3000]);
            ends.add("gives up", move || {
                let killed = try_block_on(never.notified()) == Err(Killed);
                gave_up.fetch_add(usize::from(killed), Relaxed);
                assert!(owned.iter().all(|&byte| byte == 7), "what the thread owns was changed");
            })?;
            let open = open.clone();
            stays.add("stays", move || {
                block_on(open.notified());
                assert!(killed(), "the kill is forgotten");
            })?;
            loops.add("computes", || while !killed() {})?;
        }
        ends.all_wait_for(WaitReason::Notify).await?;
        stays.all_wait_for(WaitReason::Notify).await?;
        for crew in [&ends, &stays, &loops] {
            crew.kill();
        }
        ends.finish().await?;
        loops.finish().await?;
        let gave_up = gave_up.load(Relaxed);
        ensure!(gave_up == THREADS, "{gave_up} waits of {THREADS} were ended by the kill");
        stays.all_wait_for(WaitReason::Notify).await?;
        open.notify_waiters();
        stays.finish().await
    })
    .await
}
