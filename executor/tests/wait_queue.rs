//! The parking primitive, and what it shows.
#![cfg(not(loom))]

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::time::{Duration, sleep};
use executor::{Wait, WaitQueue, WaitReason, spawn};

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(wait: &mut Pin<Box<Wait<'_>>>) -> bool {
    wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn waiters_are_woken_first_in_first_out() {
    let queue = WaitQueue::new(WaitReason::Other);
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(queue.wait())).collect();
    assert!(waits.iter_mut().all(|wait| !poll(wait)));
    assert_eq!(queue.len(), 3);
    for i in 0..3 {
        assert!(queue.wake_one());
        let woken: Vec<_> = waits[i..].iter_mut().map(poll).collect();
        assert!(woken[0] && !woken[1..].contains(&true));
    }
    assert!(!queue.wake_one());
}

#[test]
fn a_wake_before_the_first_poll_is_not_kept() {
    let queue = WaitQueue::new(WaitReason::Other);
    let mut wait = Box::pin(queue.wait());
    assert!(!queue.wake_one());
    assert!(!poll(&mut wait));
    assert!(queue.wake_one());
    assert!(poll(&mut wait));
}

#[test]
fn an_enabled_wait_is_in_the_queue_before_its_first_poll() {
    let queue = WaitQueue::new(WaitReason::Other);
    let mut wait = Box::pin(queue.wait());
    assert!(!wait.as_mut().enable(Waker::noop()));
    assert!(queue.wake_one());
    assert!(wait.as_mut().enable(Waker::noop()));
    assert!(poll(&mut wait));
}

#[test]
fn a_waiter_that_goes_passes_its_wake_on() {
    let queue = WaitQueue::new(WaitReason::Other);
    let (mut first, mut second) = (Box::pin(queue.wait()), Box::pin(queue.wait()));
    assert!(!poll(&mut first) && !poll(&mut second));
    queue.wake_one();
    drop(first);
    assert!(poll(&mut second));
}

#[test]
fn a_waiter_that_goes_after_a_wake_of_all_passes_nothing_on() {
    let queue = WaitQueue::new(WaitReason::Other);
    let (mut first, mut later) = (Box::pin(queue.wait()), Box::pin(queue.wait()));
    assert!(!poll(&mut first));
    assert_eq!(queue.wake_all(), 1);
    assert!(!poll(&mut later));
    drop(first);
    assert!(!poll(&mut later));
}

#[test]
fn a_waiter_in_the_middle_may_go() {
    let queue = WaitQueue::new(WaitReason::Other);
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(queue.wait())).collect();
    assert!(waits.iter_mut().all(|wait| !poll(wait)));
    drop(waits.remove(1));
    assert_eq!(queue.wake_all(), 2);
    assert!(waits.iter_mut().all(poll));
}

#[test]
fn a_wake_of_all_reaches_many_and_those_only() {
    let queue = WaitQueue::new(WaitReason::Other);
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(Arc::clone(&counter));
    let mut waits: Vec<_> = (0..100).map(|_| Box::pin(queue.wait())).collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(queue.wake_all(), 100);
    assert_eq!(counter.0.load(Ordering::Relaxed), 100);
    assert_eq!(queue.wake_all(), 0);
}

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let queue = WaitQueue::new(WaitReason::Other);
    let (old, new) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut wait = pin!(queue.wait());
    for counter in [&old, &new] {
        let waker = Waker::from(Arc::clone(counter));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    queue.wake_one();
    assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(Arc::strong_count(&old), 1);
}

#[test]
fn a_condition_is_looked_at_again_after_joining_the_queue() {
    let queue = WaitQueue::new(WaitReason::Other);
    let looks = Cell::new(0);
    let look = || {
        looks.set(looks.get() + 1);
        (looks.get() == 2).then_some("there")
    };
    let mut wait = pin!(queue.wait_for(look));
    assert_eq!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready("there"));
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_wake_that_came_while_the_second_look_succeeded_goes_to_the_next() {
    let queue = WaitQueue::new(WaitReason::Other);
    let mut other = Box::pin(queue.wait());
    let looks = Cell::new(0);
    let look = || {
        looks.set(looks.get() + 1);
        // Between the two looks the queue has this waiter at its front.
        if looks.get() == 2 {
            assert!(!poll(&mut other));
            assert!(queue.wake_one());
        }
        (looks.get() == 2).then_some(())
    };
    let mut wait = Box::pin(queue.wait_for(look));
    assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    drop(wait);
    assert!(poll(&mut other));
}

#[test]
fn a_wake_in_vain_joins_the_queue_again() {
    let queue = WaitQueue::new(WaitReason::Other);
    let ready = Cell::new(false);
    let mut wait = pin!(queue.wait_for(|| ready.get().then_some(())));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(context).is_pending());
    queue.wake_one();
    assert!(wait.as_mut().poll(context).is_pending());
    assert_eq!(queue.len(), 1);
    ready.set(true);
    queue.wake_one();
    assert!(wait.as_mut().poll(context).is_ready());
}

#[test]
fn a_waiting_task_shows_why_and_since_when() {
    let clock = simulate_time();
    static QUEUE: WaitQueue = WaitQueue::new(WaitReason::Page);
    clock.advance(Duration::from_micros(1024));
    let handle = spawn(async {
        QUEUE.wait().await;
        QUEUE.wait().await;
        sleep(Duration::from_secs(1)).await;
    });
    let task = handle.task();
    assert_eq!(task.wait(), None, "a task that is ready does not wait");
    run_until_idle();
    assert_eq!(task.wait(), Some((WaitReason::Page, 1_024_000)));
    clock.advance(Duration::from_micros(1024));
    QUEUE.wake_one();
    run_until_idle();
    assert_eq!(task.wait(), Some((WaitReason::Page, 2_048_000)), "the next wait for the same");
    QUEUE.wake_one();
    run_until_idle();
    assert_eq!(task.wait(), Some((WaitReason::Timer, 2_048_000)));
    block_on(handle).unwrap();
    assert_eq!(task.wait(), None);
}

#[test]
fn a_reason_is_not_kept_when_the_next_wait_notes_none() {
    static QUEUE: WaitQueue = WaitQueue::new(WaitReason::Page);
    let handle = spawn(async {
        QUEUE.wait().await;
        std::future::pending::<()>().await;
    });
    run_until_idle();
    assert_eq!(handle.task().wait().unwrap().0, WaitReason::Page);
    QUEUE.wake_one();
    run_until_idle();
    assert_eq!(handle.task().wait(), Some((WaitReason::Other, 0)));
    handle.abort();
    run_until_idle();
}
