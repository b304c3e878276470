//! Spawning, joining, aborting, and the end of tasks.
#![cfg(not(loom))]

use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use executor::host::{Clock, block_on, run_until_idle, simulate_time};
use executor::sync::oneshot;
use executor::{
    Builder, Class, JoinError, JoinHandle, Spent, TaskState, live_tasks, spawn, tasks, yield_now,
};

/// Counts how often it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counter() -> (Arc<AtomicUsize>, impl Fn() -> Dropped) {
    let count = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&count);
    (count, move || Dropped(Arc::clone(&made)))
}

#[test]
fn a_joined_task_gives_its_output() {
    let output = block_on(async { spawn(async { 6 * 7 }).await });
    assert_eq!(output, Ok(42));
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_spawned() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for i in 0..100 {
        let order = Arc::clone(&order);
        drop(spawn(async move { order.lock().unwrap().push(i) }));
    }
    run_until_idle();
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_detached_task_goes_on_and_its_output_is_dropped_once() {
    let (dropped, make) = counter();
    let (go, gone) = oneshot::channel::<()>();
    let output = make();
    drop(spawn(async move {
        gone.await.unwrap();
        output
    }));
    run_until_idle();
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    go.send(()).unwrap();
    run_until_idle();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn an_output_that_nobody_takes_is_dropped_with_the_handle() {
    let (dropped, make) = counter();
    let output = make();
    let handle = spawn(async move { output });
    run_until_idle();
    assert!(handle.is_finished());
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(handle);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn the_output_that_was_taken_is_dropped_once() {
    let (dropped, make) = counter();
    let output = make();
    let kept = block_on(spawn(async move { output })).unwrap();
    run_until_idle();
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(kept);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn aborting_a_queued_task_drops_its_future_unpolled() {
    let (dropped, make) = counter();
    let held = make();
    let handle = spawn(async move {
        let _held = held;
        panic!("polled");
    });
    handle.abort();
    assert_eq!(dropped.load(Ordering::Relaxed), 0, "the future is dropped by the run loop");
    assert_eq!(block_on(handle), Err::<(), _>(JoinError::Aborted));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn aborting_an_idle_task_drops_its_future_and_wakes_the_joiner() {
    let (dropped, make) = counter();
    let held = make();
    let handle = spawn(async move {
        let _held = held;
        pending::<()>().await;
    });
    run_until_idle();
    let abort = handle.abort_handle();
    let joiner = spawn(handle);
    run_until_idle();
    assert!(!joiner.is_finished());
    abort.abort();
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    run_until_idle();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert!(abort.is_finished());
    assert_eq!(block_on(joiner).unwrap(), Err(JoinError::Aborted));
}

#[test]
fn a_task_that_aborts_itself_ends_at_its_next_turn() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let handle = spawn(async move {
        executor::current_task().unwrap().abort();
        counted.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
        counted.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(block_on(handle), Err(JoinError::Aborted));
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_that_is_done_in_the_poll_that_aborts_it_keeps_its_output() {
    let handle = spawn(async {
        executor::current_task().unwrap().abort();
        7
    });
    assert_eq!(block_on(handle), Ok(7));
}

#[test]
fn aborting_a_finished_task_changes_nothing() {
    let handle = spawn(async { 1 });
    run_until_idle();
    handle.abort();
    handle.abort();
    run_until_idle();
    assert_eq!(block_on(handle), Ok(1));
}

#[test]
fn a_thread_is_not_aborted() {
    let (dropped, make) = counter();
    let (go, gone) = oneshot::channel::<()>();
    let held = make();
    let thread = Builder::new().class(Class::Thread).spawn(async move {
        let _held = held;
        gone.await.is_ok()
    });
    // Neither in the queue nor while it waits, by none of the handles.
    thread.abort();
    run_until_idle();
    thread.abort_handle().abort();
    thread.task().abort();
    assert_eq!(run_until_idle(), 0, "an abort does not even wake it");
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    assert_eq!(thread.task().state(), TaskState::Waiting);
    go.send(()).unwrap();
    assert_eq!(block_on(thread), Ok(true));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn wakers_that_outlive_the_task_do_nothing() {
    let mut kept: Option<Waker> = None;
    block_on(poll_fn(|_| Poll::Ready(())));
    let (send, receive) = oneshot::channel();
    let mut send = Some(send);
    let handle = spawn(poll_fn(move |context| {
        if let Some(send) = send.take() {
            send.send(context.waker().clone()).unwrap();
        }
        Poll::Ready(())
    }));
    block_on(async {
        handle.await.unwrap();
        kept = Some(receive.await.unwrap());
    });
    let waker = kept.unwrap();
    waker.wake_by_ref();
    let other = waker.clone();
    drop(waker);
    other.wake();
    assert_eq!(run_until_idle(), 0);
}

#[test]
fn a_wake_during_the_poll_polls_once_more() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let handle = spawn(poll_fn(move |context| {
        if counted.fetch_add(1, Ordering::Relaxed) == 3 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    run_until_idle();
    assert!(handle.is_finished());
    assert_eq!(polls.load(Ordering::Relaxed), 4);
    assert_eq!(handle.task().polls(), 4);
}

thread_local! {
    static CLOCK: Clock = simulate_time();
}

/// A task whose two polls take so many microseconds.
fn two_polls_of(name: &'static str, micros: u64) -> JoinHandle<()> {
    let work = move || CLOCK.with(|clock| clock.advance(Duration::from_micros(micros)));
    CLOCK.with(|_| ());
    let handle = Builder::new().name(name).spawn(async move {
        work();
        yield_now().await;
        work();
    });
    run_until_idle();
    handle
}

#[test]
fn a_task_is_charged_for_the_time_of_its_polls() {
    let (first, second) = (two_polls_of("first", 30), two_polls_of("second", 5));
    assert_eq!(first.task().spent(), Spent { polls: 2, nanos: 60_000 });
    assert_eq!(second.task().spent(), Spent { polls: 2, nanos: 10_000 });
}

#[test]
fn long_polls_are_noted_by_the_name_of_the_task() {
    let long = two_polls_of("long", 150);
    let longer = two_polls_of("longer", 250);
    let another = two_polls_of("long", 140);
    let short = two_polls_of("short", 90);
    let longest = |handle: JoinHandle<()>| handle.task().longest_poll_ns();
    assert_eq!([long, longer, another].map(longest), [150_000, 250_000, 150_000].map(Some));
    assert_eq!(longest(short), None);
}

#[test]
fn many_wakes_of_an_idle_task_are_one_poll() {
    let wakers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&wakers);
    let handle = spawn(poll_fn(move |context| {
        kept.lock().unwrap().push(context.waker().clone());
        Poll::<()>::Pending
    }));
    run_until_idle();
    for _ in 0..10 {
        wakers.lock().unwrap()[0].wake_by_ref();
    }
    assert_eq!(run_until_idle(), 1);
    handle.abort();
    run_until_idle();
}

#[test]
fn tasks_are_listed_until_they_are_done() {
    assert_eq!(live_tasks(), 0);
    let (mut ends, handles): (Vec<_>, Vec<_>) = (0..200)
        .map(|_| {
            let (end, ended) = oneshot::channel::<()>();
            (end, Builder::new().name("listed").class(Class::Thread).spawn(ended))
        })
        .unzip();
    run_until_idle();
    assert_eq!(tasks().count(), 200);
    assert!(tasks().all(|task| task.name() == "listed" && task.class() == Class::Thread));
    assert!(tasks().all(|task| task.state() == TaskState::Waiting));
    let mut visited = 0;
    assert!(executor::try_for_each_task(&mut |_| visited += 1));
    assert_eq!(visited, 200);
    let numbers: std::collections::BTreeSet<_> = tasks().map(|task| task.id()).collect();
    assert_eq!(numbers.len(), 200);
    ends.truncate(50);
    run_until_idle();
    assert_eq!(live_tasks(), 50);
    assert!(tasks().zip(&handles).all(|(task, handle)| task.id() == handle.id()));
    drop(ends);
    run_until_idle();
    assert_eq!(live_tasks(), 0);
    assert!(tasks().next().is_none());
}

#[test]
fn numbers_of_done_tasks_are_used_again() {
    let first = spawn(async {});
    let number = first.id();
    block_on(first).unwrap();
    let second = spawn(async {});
    assert_eq!(second.id(), number);
    block_on(second).unwrap();
}

#[test]
fn the_current_task_is_the_one_that_is_polled() {
    assert!(executor::current_task().is_none());
    let handle = Builder::new().name("me").spawn(async {
        let task = executor::current_task().unwrap();
        assert_eq!(task.state(), TaskState::Running);
        task.id()
    });
    let id = handle.id();
    assert_eq!(block_on(handle), Ok(id));
    assert!(executor::current_task().is_none());
}

#[test]
fn a_handle_that_moves_to_another_task_wakes_the_new_one() {
    let (go, gone) = oneshot::channel::<()>();
    let handle = spawn(async move { gone.await.is_ok() });
    let first = spawn(async move {
        let mut handle = handle;
        poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut handle).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        Some(handle)
    });
    let handle = block_on(first).unwrap().unwrap();
    let second = spawn(handle);
    run_until_idle();
    go.send(()).unwrap();
    assert_eq!(block_on(second).unwrap(), Ok(true));
}

#[test]
fn wakes_from_many_threads_are_not_lost() {
    const THREADS: usize = 4;
    const EACH: usize = 5_000;
    let (send, mut receive) = executor::sync::mpsc::channel(8);
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let send = send.clone();
        threads.push(std::thread::spawn(move || {
            block_on(async {
                for i in 0..EACH {
                    send.send(i).await.unwrap();
                }
            });
        }));
    }
    drop(send);
    let sum = block_on(spawn(async move {
        let mut sum = 0;
        while let Some(i) = receive.recv().await {
            sum += i;
        }
        sum
    }));
    assert_eq!(sum, Ok(THREADS * EACH * (EACH - 1) / 2));
    for thread in threads {
        thread.join().unwrap();
    }
}
