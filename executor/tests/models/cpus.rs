//! Stealing, and grace periods.

use std::future::poll_fn;
use std::task::Poll;

use executor::host::{run_ready, run_until};
use executor::{Builder, JoinHandle, current_cpu, grace_period, spawn, yield_now};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::support::{Watched, bounded_model, flag_task, flag_task_of, model, wait};

/// A CPU that steals, and runs until the task is done.
fn thief_until_finished(handle: JoinHandle<()>) -> (Arc<JoinHandle<()>>, thread::JoinHandle<()>) {
    let handle = Arc::new(handle);
    let seen = Arc::clone(&handle);
    let thief = thread::spawn(move || run_until(|| seen.is_finished()));
    (handle, thief)
}

fn spin_until_finished(task: &JoinHandle<()>) {
    while !task.is_finished() {
        thread::yield_now();
    }
}

#[test]
fn a_thief_meets_the_run_loop() {
    bounded_model(1, || {
        let (flag, behind, waker) = flag_task();
        // Its poll queues the other one on this CPU, behind itself.
        let first = spawn(poll_fn(move |_| {
            flag.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
            Poll::Ready(())
        }));
        let (behind, thief) = thief_until_finished(behind);
        run_until(|| behind.is_finished());
        drop(behind);
        thief.join().unwrap();
        assert!(first.is_finished());
    });
}

#[test]
fn a_thief_meets_a_wake_from_elsewhere() {
    bounded_model(1, || {
        let (flag, woken, waker) = flag_task();
        // The queue that is stolen from: a task that is being polled, and one behind it that may be woken again
        // while it moves.
        drop(spawn(yield_now()));
        waker.wake_by_ref();
        let (woken, thief) = thief_until_finished(woken);
        let other = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        });
        run_until(|| woken.is_finished());
        other.join().unwrap();
        drop(woken);
        thief.join().unwrap();
    });
}

#[test]
fn a_push_in_a_long_poll_meets_a_cpu_that_goes_idle() {
    bounded_model(1, || {
        let (flag, woken, waker) = flag_task();
        let (woken, thief) = thief_until_finished(woken);
        let done = Arc::clone(&woken);
        let hog = spawn(poll_fn(move |_| {
            flag.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
            spin_until_finished(&done);
            Poll::Ready(())
        }));
        run_until(|| hog.is_finished());
        thief.join().unwrap();
        drop(woken);
    });
}

#[test]
fn a_thief_that_moves_what_was_woken_meets_the_victims_last_look() {
    bounded_model(2, || {
        let (flag, stays, waker) = flag_task_of(Builder::new().cpu(current_cpu()));
        // A thief comes for the second, and finds instead what that one wakes: it moves this from the stack to the queue
        // while the victim finds nothing in either.
        drop(spawn(poll_fn(|_| {
            thread::yield_now();
            Poll::Ready(())
        })));
        drop(spawn(poll_fn(move |_| {
            flag.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
            thread::yield_now();
            Poll::Ready(())
        })));
        let stays = Arc::new(stays);
        let seen = Arc::clone(&stays);
        let thief = thread::spawn(move || {
            run_until(|| seen.is_finished());
            // What it has taken.
            run_ready();
        });
        run_until(|| stays.is_finished());
        drop(stays);
        thief.join().unwrap();
    });
}

#[test]
fn a_grace_period_outlasts_what_it_meets() {
    model(|| {
        // What is to be taken away, and whether it can still be found.
        let (thing, found) = (Arc::new(Watched::new()), Arc::new(AtomicBool::new(true)));
        let (reads, looks) = (Arc::clone(&thing), Arc::clone(&found));
        let other = thread::spawn(move || {
            drop(spawn(async move {
                if looks.load(Ordering::Relaxed) {
                    reads.get();
                }
            }));
            run_ready();
        });
        found.store(false, Ordering::Relaxed);
        wait(grace_period());
        thing.add();
        other.join().unwrap();
    });
}

#[test]
fn grace_periods_meet() {
    bounded_model(1, || {
        let other = thread::spawn(|| {
            let done = spawn(grace_period());
            run_until(|| done.is_finished());
        });
        let done = spawn(grace_period());
        run_until(|| done.is_finished());
        other.join().unwrap();
    });
}
