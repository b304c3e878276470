//! Models of the crate's small protocols: loom tries every order of their steps that matters.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p executor --release --test models`. Each loom thread is a CPU; the
//! first one runs the tasks. A lost wake shows as a deadlock: then all threads of the model sleep.
#![cfg(loom)]
#![allow(
    unsafe_code,
    reason = "loom cells are reached by pointers; waits outlive the borrow checker in models"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "loom checks the cells, and every thread is joined before its queue goes"
)]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use executor::host::{bury, cells, run_ready, run_until, set_clock};
use executor::sync::{AtomicWaker, Mutex, Notify, Semaphore, Signal, mpsc, oneshot};
use executor::time::{Duration, Instant, sleep_until};
use executor::{JoinError, JoinHandle, WaitQueue, WaitReason, grace_period, spawn, yield_now};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    bounded_model(3, f);
}

/// Models with three threads, or with two whole run loops, have fewer preemptions, or they take hours.
fn bounded_model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        assert_eq!(cells(), 0);
        // This loom thread is the first CPU.
        run_ready();
        f();
        run_ready();
        bury();
        assert_eq!(cells(), 0, "a task's memory is not freed");
    });
}

/// A number in a cell that loom watches: two accesses at a time fail the model.
struct Watched(loom::cell::UnsafeCell<i32>);

unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Watched(loom::cell::UnsafeCell::new(0))
    }

    fn add(&self) {
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> i32 {
        self.0.with(|value| unsafe { *value })
    }
}

/// A waker that wakes a sleeping loom thread.
struct Sleeper(loom::sync::Notify);

impl Wake for Sleeper {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// Polls a future on this loom thread until it is done.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let sleeper = std::sync::Arc::new(Sleeper(loom::sync::Notify::new()));
    let waker = Waker::from(std::sync::Arc::clone(&sleeper));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        sleeper.0.wait();
        // Who wakes itself because another thread is in the middle of something lets that one go on.
        thread::yield_now();
    }
}

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A task that waits for a flag without noting its waker anywhere, and its waker.
fn flag_task() -> (Arc<AtomicBool>, JoinHandle<()>, Waker) {
    let flag = Arc::new(AtomicBool::new(false));
    let waker = std::sync::Arc::new(std::sync::Mutex::new(None));
    let (looks, gives) = (Arc::clone(&flag), std::sync::Arc::clone(&waker));
    let handle = spawn(poll_fn(move |context| {
        if looks.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut waker = gives.lock().unwrap();
        if waker.is_none() {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }));
    run_ready();
    let waker = waker.lock().unwrap().take().unwrap();
    (flag, handle, waker)
}

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

#[test]
fn a_wake_of_a_queue_meets_the_cancel_of_its_front() {
    model(|| {
        let queue = Arc::new(WaitQueue::new(WaitReason::Other));
        // Safe as the waits are dropped before the queue: the threads are joined.
        let long: &'static WaitQueue = unsafe { &*std::ptr::from_ref(&*queue) };
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
        let long: &'static Mutex<()> = unsafe { &*std::ptr::from_ref(&*mutex) };
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
        let long: &'static Semaphore = unsafe { &*std::ptr::from_ref(&*semaphore) };
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
        let long: &'static Notify = unsafe { &*std::ptr::from_ref(&*notify) };
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
fn sending_once_meets_closing() {
    model(|| {
        let (send, mut receive) = oneshot::channel();
        let value = Arc::new(());
        let sent = Arc::clone(&value);
        let other = thread::spawn(move || send.send(sent).is_ok());
        receive.close();
        let got = receive.try_recv().is_ok();
        let sent = other.join().unwrap();
        assert!(sent || !got);
        drop(receive);
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn a_sender_that_goes_meets_the_receiver() {
    model(|| {
        let (send, receive) = oneshot::channel::<()>();
        let other = thread::spawn(move || drop(send));
        assert!(wait(receive).is_err());
        other.join().unwrap();
    });
}

#[test]
fn closing_a_channel_meets_sending() {
    model(|| {
        let (send, mut receive) = mpsc::channel(1);
        let value = Arc::new(());
        let sent = Arc::clone(&value);
        let other = thread::spawn(move || send.try_send(sent).is_ok());
        receive.close();
        let got = wait(receive.recv()).is_some();
        assert_eq!(other.join().unwrap(), got, "what was sent before the close arrives");
        drop(receive);
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn a_full_channel_meets_its_receiver() {
    model(|| {
        let (send, mut receive) = mpsc::channel(1);
        let other = thread::spawn(move || {
            wait(async {
                send.send(1).await.unwrap();
                send.send(2).await.unwrap();
            });
        });
        assert_eq!(wait(receive.recv()), Some(1));
        assert_eq!(wait(receive.recv()), Some(2));
        assert_eq!(wait(receive.recv()), None);
        other.join().unwrap();
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

/// A CPU that steals, and runs until the task is done.
fn thief_until_finished(handle: JoinHandle<()>) -> (Arc<JoinHandle<()>>, thread::JoinHandle<()>) {
    let handle = Arc::new(handle);
    let seen = Arc::clone(&handle);
    let thief = thread::spawn(move || run_until(|| seen.is_finished()));
    (handle, thief)
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
