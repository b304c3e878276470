//! What the crate's documentation says of absurd numbers, closed channels, and what comes after the end.
#![cfg(not(loom))]

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use executor::host::{block_on, run_until_idle, simulate_time};
use executor::sync::{Barrier, Semaphore, TryAcquireError, mpsc, oneshot, watch};
use executor::time::{
    Duration, Elapsed, Instant, MissedTickBehavior, interval, interval_at, now, sleep_until, timeout_at,
};
use executor::{Builder, JoinError, WaitQueue, WaitReason, spawn, yield_now};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Whether it panics, and with the lock guards that it held released.
fn panics(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_nice_factor_of_zero_is_one_and_of_255_still_lets_others_go() {
    assert_eq!(spawn(async {}).task().nice(), 1);
    let none = Builder::new().nice(0).spawn(async {});
    assert_eq!(none.task().nice(), 1);
    const ROUNDS: u32 = 100;
    let greedy = Builder::new().nice(u8::MAX).spawn(async {
        for _ in 0..(ROUNDS + 2) * 255 {
            yield_now().await;
        }
        panic!("others have less than one turn a round");
    });
    assert_eq!(greedy.task().nice(), 255);
    let modest = spawn(async {
        for _ in 0..ROUNDS {
            yield_now().await;
        }
    });
    block_on(modest).unwrap();
    greedy.abort();
    assert_eq!(block_on(greedy), Err::<(), _>(JoinError::Aborted));
}

#[test]
fn times_in_the_past_are_over_at_once() {
    let clock = simulate_time();
    clock.advance(Duration::from_secs(5));
    assert!(poll(pin!(sleep_until(Instant::default()))).is_ready());
    assert_eq!(block_on(timeout_at(Instant::default(), pending::<()>())), Err(Elapsed));
    assert_eq!(block_on(timeout_at(Instant::default(), async { 3 })), Ok(3));
    assert_eq!((now() - (now() + Duration::from_secs(1)), Instant::FOREVER.elapsed()), Default::default());
    let mut late = interval_at(Instant::default(), Duration::from_secs(4));
    late.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ticks = block_on(async { [late.tick().await, late.tick().await] });
    assert_eq!(ticks.map(Instant::as_nanos), [0, 8_000_000_000]);
    assert_eq!(now().as_nanos(), 8_000_000_000);
}

#[test]
fn times_beyond_the_end_of_time_are_never_over() {
    simulate_time();
    assert_eq!(now() + Duration::MAX, Instant::FOREVER);
    let mut rare = interval(Duration::MAX);
    assert_eq!(block_on(rare.tick()), Instant::default());
    assert!(poll(pin!(rare.tick())).is_pending());
    rare.reset();
    assert!(poll(pin!(rare.tick())).is_pending());
}

#[test]
#[should_panic(expected = "an interval needs a period")]
fn an_interval_without_a_period_is_refused() {
    drop(interval(Duration::ZERO));
}

#[test]
fn a_closed_channel_refuses_and_ends_every_wait() {
    let (send, mut receive) = mpsc::channel(1);
    send.try_send(1).unwrap();
    let mut waits = pin!(send.reserve());
    assert!(poll(waits.as_mut()).is_pending());
    receive.close();
    receive.close();
    assert!(matches!(poll(waits), Poll::Ready(Err(mpsc::SendError(())))));
    assert_eq!(block_on(send.send(2)), Err(mpsc::SendError(2)));
    assert_eq!(send.try_send(3), Err(mpsc::TrySendError::Closed(3)));
    assert_eq!(send.try_reserve().unwrap_err(), mpsc::TrySendError::Closed(()));
    block_on(send.closed());
    assert_eq!(
        [block_on(receive.recv()), block_on(receive.recv()), block_on(receive.recv())],
        [Some(1), None, None]
    );
    assert_eq!(receive.try_recv(), Err(mpsc::TryRecvError::Disconnected));

    let (send, receive) = oneshot::channel::<()>();
    drop(send);
    assert_eq!(block_on(receive), Err(oneshot::RecvError));

    let (send, mut receive) = watch::channel(7);
    drop(send);
    assert_eq!(block_on(receive.changed()), Err(watch::RecvError));
    assert_eq!(block_on(receive.wait_for(|value| *value == 8)).err(), Some(watch::RecvError));
    assert_eq!(*block_on(receive.wait_for(|value| *value == 7)).unwrap(), 7);
}

#[test]
#[should_panic(expected = "a channel needs a place for a message")]
fn a_channel_without_places_is_refused() {
    drop(mpsc::channel::<()>(0));
}

#[test]
fn a_channel_of_absurdly_many_places_takes_memory_for_what_is_in_it() {
    let (send, mut receive) = mpsc::channel(usize::MAX);
    send.try_send([1_u64; 100]).unwrap();
    assert_eq!(send.capacity(), usize::MAX - 1);
    assert_eq!(receive.try_recv(), Ok([1; 100]));
}

#[test]
fn more_permits_than_a_semaphore_can_hold_are_refused_and_change_nothing() {
    let many = u32::MAX / 4 + 1;
    assert_eq!(many as usize, Semaphore::MAX_PERMITS + 1);
    assert!(panics(|| _ = Semaphore::new(many as usize)));

    let full = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    assert!(panics(|| full.add_permits(1)));
    assert!(panics(|| full.add_permits(usize::MAX)));
    assert!(panics(|| drop(full.acquire_many(many))));
    for permits in [many, many * 2, u32::MAX] {
        assert_eq!(full.try_acquire_many(permits).unwrap_err(), TryAcquireError::NoPermits);
        let owned = Arc::clone(&full).try_acquire_many_owned(permits);
        assert_eq!(owned.unwrap_err(), TryAcquireError::NoPermits);
    }
    assert_eq!(full.available_permits(), Semaphore::MAX_PERMITS);
    assert_eq!(full.forget_permits(usize::MAX), Semaphore::MAX_PERMITS);
}

#[test]
fn permits_that_overflow_are_refused_also_while_somebody_waits() {
    let semaphore = Semaphore::new(Semaphore::MAX_PERMITS - 1);
    let mut waits = pin!(semaphore.acquire_many(Semaphore::MAX_PERMITS as u32));
    assert!(poll(waits.as_mut()).is_pending());
    assert!(panics(|| semaphore.add_permits(2)));
    assert_eq!(semaphore.available_permits(), Semaphore::MAX_PERMITS - 1);
    assert!(poll(waits.as_mut()).is_pending());
    semaphore.add_permits(1);
    assert!(poll(waits).is_ready());
}

#[test]
fn who_wants_more_permits_than_there_will_be_waits_until_the_semaphore_is_closed() {
    let semaphore = Semaphore::new(1);
    let mut waits = pin!(semaphore.acquire_many(Semaphore::MAX_PERMITS as u32));
    assert!(poll(waits.as_mut()).is_pending());
    semaphore.close();
    assert!(matches!(poll(waits), Poll::Ready(Err(_))));
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
}

#[test]
fn a_barrier_for_nobody_holds_nobody_up() {
    let barrier = Barrier::new(0);
    for _ in 0..2 {
        assert!(matches!(poll(pin!(barrier.wait())), Poll::Ready(result) if result.is_leader()));
    }
}

#[test]
fn waking_an_empty_queue_does_nothing() {
    let queue = WaitQueue::new(WaitReason::Other);
    assert!(!queue.wake_one());
    assert_eq!(queue.wake_all(), 0);
    assert!(poll(pin!(queue.wait())).is_pending());
}

/// Counts its drops.
struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_of_a_thread_that_ends_are_neither_polled_nor_dropped_and_may_still_be_woken() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (counts, on_drop) = (Arc::clone(&drops), OnDrop(Arc::clone(&drops)));
    let (task, waits, queued) = std::thread::spawn(move || {
        let waits = spawn(async move {
            let _on_drop = on_drop;
            pending::<()>().await;
        });
        run_until_idle();
        let queued = spawn(async move { drop(OnDrop(counts)) });
        (waits.task(), waits, queued)
    })
    .join()
    .unwrap();
    task.wake();
    waits.abort();
    queued.abort();
    assert!(!waits.is_finished() && !queued.is_finished());
    run_until_idle();
    drop((waits, queued, task));
    assert_eq!(drops.load(Ordering::Relaxed), 0);
}

#[test]
fn spawning_after_the_end_queues_for_the_next_run_of_that_cpu() {
    block_on(async {});
    let after = spawn(async { 5 });
    assert!(!after.is_finished());
    assert_eq!(block_on(after), Ok(5));
}
