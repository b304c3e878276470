//! Guards that keep their lock alive.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::sync::{Mutex, OwnedMutexGuard, RwLock, TryLockError};
use executor::{spawn, yield_now};

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_owned_guard_excludes_moves_into_a_task_and_unlocks_when_dropped() {
    // Who waits for ever then panics.
    simulate_time();
    let mutex = Arc::new(Mutex::new(1));
    let mut guard = block_on(Arc::clone(&mutex).lock_owned());
    assert!(Arc::ptr_eq(OwnedMutexGuard::mutex(&guard), &mutex));
    assert_eq!(mutex.try_lock().unwrap_err(), TryLockError);
    assert_eq!(Arc::clone(&mutex).try_lock_owned().unwrap_err(), TryLockError);
    let task = spawn(async move {
        *guard += 1;
        yield_now().await;
        *guard
    });
    let next = spawn(Arc::clone(&mutex).lock_owned());
    run_until_idle();
    assert_eq!(block_on(task), Ok(2));
    let next = block_on(next).unwrap();
    assert!(mutex.try_lock().is_err(), "it was handed over");
    drop(next);
    assert_eq!(*Arc::clone(&mutex).try_lock_owned().unwrap(), 2);
    assert_eq!(Arc::strong_count(&mutex), 1);
}

#[test]
fn an_owned_guard_keeps_what_it_guards_alive() {
    let value = Arc::new(());
    let mutex = Arc::new(Mutex::new(Arc::clone(&value)));
    let guard = Arc::clone(&mutex).try_lock_owned().unwrap();
    drop(mutex);
    assert_eq!(Arc::strong_count(&guard), 2);
    drop(guard);
    assert_eq!(Arc::strong_count(&value), 1);

    let lock = Arc::new(RwLock::new(Arc::clone(&value)));
    let guard = Arc::clone(&lock).try_write_owned().unwrap();
    drop(lock);
    let guard = guard.downgrade();
    assert_eq!(Arc::strong_count(&guard), 2);
    drop(guard);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn an_owned_wait_that_is_dropped_gives_its_place_and_its_lock_on() {
    let mutex = Arc::new(Mutex::new(()));
    let guard = Arc::clone(&mutex).try_lock_owned().unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(Arc::clone(&mutex).lock_owned())).collect();
    assert!(waits.iter_mut().all(|wait| poll(wait).is_pending()));
    drop(waits.remove(1));
    drop(guard);
    // It was given the lock.
    drop(waits.remove(0));
    assert!(poll(&mut waits[0]).is_ready());
    assert!(mutex.try_lock().is_ok());

    let lock = Arc::new(RwLock::new(()));
    let reader = Arc::clone(&lock).try_read_owned().unwrap();
    let mut write = Box::pin(Arc::clone(&lock).write_owned());
    let mut read = Box::pin(Arc::clone(&lock).read_owned());
    assert!(poll(&mut write).is_pending() && poll(&mut read).is_pending());
    drop(write);
    assert!(poll(&mut read).is_ready(), "the writer before it is gone");
    drop((reader, read));
    assert!(lock.try_write().is_ok());
    assert_eq!(
        (Arc::strong_count(&mutex), Arc::strong_count(&lock)),
        (1, 1),
        "what is over keeps nothing alive"
    );
}

#[test]
fn owned_readers_share_and_an_owned_writer_does_not() {
    simulate_time();
    let lock = Arc::new(RwLock::new(1));
    let readers = [(); 2].map(|()| block_on(Arc::clone(&lock).read_owned()));
    assert_eq!(readers.each_ref().map(|reader| **reader), [1, 1]);
    assert_eq!(Arc::clone(&lock).try_write_owned().unwrap_err(), TryLockError);
    drop(readers);
    let mut writer = block_on(Arc::clone(&lock).write_owned());
    *writer += 1;
    assert_eq!(Arc::clone(&lock).try_read_owned().unwrap_err(), TryLockError);
    let mut waits = Box::pin(Arc::clone(&lock).write_owned());
    assert!(poll(&mut waits).is_pending());
    let reader = writer.downgrade();
    assert!(poll(&mut waits).is_pending(), "no writer comes in between");
    assert_eq!(*reader, 2);
    drop(reader);
    assert!(poll(&mut waits).is_ready());
    assert!(lock.try_write().is_ok());
}
