//! Rouses and watches: which CPU takes what waits behind a poll, and when.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::host::block_on_cpus;
use executor::sync::oneshot;
use executor::time::{Duration, Instant, sleep};
use executor::{Builder, CpuLocal, cpus, current_cpu, spawn};

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
