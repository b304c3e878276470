//! Wakers that call back into what wakes them: nothing may hold a lock, or believe what it saw, across a wake.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::task::{Context, Poll, Wake, Waker};

use executor::host::{run_until_idle, simulate_time};
use executor::sync::{AtomicWaker, Barrier, Mutex, Notify, Semaphore, mpsc, oneshot, watch};
use executor::time::{Duration, sleep};
use executor::{WaitQueue, WaitReason, spawn};

type Action = Box<dyn FnMut() + Send>;

/// Runs an action each time it is woken, and counts. A wake inside the action does not run it again.
struct Calls {
    action: StdMutex<Option<Action>>,
    wakes: AtomicUsize,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        let action = self.action.lock().unwrap().take();
        if let Some(mut action) = action {
            action();
            *self.action.lock().unwrap() = Some(action);
        }
    }
}

fn calls(action: impl FnMut() + Send + 'static) -> (Arc<Calls>, Waker) {
    let calls = Arc::new(Calls { action: StdMutex::new(Some(Box::new(action))), wakes: AtomicUsize::new(0) });
    (Arc::clone(&calls), Waker::from(calls))
}

impl Calls {
    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

/// A waiting future that a waker polls again, or drops, while it is being woken.
type Shared = Arc<StdMutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

fn shared(future: impl Future<Output = ()> + Send + 'static) -> Shared {
    Arc::new(StdMutex::new(Some(Box::pin(future))))
}

fn wait_with(shared: &Shared, waker: &Waker) {
    assert!(poll(shared.lock().unwrap().as_mut().unwrap(), waker).is_pending());
}

/// Puts two futures into a queue of some kind. The waker of the first one polls it again and drops the second;
/// `wake` wakes both. Then a third must still be served by `wake`.
fn first_drops_second<F: Future<Output = ()> + Send + 'static>(make: impl Fn() -> F, wake: impl Fn()) {
    let (first, second) = (shared(make()), shared(make()));
    let (polled, dropped) = (Arc::clone(&first), Arc::clone(&second));
    let (calls_first, waker) = calls(move || {
        drop(dropped.lock().unwrap().take());
        let mut first = polled.lock().unwrap();
        if let Some(future) = first.as_mut() {
            assert!(poll(future, Waker::noop()).is_ready(), "the one that was woken is not done");
        }
        *first = None;
    });
    wait_with(&first, &waker);
    let (_, never) = calls(|| {});
    wait_with(&second, &never);
    wake();
    assert_eq!(calls_first.wakes(), 1);
    assert!(first.lock().unwrap().is_none() && second.lock().unwrap().is_none());
    let mut third = Box::pin(make());
    let (calls_third, waker) = calls(|| {});
    if poll(&mut third, &waker).is_pending() {
        wake();
        assert_eq!(calls_third.wakes(), 1);
        assert!(poll(&mut third, Waker::noop()).is_ready());
    }
}

#[test]
fn a_wait_queue_is_used_by_its_wakers() {
    static QUEUE: WaitQueue = WaitQueue::new(WaitReason::Other);
    first_drops_second(
        || QUEUE.wait(),
        || {
            QUEUE.wake_all();
        },
    );
    first_drops_second(
        || QUEUE.wait(),
        || {
            QUEUE.wake_one();
            QUEUE.wake_one();
        },
    );
    assert!(QUEUE.is_empty());
}

#[test]
fn a_notify_is_used_by_its_wakers() {
    let notify = Arc::new(Notify::new());
    let wakes = Arc::clone(&notify);
    first_drops_second(
        move || {
            let notify = Arc::clone(&notify);
            async move { notify.notified().await }
        },
        move || wakes.notify_waiters(),
    );
}

#[test]
fn a_semaphore_is_used_by_its_wakers() {
    let semaphore = Arc::new(Semaphore::new(0));
    let gives = Arc::clone(&semaphore);
    first_drops_second(
        move || {
            let semaphore = Arc::clone(&semaphore);
            async move { semaphore.acquire().await.unwrap().forget() }
        },
        move || gives.add_permits(2),
    );
}

#[test]
fn a_mutex_is_locked_by_the_waker_of_who_got_it() {
    let mutex = Arc::new(Mutex::new(0));
    let guard = mutex.try_lock().unwrap();
    let (takes, tries) = (Arc::clone(&mutex), Arc::clone(&mutex));
    let waiting = shared(async move { *takes.lock().await += 1 });
    let polled = Arc::clone(&waiting);
    let (calls, waker) = calls(move || {
        assert!(tries.try_lock().is_err(), "it is handed over, not free");
        assert!(poll(polled.lock().unwrap().as_mut().unwrap(), Waker::noop()).is_ready());
        *tries.try_lock().unwrap() += 10;
    });
    wait_with(&waiting, &waker);
    drop(guard);
    assert_eq!(calls.wakes(), 1);
    assert_eq!(*mutex.try_lock().unwrap(), 11);
}

#[test]
fn a_channel_is_used_by_its_receivers_waker() {
    let (send, receive) = mpsc::channel::<usize>(2);
    let receive = Arc::new(StdMutex::new(receive));
    let (again, drains) = (send.clone(), Arc::clone(&receive));
    let (calls, waker) = calls(move || {
        assert_eq!(drains.lock().unwrap().try_recv(), Ok(1));
        again.try_send(2).unwrap();
    });
    assert!(receive.lock().unwrap().poll_recv(&mut Context::from_waker(&waker)).is_pending());
    send.try_send(1).unwrap();
    assert_eq!(calls.wakes(), 1);
    assert_eq!(receive.lock().unwrap().try_recv(), Ok(2));
}

#[test]
fn a_oneshot_is_read_by_its_waker() {
    let (send, receive) = oneshot::channel::<u32>();
    let receive = Arc::new(StdMutex::new(Some(Box::pin(receive))));
    let reads = Arc::clone(&receive);
    let (calls, waker) = calls(move || {
        let mut receive = reads.lock().unwrap().take().unwrap();
        assert_eq!(poll(&mut receive, Waker::noop()), Poll::Ready(Ok(7)));
    });
    assert!(poll(receive.lock().unwrap().as_mut().unwrap(), &waker).is_pending());
    send.send(7).unwrap();
    assert_eq!(calls.wakes(), 1);
}

#[test]
fn a_watch_is_changed_by_its_waker() {
    let (send, mut receive) = watch::channel(0);
    let send = Arc::new(send);
    let changes = Arc::clone(&send);
    let (calls, waker) = calls(move || {
        changes.send_modify(|value| *value *= 2);
    });
    {
        let mut changed = Box::pin(receive.changed());
        assert!(poll(&mut changed, &waker).is_pending());
        send.send(4).unwrap();
        assert_eq!(calls.wakes(), 1);
        assert!(poll(&mut changed, Waker::noop()).is_ready());
    }
    assert_eq!(*receive.borrow(), 8);
}

#[test]
fn a_barrier_is_entered_again_by_a_waker() {
    let barrier = Arc::new(Barrier::new(2));
    let (waits, again) = (Arc::clone(&barrier), Arc::clone(&barrier));
    let first = shared(async move {
        waits.wait().await;
    });
    let second_round = shared(async move {
        again.wait().await;
    });
    let enters = Arc::clone(&second_round);
    let (calls_first, waker) = calls(move || wait_with(&enters, Waker::noop()));
    wait_with(&first, &waker);
    let mut other = Box::pin(barrier.wait());
    assert!(poll(&mut other, Waker::noop()).is_ready());
    assert_eq!(calls_first.wakes(), 1);
    let mut last = Box::pin(barrier.wait());
    assert!(poll(&mut last, Waker::noop()).is_ready(), "the second round has its first one");
}

#[test]
fn an_atomic_waker_is_registered_by_what_it_wakes() {
    let cell = Arc::new(AtomicWaker::new());
    let registers = Arc::clone(&cell);
    let (later, next) = calls(|| {});
    let (calls, waker) = calls(move || registers.register(&next));
    cell.register(&waker);
    cell.wake();
    assert_eq!((calls.wakes(), later.wakes()), (1, 0));
    cell.wake();
    assert_eq!((calls.wakes(), later.wakes()), (1, 1));
}

#[test]
fn a_timers_waker_sets_and_drops_timers() {
    let clock = simulate_time();
    let sleeps = |ms| shared(sleep(Duration::from_millis(ms)));
    let (due, also_due, later) = (sleeps(5), sleeps(5), sleeps(9));
    let (drops, moves) = (Arc::clone(&also_due), Arc::clone(&later));
    let (calls_due, waker) = calls(move || {
        drop(drops.lock().unwrap().take());
        *moves.lock().unwrap() = Some(Box::pin(sleep(Duration::from_millis(1))));
        wait_with(&moves, Waker::noop());
    });
    wait_with(&due, &waker);
    let (calls_also, never) = calls(|| {});
    wait_with(&also_due, &never);
    wait_with(&later, &never);
    clock.advance(Duration::from_millis(5));
    run_until_idle();
    assert_eq!(calls_due.wakes(), 1);
    // Both were due at the same moment: the second may have been collected before the first one's waker ran.
    assert!(calls_also.wakes() <= 1);
    clock.advance(Duration::from_millis(1));
    run_until_idle();
    assert!(poll(later.lock().unwrap().as_mut().unwrap(), Waker::noop()).is_ready());
}

#[test]
fn a_joiners_waker_spawns_and_aborts() {
    let handle = Arc::new(StdMutex::new(Some(Box::pin(spawn(async { 3 })))));
    let takes = Arc::clone(&handle);
    let (calls, waker) = calls(move || {
        let mut handle = takes.lock().unwrap().take().unwrap();
        assert_eq!(poll(&mut handle, Waker::noop()), Poll::Ready(Ok(3)));
        spawn(std::future::pending::<()>()).abort();
    });
    assert!(poll(handle.lock().unwrap().as_mut().unwrap(), &waker).is_pending());
    run_until_idle();
    assert_eq!(calls.wakes(), 1);
    assert_eq!(executor::live_tasks(), 0);
}
