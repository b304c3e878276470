//! Several CPUs: stealing, pinned tasks, wakes from one to another, grace periods.
#![cfg(not(loom))]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;

use executor::host::{block_on, block_on_cpus};
use executor::sync::{AtomicWaker, oneshot};
use executor::time::{Duration, Instant, sleep};
use executor::{
    Builder, CpuLocal, JoinHandle, SpawnError, cpus, current_cpu, grace_period, live_tasks, spawn,
    spawn_pinned, tasks, yield_now,
};

const CPUS: u32 = 4;

/// Spins inside a poll, as a task does that hogs its CPU.
fn hog_until(flag: &AtomicBool) {
    hog_while(|| !flag.load(Ordering::SeqCst));
}

fn hog_while(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while condition() {
        std::thread::yield_now();
        assert!(start.elapsed() < Duration::from_secs(20), "nobody takes what waits behind a poll");
    }
}

/// A CPU that is not this one.
fn another_cpu() -> u32 {
    cpus().map(CpuLocal::id).find(|&id| id != current_cpu()).unwrap()
}

#[test]
fn tasks_behind_a_hog_are_stolen() {
    block_on_cpus(CPUS, async {
        let released = Arc::new(AtomicBool::new(false));
        let (waits, releases) = (Arc::clone(&released), Arc::clone(&released));
        // The hog waits in its poll for what stands behind it in the same queue.
        let hog = spawn(async move { hog_until(&waits) });
        let behind = spawn(async move { releases.store(true, Ordering::SeqCst) });
        hog.await.unwrap();
        behind.await.unwrap();
    });
}

#[test]
fn of_what_is_dealt_behind_a_hog_only_pinned_tasks_stay() {
    block_on_cpus(CPUS, async {
        let here = current_cpu();
        let moved = Arc::new(AtomicU32::new(0));
        let stayed = Arc::new(AtomicBool::new(false));
        let (sees, seen) = (Arc::clone(&moved), Arc::clone(&stayed));
        // They are all ready before the hog's poll begins: then the others lie in the hand, and none in the queue.
        let hog = spawn_pinned(async move {
            hog_while(|| sees.load(Ordering::SeqCst) < 2);
            assert!(!seen.load(Ordering::SeqCst), "a pinned task was taken");
        });
        let stays = Arc::clone(&stayed);
        let pinned = spawn_pinned(async move {
            stays.store(true, Ordering::SeqCst);
            current_cpu()
        });
        let others = [Arc::clone(&moved), moved].map(|moved| {
            spawn(async move {
                moved.fetch_add(1, Ordering::SeqCst);
                current_cpu()
            })
        });
        hog.await.unwrap();
        assert_eq!(pinned.await, Ok(here));
        for other in others {
            assert_ne!(other.await, Ok(here));
        }
    });
}

/// Lets the other CPUs fall asleep.
async fn let_others_sleep() {
    sleep(Duration::from_millis(5)).await;
}

#[test]
fn a_task_that_a_long_poll_wakes_is_taken_by_a_cpu_that_sleeps() {
    block_on_cpus(CPUS, async {
        for _ in 0..5 {
            let released = Arc::new(AtomicBool::new(false));
            let (waits, releases) = (Arc::clone(&released), Arc::clone(&released));
            let (wake, woken) = oneshot::channel();
            let waiting = spawn(async move {
                woken.await.unwrap();
                releases.store(true, Ordering::SeqCst);
            });
            let_others_sleep().await;
            // It wakes the other one only after its poll has begun, and waits for it.
            let hog = spawn(async move {
                wake.send(()).unwrap();
                hog_until(&waits);
            });
            hog.await.unwrap();
            waiting.await.unwrap();
        }
    });
}

#[test]
fn tasks_that_a_long_poll_spawns_are_taken_by_all_cpus() {
    block_on_cpus(CPUS, async {
        for _ in 0..5 {
            let_others_sleep().await;
            let (running, all) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
            let hog = spawn(async move {
                for _ in 1..CPUS {
                    let (running, all) = (Arc::clone(&running), Arc::clone(&all));
                    drop(spawn(async move {
                        // The last one releases the others, which are on CPUs of their own.
                        if running.fetch_add(1, Ordering::SeqCst) + 2 == CPUS {
                            all.store(true, Ordering::SeqCst);
                        }
                        hog_until(&all);
                    }));
                }
                hog_until(&all);
            });
            hog.await.unwrap();
        }
    });
}

#[test]
fn all_tasks_are_done_once_wherever_they_run() {
    static POLLS: AtomicUsize = AtomicUsize::new(0);
    const TASKS: usize = 2000;
    block_on_cpus(CPUS, async {
        let handles: Vec<JoinHandle<usize>> = (0..TASKS)
            .map(|number| {
                spawn(async move {
                    for _ in 0..20 {
                        POLLS.fetch_add(1, Ordering::Relaxed);
                        yield_now().await;
                    }
                    number
                })
            })
            .collect();
        for (number, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.await, Ok(number));
        }
        assert_eq!(live_tasks(), 0);
    });
    assert_eq!(POLLS.load(Ordering::Relaxed), TASKS * 20);
}

#[test]
fn pinned_tasks_stay() {
    block_on_cpus(CPUS, async {
        let there = another_cpu();
        let stay = |cpu: u32| async move {
            for _ in 0..2000 {
                assert_eq!(current_cpu(), cpu);
                yield_now().await;
            }
        };
        let here = current_cpu();
        let pinned: Vec<_> = (0..8).map(|_| spawn_pinned(stay(here))).collect();
        let sent: Vec<_> = (0..8).map(|_| Builder::new().cpu(there).spawn(stay(there))).collect();
        assert!(sent[0].task().is_pinned() && sent[0].task().cpu() == there);
        for handle in pinned.into_iter().chain(sent) {
            handle.await.unwrap();
        }
    });
}

#[test]
fn a_cpu_that_is_not_there_is_an_error() {
    let nowhere = Builder::new().cpu(executor::cpu::MAX_CPUS + 7).try_spawn(async {});
    assert_eq!(nowhere.err(), Some(SpawnError::NoSuchCpu));
    assert_eq!(live_tasks(), 0);
}

#[test]
fn no_wake_from_one_cpu_to_another_is_lost() {
    const ROUNDS: usize = 50_000;
    struct Side {
        ball: AtomicBool,
        waker: AtomicWaker,
    }
    async fn play(own: Arc<Side>, other: Arc<Side>) {
        for _ in 0..ROUNDS {
            poll_fn(|context| {
                own.waker.register(context.waker());
                if own.ball.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            other.ball.store(true, Ordering::Release);
            other.waker.wake();
        }
    }
    block_on_cpus(2, async {
        let there = another_cpu();
        let [a, b] = [true, false]
            .map(|ball| Arc::new(Side { ball: AtomicBool::new(ball), waker: AtomicWaker::new() }));
        let first = spawn_pinned(play(Arc::clone(&a), Arc::clone(&b)));
        let second = Builder::new().cpu(there).spawn(play(b, a));
        first.await.unwrap();
        second.await.unwrap();
    });
}

#[test]
fn tasks_of_all_cpus_are_listed() {
    block_on_cpus(2, async {
        let there = another_cpu();
        let far = Builder::new().name("far").cpu(there).spawn(sleep(Duration::from_secs(3600)));
        let near = spawn_pinned(sleep(Duration::from_secs(3600)));
        assert_eq!(tasks().count(), 2);
        assert!(tasks().any(|task| task.name() == "far" && task.cpu() == there));
        far.abort();
        near.abort();
        assert!(far.await.is_err() && near.await.is_err());
        assert_eq!(live_tasks(), 0);
    });
}

#[test]
fn a_grace_period_outlasts_polls_that_had_begun() {
    block_on_cpus(CPUS, async {
        for _ in 0..20 {
            let (reading, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let (begins, ends) = (Arc::clone(&reading), Arc::clone(&done));
            let there = another_cpu();
            let reader = Builder::new().cpu(there).spawn(async move {
                begins.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                ends.store(true, Ordering::SeqCst);
            });
            hog_until(&reading);
            grace_period().await;
            assert!(done.load(Ordering::SeqCst), "a poll that had begun was not waited for");
            reader.await.unwrap();
        }
    });
}

#[test]
fn a_grace_period_waits_for_no_idle_cpu() {
    block_on_cpus(CPUS, async {
        for _ in 0..1000 {
            grace_period().await;
        }
    });
}

#[test]
fn grace_periods_end_while_everybody_asks() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    block_on_cpus(CPUS, async {
        let handles: Vec<_> = (0..64)
            .map(|_| {
                spawn(async {
                    for _ in 0..50 {
                        grace_period().await;
                        yield_now().await;
                    }
                    ENDED.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        for handle in handles {
            handle.await.unwrap();
        }
    });
    assert_eq!(ENDED.load(Ordering::Relaxed), 64);
}

#[test]
fn a_thread_without_a_run_loop_holds_up_no_grace_period() {
    // This thread is a CPU of its own, outside of any loop once this is over.
    block_on(async {});
    block_on_cpus(2, grace_period());
}

#[test]
fn no_cpu_is_listed_any_more_when_its_machine_is_left() {
    for round in 0..200 {
        block_on_cpus(CPUS, async move {
            assert_eq!(cpus().count(), CPUS as usize);
            if round == 0 {
                // What is not done is not run any more, and does not hold its CPU back.
                drop(Builder::new().cpu(another_cpu()).spawn(std::future::pending::<()>()));
            }
        });
        assert_eq!(cpus().map(CpuLocal::id).collect::<Vec<_>>(), [current_cpu()], "after round {round}");
    }
}
