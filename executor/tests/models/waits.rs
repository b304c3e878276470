//! Wait queues and what is built on them, timers, and the spin lock.
#![allow(unsafe_code, reason = "waits outlive the borrow checker")]

use std::future::poll_fn;
use std::task::Poll;

use executor::host::{run_ready, set_clock};
use executor::sync::{AtomicWaker, Mutex, Notify, Semaphore, Signal};
use executor::time::{Duration, Instant, sleep_until};
use executor::{WaitQueue, WaitReason};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::support::{Watched, bounded_model, extended, model, poll, wait};

#[test]
fn a_wake_of_a_queue_meets_the_cancel_of_its_front() {
    model(|| {
        let queue = Arc::new(WaitQueue::new(WaitReason::Other));
        // SAFETY: the waits are dropped first: the thread with one of them is joined.
        let long: &'static WaitQueue = unsafe { extended(&queue) };
        let (mut first, mut second) = (Box::pin(long.wait()), Box::pin(long.wait()));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        let cancel = thread::spawn(move || {
            let woken = poll(&mut first).is_ready();
            drop(first);
            woken
        });
        assert!(queue.wake_one());
        let used = cancel.join().unwrap();
        assert_eq!(poll(&mut second).is_ready(), !used, "the wake was used once");
        drop(second);
    });
}

#[test]
fn waiting_for_a_condition_meets_its_wake() {
    model(|| {
        let queue = Arc::new(WaitQueue::new(WaitReason::Other));
        let ready = Arc::new(AtomicBool::new(false));
        let (woken_queue, set) = (Arc::clone(&queue), Arc::clone(&ready));
        let other = thread::spawn(move || {
            set.store(true, Ordering::Release);
            woken_queue.wake_one();
        });
        wait(queue.wait_for(|| ready.load(Ordering::Acquire).then_some(())));
        other.join().unwrap();
    });
}

#[test]
fn the_release_of_a_mutex_meets_a_cancel_with_a_third_waiting() {
    model(|| {
        let mutex = Arc::new(Mutex::new(()));
        // SAFETY: the waits are dropped first: the thread with one of them is joined.
        let long: &'static Mutex<()> = unsafe { extended(&mutex) };
        let guard = long.try_lock().unwrap();
        let (mut first, mut second) = (Box::pin(long.lock()), Box::pin(long.lock()));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        let cancel = thread::spawn(move || drop(first));
        drop(guard);
        cancel.join().unwrap();
        assert!(poll(&mut second).is_ready());
        drop(second);
        assert!(mutex.try_lock().is_ok());
    });
}

#[test]
fn a_mutex_excludes_and_loses_nobody() {
    model(|| {
        let mutex = Arc::new(Mutex::new(Watched::new()));
        let add = |mutex: &Mutex<Watched>| {
            wait(mutex.lock()).add();
        };
        let other_mutex = Arc::clone(&mutex);
        let other = thread::spawn(move || add(&other_mutex));
        add(&mutex);
        other.join().unwrap();
        assert_eq!(mutex.try_lock().unwrap().get(), 2);
    });
}

#[test]
fn the_release_of_a_permit_meets_a_cancel_with_a_third_waiting() {
    model(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        // SAFETY: the waits are dropped first: the thread with one of them is joined.
        let long: &'static Semaphore = unsafe { extended(&semaphore) };
        let permit = long.try_acquire().unwrap();
        let (mut first, mut second) = (Box::pin(long.acquire_many(1)), Box::pin(long.acquire()));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        let cancel = thread::spawn(move || drop(first));
        drop(permit);
        cancel.join().unwrap();
        assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
        drop(second);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn acquiring_meets_releasing() {
    model(|| {
        let semaphore = Arc::new(Semaphore::new(0));
        let gives = Arc::clone(&semaphore);
        let other = thread::spawn(move || {
            gives.add_permits(1);
            gives.add_permits(1);
        });
        drop(wait(semaphore.acquire_many(2)).unwrap());
        other.join().unwrap();
        assert_eq!(semaphore.available_permits(), 2);
    });
}

#[test]
fn closing_a_semaphore_meets_acquiring() {
    model(|| {
        let semaphore = Arc::new(Semaphore::new(0));
        let closes = Arc::clone(&semaphore);
        let other = thread::spawn(move || closes.close());
        assert!(wait(semaphore.acquire()).is_err());
        other.join().unwrap();
    });
}

#[test]
fn a_permit_of_a_notification_meets_a_cancel() {
    model(|| {
        let notify = Arc::new(Notify::new());
        // SAFETY: the waits are dropped first: the thread with one of them is joined.
        let long: &'static Notify = unsafe { extended(&notify) };
        let mut first = Box::pin(long.notified());
        assert!(poll(&mut first).is_pending());
        let cancel = thread::spawn(move || drop(first));
        notify.notify_one();
        cancel.join().unwrap();
        wait(notify.notified());
    });
}

#[test]
fn a_signal_meets_a_wait() {
    model(|| {
        let signal = Arc::new(Signal::new(WaitReason::Keyboard));
        let signals = Arc::clone(&signal);
        let other = thread::spawn(move || signals.signal());
        wait(signal.wait());
        other.join().unwrap();
    });
}

#[test]
fn an_atomic_waker_meets_two_wakes_and_a_register() {
    bounded_model(2, || {
        let place = Arc::new((AtomicWaker::new(), AtomicUsize::new(0)));
        let threads = [Arc::clone(&place), Arc::clone(&place)].map(|place| {
            thread::spawn(move || {
                place.1.fetch_add(1, Ordering::Relaxed);
                place.0.wake();
            })
        });
        wait(poll_fn(|context| {
            place.0.register(context.waker());
            if place.1.load(Ordering::Relaxed) == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_sleep_that_is_dropped_meets_its_timer() {
    model(|| {
        set_clock(0);
        let mut sleep = Box::pin(sleep_until(Instant::default() + Duration::from_micros(5)));
        assert!(poll(&mut sleep).is_pending());
        let other = thread::spawn(move || {
            let over = poll(&mut sleep).is_ready();
            drop(sleep);
            over
        });
        set_clock(5_000);
        run_ready();
        other.join().unwrap();
    });
}

#[test]
fn a_spin_lock_excludes() {
    model(|| {
        let lock = Arc::new(executor::lock::SpinLock::new("model", Watched::new()));
        let other_lock = Arc::clone(&lock);
        let other = thread::spawn(move || other_lock.lock().add());
        lock.lock().add();
        other.join().unwrap();
        assert_eq!(lock.lock().get(), 2);
    });
}
