//! Barrier, read-write lock, join set and interval.
#![cfg(not(loom))]

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::sync::{Barrier, RwLock};
use executor::time::{Duration, MissedTickBehavior, interval, interval_at, now, sleep};
use executor::{JoinError, JoinSet, WaitReason, spawn};

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_barrier_lets_all_go_with_one_leader_and_starts_over() {
    let barrier = Arc::new(Barrier::new(40));
    let leaders = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..40)
        .map(|_| {
            let (barrier, leaders) = (Arc::clone(&barrier), Arc::clone(&leaders));
            spawn(async move {
                for round in 0..3 {
                    assert!(leaders.load(Ordering::Relaxed) >= round);
                    if barrier.wait().await.is_leader() {
                        leaders.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    run_until_idle();
    assert!(handles.iter().all(|handle| handle.is_finished()));
    assert_eq!(leaders.load(Ordering::Relaxed), 3);
}

#[test]
fn who_gives_up_at_a_barrier_does_not_count() {
    let barrier = Barrier::new(2);
    let mut first = Box::pin(barrier.wait());
    assert!(poll(&mut first).is_pending());
    drop(first);
    let mut second = Box::pin(barrier.wait());
    assert!(poll(&mut second).is_pending());
    let mut third = Box::pin(barrier.wait());
    assert!(matches!(poll(&mut third), Poll::Ready(result) if result.is_leader()));
    assert!(matches!(poll(&mut second), Poll::Ready(result) if !result.is_leader()));
    assert!(matches!(poll(&mut Box::pin(Barrier::new(0).wait())), Poll::Ready(_)));
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = RwLock::new(1);
    let (first, second) = (lock.try_read().unwrap(), lock.try_read().unwrap());
    assert!(lock.try_write().is_err());
    let mut writer = Box::pin(lock.write());
    assert!(poll(&mut writer).is_pending());
    assert!(lock.try_read().is_err(), "readers do not overtake a waiting writer");
    let mut reader = Box::pin(lock.read());
    assert!(poll(&mut reader).is_pending());
    drop((first, second));
    assert!(poll(&mut reader).is_pending());
    let Poll::Ready(mut guard) = poll(&mut writer) else { panic!("the writer is next") };
    *guard = 2;
    let guard = guard.downgrade();
    assert!(matches!(poll(&mut reader), Poll::Ready(value) if *value == 2));
    assert!(lock.try_write().is_err());
    drop(guard);
    drop(reader);
    assert!(lock.try_write().is_ok());
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    let lock = RwLock::new(());
    let reading = lock.try_read().unwrap();
    let mut writer = Box::pin(lock.write());
    let mut reader = Box::pin(lock.read());
    assert!(poll(&mut writer).is_pending());
    assert!(poll(&mut reader).is_pending());
    drop(writer);
    assert!(poll(&mut reader).is_ready());
    drop(reading);
}

#[test]
fn a_join_set_gives_results_in_the_order_in_which_tasks_end() {
    simulate_time();
    let mut set = JoinSet::new();
    for millis in [30, 10, 20] {
        set.spawn(async move {
            sleep(Duration::from_millis(millis)).await;
            millis
        });
    }
    assert!(set.try_join_next().is_none());
    let order = block_on(async {
        let mut order = Vec::new();
        while let Some(result) = set.join_next().await {
            order.push(result.unwrap());
        }
        order
    });
    assert_eq!(order, [10, 20, 30]);
    assert!(set.is_empty());
}

#[test]
fn a_join_set_takes_new_tasks_in_between() {
    let mut set = JoinSet::new();
    let mut sum = 0;
    for i in 0..10 {
        set.spawn(async move { i });
    }
    block_on(async {
        for i in 10..1_000 {
            sum += set.join_next().await.unwrap().unwrap();
            set.spawn(async move { i });
        }
        while let Some(result) = set.join_next().await {
            sum += result.unwrap();
        }
    });
    assert_eq!(sum, 999 * 1_000 / 2);
}

#[test]
fn members_of_a_join_set_are_aborted_one_by_one_or_together() {
    let mut set = JoinSet::new();
    let abort = set.spawn(pending::<()>());
    set.spawn(pending());
    let joiner = spawn(async move {
        let first = set.join_next().await;
        set.shutdown().await;
        (first, set.len())
    });
    run_until_idle();
    assert_eq!(joiner.task().wait().unwrap().0, WaitReason::Join);
    abort.abort();
    assert_eq!(block_on(joiner), Ok((Some(Err(JoinError::Aborted)), 0)));
}

#[test]
fn a_join_set_that_is_dropped_aborts_and_one_that_detaches_does_not() {
    let value = Arc::new(());
    let task = |value: &Arc<()>| {
        let value = Arc::clone(value);
        async move {
            let _value = value;
            pending::<()>().await;
        }
    };
    let mut set = JoinSet::new();
    set.spawn(task(&value));
    drop(set);
    run_until_idle();
    assert_eq!(Arc::strong_count(&value), 1);
    let mut set = JoinSet::new();
    let abort = set.spawn(task(&value));
    set.detach_all();
    assert!(set.is_empty());
    drop(set);
    run_until_idle();
    assert_eq!(Arc::strong_count(&value), 2);
    abort.abort();
    run_until_idle();
    assert_eq!(Arc::strong_count(&value), 1);
}

fn ticks(behavior: MissedTickBehavior) -> Vec<(u128, u128)> {
    simulate_time();
    block_on(async {
        let mut ticks = Vec::new();
        let mut interval = interval(Duration::from_millis(10));
        interval.set_missed_tick_behavior(behavior);
        for i in 0..6 {
            let due = interval.tick().await;
            let millis = |at: executor::time::Instant| u128::from(at.as_nanos() / 1_000_000);
            ticks.push((millis(due), millis(now())));
            if i == 1 {
                sleep(Duration::from_millis(25)).await;
            }
        }
        ticks
    })
}

#[test]
fn missed_ticks_come_in_a_burst() {
    let expected = [(0, 0), (10, 10), (20, 35), (30, 35), (40, 40), (50, 50)];
    assert_eq!(ticks(MissedTickBehavior::Burst), expected);
}

#[test]
fn missed_ticks_delay_the_later_ones() {
    let expected = [(0, 0), (10, 10), (20, 35), (45, 45), (55, 55), (65, 65)];
    assert_eq!(ticks(MissedTickBehavior::Delay), expected);
}

#[test]
fn missed_ticks_are_skipped() {
    let expected = [(0, 0), (10, 10), (20, 35), (40, 40), (50, 50), (60, 60)];
    assert_eq!(ticks(MissedTickBehavior::Skip), expected);
}

#[test]
fn an_interval_starts_when_told_and_can_be_set_anew() {
    simulate_time();
    block_on(async {
        let mut interval = interval_at(now() + Duration::from_millis(3), Duration::from_millis(10));
        assert_eq!(interval.tick().await.as_nanos(), 3_000_000);
        interval.reset();
        assert_eq!(interval.tick().await.as_nanos(), 13_000_000);
        interval.reset_immediately();
        assert_eq!(interval.tick().await.as_nanos(), 13_000_000);
        assert_eq!(interval.tick().await.as_nanos(), 23_000_000);
    });
}
