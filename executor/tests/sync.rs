//! Mutex, semaphore, notifications and signals.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use executor::host::{block_on, run_until_idle};
use executor::sync::{AcquireError, Mutex, Notify, Semaphore, Signal, TryAcquireError, TryLockError};
use executor::{WaitReason, spawn, yield_now};

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_mutex_goes_straight_to_who_waits_longest() {
    let mutex = Mutex::new(0);
    let guard = mutex.try_lock().unwrap();
    let (mut first, mut second) = (Box::pin(mutex.lock()), Box::pin(mutex.lock()));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    drop(guard);
    assert_eq!(mutex.try_lock().unwrap_err(), TryLockError, "nobody overtakes");
    assert!(poll(&mut second).is_pending());
    let Poll::Ready(guard) = poll(&mut first) else { panic!("the lock was handed over") };
    drop(guard);
    assert!(poll(&mut second).is_ready());
    assert!(mutex.try_lock().is_ok());
}

#[test]
fn a_lock_that_was_given_to_a_waiter_that_goes_is_given_on() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock().unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(mutex.lock())).collect();
    assert!(waits.iter_mut().all(|wait| poll(wait).is_pending()));
    drop(waits.remove(1));
    drop(guard);
    drop(waits.remove(0));
    assert!(poll(&mut waits[0]).is_ready());
    assert!(mutex.try_lock().is_ok());
}

#[test]
fn a_mutex_is_free_when_all_waiters_have_given_up() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock().unwrap();
    let mut wait = Box::pin(mutex.lock());
    assert!(poll(&mut wait).is_pending());
    drop(wait);
    drop(guard);
    assert!(mutex.try_lock().is_ok());
}

#[test]
fn tasks_exclude_one_another_across_awaits() {
    let mutex = Arc::new(Mutex::new(0));
    let handles: Vec<_> = (0..100)
        .map(|_| {
            let mutex = Arc::clone(&mutex);
            spawn(async move {
                for _ in 0..10 {
                    let mut guard = mutex.lock().await;
                    let before = *guard;
                    yield_now().await;
                    *guard = before + 1;
                }
            })
        })
        .collect();
    block_on(async {
        for handle in handles {
            handle.await.unwrap();
        }
    });
    assert_eq!(*mutex.try_lock().unwrap(), 1_000);
}

#[test]
fn threads_exclude_one_another_through_a_mutex() {
    let mutex = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mutex = Arc::clone(&mutex);
            std::thread::spawn(move || {
                block_on(async {
                    for _ in 0..5_000 {
                        *mutex.lock().await += 1;
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*mutex.try_lock().unwrap(), 20_000);
}

#[test]
fn permits_are_given_in_order_also_to_who_asks_for_many() {
    let semaphore = Semaphore::new(2);
    let held = semaphore.try_acquire_many(2).unwrap();
    let mut many = Box::pin(semaphore.acquire_many(2));
    let mut one = Box::pin(semaphore.acquire());
    assert!(poll(&mut many).is_pending());
    assert!(poll(&mut one).is_pending());
    semaphore.add_permits(1);
    assert!(poll(&mut one).is_pending(), "nobody overtakes");
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    semaphore.add_permits(1);
    let Poll::Ready(Ok(permits)) = poll(&mut many) else { panic!("two permits are there") };
    assert_eq!(permits.num_permits(), 2);
    drop(held);
    assert!(matches!(poll(&mut one), Poll::Ready(Ok(_))));
    drop(permits);
    assert_eq!(semaphore.available_permits(), 4);
}

#[test]
fn a_front_that_gives_up_lets_those_behind_go() {
    let semaphore = Semaphore::new(1);
    let mut many = Box::pin(semaphore.acquire_many(5));
    let mut one = Box::pin(semaphore.acquire());
    assert!(poll(&mut many).is_pending());
    assert!(poll(&mut one).is_pending());
    drop(many);
    assert!(matches!(poll(&mut one), Poll::Ready(Ok(_))));
    assert_eq!(semaphore.available_permits(), 1);
}

#[test]
fn permits_given_to_a_waiter_that_goes_are_released() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut wait = Box::pin(Arc::clone(&semaphore).acquire_many_owned(3));
    assert!(poll(&mut wait).is_pending());
    semaphore.add_permits(4);
    assert_eq!(semaphore.available_permits(), 1);
    drop(wait);
    assert_eq!(semaphore.available_permits(), 4);
}

#[test]
fn a_closed_semaphore_ends_every_wait() {
    let semaphore = Semaphore::new(1);
    let held = semaphore.try_acquire().unwrap();
    let mut waits: Vec<_> = (0..40).map(|_| Box::pin(semaphore.acquire())).collect();
    assert!(waits.iter_mut().all(|wait| poll(wait).is_pending()));
    semaphore.close();
    for wait in &mut waits {
        assert!(matches!(poll(wait), Poll::Ready(Err(AcquireError))));
    }
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
    drop(held);
    assert_eq!(semaphore.available_permits(), 1);
    assert!(semaphore.is_closed());
}

#[test]
fn forgotten_permits_do_not_come_back() {
    let semaphore = Semaphore::new(5);
    semaphore.try_acquire_many(2).unwrap().forget();
    assert_eq!(semaphore.available_permits(), 3);
    assert_eq!(semaphore.forget_permits(10), 3);
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
#[should_panic(expected = "cannot hold that many")]
fn more_permits_than_a_semaphore_can_hold_are_refused() {
    Semaphore::new(Semaphore::MAX_PERMITS).add_permits(1);
}

#[test]
fn permits_are_never_more_than_there_are() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let semaphore = Arc::new(Semaphore::new(3));
    let inside = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (semaphore, inside) = (Arc::clone(&semaphore), Arc::clone(&inside));
            std::thread::spawn(move || {
                block_on(async {
                    for i in 0..5_000 {
                        let permits = 1 + i % 2;
                        let permit = semaphore.acquire_many(permits).await.unwrap();
                        let now = inside.fetch_add(permits as usize, Ordering::Relaxed);
                        assert!(now + permits as usize <= 3);
                        inside.fetch_sub(permits as usize, Ordering::Relaxed);
                        drop(permit);
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(semaphore.available_permits(), 3);
}

#[test]
fn a_notification_is_remembered_once() {
    let notify = Notify::new();
    notify.notify_one();
    notify.notify_one();
    assert!(poll(&mut Box::pin(notify.notified())).is_ready());
    assert!(poll(&mut Box::pin(notify.notified())).is_pending());
}

#[test]
fn a_notification_that_was_not_used_is_not_lost() {
    let notify = Notify::new();
    let mut wait = Box::pin(notify.notified());
    assert!(poll(&mut wait).is_pending());
    notify.notify_one();
    drop(wait);
    assert!(poll(&mut Box::pin(notify.notified())).is_ready());
}

#[test]
fn notifying_all_reaches_who_has_not_been_polled_yet_and_leaves_nothing() {
    let notify = Notify::new();
    let mut unpolled = Box::pin(notify.notified());
    let mut polled = Box::pin(notify.notified());
    assert!(poll(&mut polled).is_pending());
    notify.notify_waiters();
    assert!(poll(&mut unpolled).is_ready());
    assert!(poll(&mut polled).is_ready());
    assert!(poll(&mut Box::pin(notify.notified())).is_pending());
}

#[test]
fn one_and_all_at_once_lose_nothing() {
    let notify = Notify::new();
    let mut first = Box::pin(notify.notified());
    assert!(poll(&mut first).is_pending());
    notify.notify_one();
    notify.notify_waiters();
    assert!(poll(&mut first).is_ready());
    assert!(poll(&mut Box::pin(notify.notified())).is_ready(), "the single one was not used");
}

#[test]
fn an_enabled_notification_keeps_its_place() {
    let notify = Notify::new();
    let mut first = Box::pin(notify.notified());
    assert!(!first.as_mut().enable());
    let mut second = Box::pin(notify.notified());
    assert!(poll(&mut second).is_pending());
    notify.notify_one();
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut first).is_ready());
}

#[test]
fn a_signal_is_seen_by_the_next_wait_once() {
    let signal = Signal::new(WaitReason::Keyboard);
    signal.signal();
    signal.signal();
    let context = &mut Context::from_waker(Waker::noop());
    assert!(pin!(signal.wait()).poll(context).is_ready());
    assert!(pin!(signal.wait()).poll(context).is_pending());
    signal.signal();
    assert!(signal.take());
    assert!(!signal.take());
}

#[test]
fn a_signal_from_another_thread_wakes_the_task() {
    let signal = Arc::new(Signal::new(WaitReason::Keyboard));
    let waits = Arc::clone(&signal);
    let handle = spawn(async move {
        for _ in 0..1_000 {
            waits.wait().await;
        }
    });
    run_until_idle();
    assert_eq!(handle.task().wait().unwrap().0, WaitReason::Keyboard);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            signal.signal();
        }
    });
    block_on(handle).unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
}
