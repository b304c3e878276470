//! Rouses and watches: which CPU takes what waits behind a poll, and when.
#![cfg(not(loom))]

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use executor::cpu::counters;
use executor::host::block_on_cpus;
use executor::sync::{Notify, oneshot};
use executor::time::{Duration, Instant, sleep};
use executor::{Builder, Class, CpuLocal, cpus, current_cpu, spawn, spawn_pinned};
use futures_util::future::{Either, select};

/// Spins inside a poll, as a task does that hogs its CPU.
fn hog_until(flag: &AtomicBool) {
    let start = Instant::now();
    while !flag.load(Ordering::SeqCst) {
        std::thread::yield_now();
        assert!(start.elapsed() < Duration::from_secs(10), "nobody takes what waits behind a poll");
    }
}

/// Lets the other CPUs fall asleep.
async fn let_others_sleep() {
    sleep(Duration::from_millis(5)).await;
}

/// The other CPUs, in the order in which they are roused.
fn others() -> Vec<u32> {
    cpus().map(CpuLocal::id).filter(|&id| id != current_cpu()).collect()
}

#[test]
fn a_cpu_that_is_roused_and_gets_work_of_its_own_rouses_the_next() {
    block_on_cpus(3, async {
        for _ in 0..20 {
            let released = Arc::new(AtomicBool::new(false));
            let [waits, busy, releases] = [(); 3].map(|()| Arc::clone(&released));
            let (wake, woken) = oneshot::channel();
            let waiting = spawn(async move {
                woken.await.unwrap();
                releases.store(true, Ordering::SeqCst);
            });
            let_others_sleep().await;
            let roused = others()[0];
            let hog = spawn(async move {
                // The CPU that is roused first gets this, before it has left idle.
                drop(Builder::new().cpu(roused).spawn(async move { hog_until(&busy) }));
                wake.send(()).unwrap();
                hog_until(&waits);
            });
            hog.await.unwrap();
            waiting.await.unwrap();
        }
    });
}

#[test]
fn a_watcher_that_wakes_early_leaves_what_was_woken_where_it_is() {
    const WATCH: Duration = Duration::from_millis(1);
    block_on_cpus(2, async {
        let mut seen = 0;
        while seen < 5 {
            let released = Arc::new(AtomicBool::new(false));
            let (waits, releases) = (Arc::clone(&released), Arc::clone(&released));
            let taken_at = Arc::new(Mutex::new(None));
            let takes = Arc::clone(&taken_at);
            let (wake, woken) = oneshot::channel();
            let there = others()[0];
            let here = current_cpu();
            let signal = Arc::new(Notify::new());
            let wakes = Arc::clone(&signal);
            let hog = Builder::new().cpu(there).spawn(async move {
                let waiting = spawn(async move {
                    woken.await.unwrap();
                    *takes.lock().unwrap() = Some(Instant::now());
                    releases.store(true, Ordering::SeqCst);
                });
                sleep(WATCH * 5).await;
                // On a slow machine even that poll may have been taken for a long one.
                let is_here = waiting.task().cpu() == there;
                let woken_at = Instant::now();
                wake.send(()).unwrap();
                // The other CPU is woken again and again, and has nothing to do then.
                for _ in 0..5 {
                    std::thread::sleep(WATCH / 10);
                    wakes.notify_one();
                }
                hog_until(&waits);
                waiting.await.unwrap();
                is_here.then_some(woken_at)
            });
            let mut hog = pin!(hog);
            let woken_at = loop {
                match select(hog.as_mut(), pin!(signal.notified())).await {
                    Either::Left((woken_at, _)) => break woken_at.unwrap(),
                    Either::Right(_) => assert_eq!(current_cpu(), here),
                }
            };
            if let Some(woken_at) = woken_at {
                let taken_after = taken_at.lock().unwrap().unwrap() - woken_at;
                assert!(taken_after >= WATCH, "it was taken after {taken_after:?}");
                seen += 1;
            }
        }
    });
}

/// How often a CPU is kicked while another one takes a task that was spawned in its poll beside one that is pinned.
fn kicks_of_a_theft(class: Class) -> u64 {
    block_on_cpus(2, async move {
        let_others_sleep().await;
        let poll = Builder::new().class(class).cpu(current_cpu()).spawn(async {
            let taken = Arc::new(AtomicBool::new(false));
            let takes = Arc::clone(&taken);
            let before = counters().kicks;
            drop(spawn_pinned(async {}));
            drop(spawn(async move { takes.store(true, Ordering::SeqCst) }));
            hog_until(&taken);
            counters().kicks - before
        });
        poll.await.unwrap()
    })
}

#[test]
fn a_thread_is_interrupted_for_what_a_theft_has_left() {
    // It may have been interrupted by the wake itself while the thief had what was woken.
    assert_ne!(kicks_of_a_theft(Class::Thread), 0);
}

#[test]
fn a_task_is_not_interrupted_for_what_a_theft_has_left() {
    assert_eq!(kicks_of_a_theft(Class::Task), 0);
}
