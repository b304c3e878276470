//! Wakes, aborts, joins, and the end of a task.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use executor::host::{run_ready, run_until};
use executor::{JoinError, spawn, yield_now};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::support::{Watched, bounded_model, flag_task, model, poll, wait};

#[test]
fn a_wake_meets_the_end_of_a_poll_or_an_idle_cpu() {
    model(|| {
        let (flag, handle, waker) = flag_task();
        // A poll is under way, or about to be, while the other thread wakes.
        waker.wake_by_ref();
        let other = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        });
        run_until(|| handle.is_finished());
        other.join().unwrap();
    });
}

#[test]
fn a_wake_meets_completion_and_the_last_reference() {
    model(|| {
        let (flag, handle, waker) = flag_task();
        flag.store(true, Ordering::Relaxed);
        waker.wake_by_ref();
        drop(handle);
        let other = thread::spawn(move || {
            let second = waker.clone();
            waker.wake();
            drop(second);
        });
        run_ready();
        other.join().unwrap();
    });
}

#[test]
fn two_wakers_meet_take_all() {
    bounded_model(2, || {
        let (first, second) = (flag_task(), flag_task());
        let threads = [(first.0, first.2), (second.0, second.2)].map(|(flag, waker)| {
            thread::spawn(move || {
                flag.store(true, Ordering::Relaxed);
                waker.wake();
            })
        });
        run_until(|| first.1.is_finished() && second.1.is_finished());
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn two_wakers_of_one_task_push_it_once_and_both_are_seen() {
    bounded_model(2, || {
        let flags = [false, false].map(|flag| Arc::new(AtomicBool::new(flag)));
        let looks = flags.clone();
        let waker = std::sync::Arc::new(std::sync::Mutex::new(None));
        let gives = std::sync::Arc::clone(&waker);
        let handle = spawn(poll_fn(move |context| {
            gives.lock().unwrap().get_or_insert_with(|| context.waker().clone());
            // What a waker wrote before its wake is seen, though it found the task scheduled by the other one.
            let seen = looks.iter().all(|flag| flag.load(Ordering::Relaxed));
            if seen { Poll::Ready(()) } else { Poll::Pending }
        }));
        run_ready();
        let waker: Waker = waker.lock().unwrap().take().unwrap();
        let threads = flags.map(|flag| {
            let waker = waker.clone();
            thread::spawn(move || {
                flag.store(true, Ordering::Relaxed);
                waker.wake_by_ref();
            })
        });
        run_until(|| handle.is_finished());
        for thread in threads {
            thread.join().unwrap();
        }
        drop(waker);
        run_ready();
    });
}

#[test]
fn an_abort_meets_every_state() {
    model(|| {
        // Loom finds two uses of the cell at a time; the task's future is its owner.
        let owned = Arc::new(Watched::new());
        let inner = Arc::clone(&owned);
        let handle = spawn(async move {
            inner.add();
            yield_now().await;
            inner.add();
            5
        });
        let abort = handle.abort_handle();
        let other = thread::spawn(move || abort.abort());
        run_until(|| handle.is_finished());
        // The future is gone when the task is done.
        assert_eq!(Arc::strong_count(&owned), 1);
        other.join().unwrap();
        assert!(matches!(wait(handle), Ok(5) | Err(JoinError::Aborted)));
        run_ready();
    });
}

#[test]
fn an_abort_meets_a_wake_of_an_idle_task() {
    bounded_model(2, || {
        let (flag, handle, waker) = flag_task();
        let abort = handle.abort_handle();
        let first = thread::spawn(move || abort.abort());
        let second = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        });
        run_until(|| handle.is_finished());
        first.join().unwrap();
        second.join().unwrap();
        drop(handle);
    });
}

#[test]
fn a_joiner_meets_completion() {
    model(|| {
        let done = Arc::new(AtomicBool::new(false));
        let output = Arc::new(Watched::new());
        let inner = Arc::clone(&output);
        let handle = spawn(async move {
            inner.add();
            inner
        });
        let says = Arc::clone(&done);
        let other = thread::spawn(move || {
            let output = wait(handle).unwrap();
            assert_eq!(output.get(), 1);
            says.store(true, Ordering::Relaxed);
        });
        run_ready();
        other.join().unwrap();
        assert!(done.load(Ordering::Relaxed));
        run_ready();
    });
}

#[test]
fn a_joiner_that_changes_its_waker_meets_completion() {
    model(|| {
        let handle = spawn(async { 7 });
        let other = thread::spawn(move || {
            let mut handle = Box::pin(handle);
            match poll(&mut handle) {
                Poll::Ready(output) => assert_eq!(output, Ok(7)),
                Poll::Pending => assert_eq!(wait(handle), Ok(7)),
            }
        });
        run_ready();
        other.join().unwrap();
        run_ready();
    });
}

#[test]
fn a_handle_that_is_dropped_meets_completion() {
    model(|| {
        let output = Arc::new(());
        let inner = Arc::clone(&output);
        let handle = spawn(async move { inner });
        let other = thread::spawn(move || {
            let mut handle = Box::pin(handle);
            let _ = poll(&mut handle);
        });
        run_ready();
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&output), 1, "the output was dropped by one of them");
        run_ready();
    });
}
