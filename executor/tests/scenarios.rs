//! Scenarios of several CPUs, tasks and cancellations: shuttle runs each in some hundreds of random orders of its
//! steps. They are larger than what loom can try completely, see `models/`.
//!
//! Run by `RUSTFLAGS="--cfg loom --cfg shuttle" cargo test -p executor --release --test scenarios`. Each shuttle
//! thread is a CPU. A lost wake shows as a deadlock. A failure prints the schedule that leads to it, for
//! `shuttle::replay`.
#![cfg(shuttle)]

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use executor::host::{bury, cells, run_ready, run_until, set_clock};
use executor::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, mpsc, watch};
use executor::time::{Duration, now, sleep, timeout};
use executor::{JoinHandle, WaitQueue, WaitReason, spawn, spawn_pinned, yield_now};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

/// How many orders of each kind are tried.
const ORDERS: usize = 150;
/// CPUs beside the first one.
const OTHERS: usize = 2;

fn scenario(f: fn()) {
    run(RandomScheduler::new(ORDERS), f);
    // Few switches, at unlikely places.
    run(PctScheduler::new(4, ORDERS), f);
}

/// For scenarios in which a CPU spins until another one has gone on: only a fair choice ends them.
fn fair_scenario(f: fn()) {
    run(RandomScheduler::new(ORDERS), f);
}

fn run(scheduler: impl Scheduler + 'static, f: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    shuttle::Runner::new(scheduler, config).run(move || {
        assert_eq!(cells(), 0);
        run_ready();
        f();
        run_ready();
        bury();
        assert_eq!(cells(), 0, "a task's memory is not freed");
    });
}

/// Runs all CPUs until these tasks are done.
fn finish(tasks: Vec<JoinHandle<()>>) {
    let tasks = Arc::new(tasks);
    let others: Vec<_> = (0..OTHERS)
        .map(|_| {
            let tasks = Arc::clone(&tasks);
            shuttle::thread::spawn(move || run_until(|| tasks.iter().all(JoinHandle::is_finished)))
        })
        .collect();
    run_until(|| tasks.iter().all(JoinHandle::is_finished));
    for other in others {
        other.join().unwrap();
    }
}

/// Polls a future a few times, and gives it up then.
async fn impatient<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let result = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = result {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

#[test]
fn producers_and_consumers_that_give_up_again_and_again_lose_no_message() {
    const PRODUCERS: usize = 4;
    const MESSAGES: usize = 4;
    scenario(|| {
        let (send, receive) = mpsc::channel(2);
        let receive = Arc::new(Mutex::new(receive));
        let seen: Arc<std::sync::Mutex<Vec<usize>>> = Arc::default();
        let producers = (0..PRODUCERS).map(|producer| {
            let send = send.clone();
            spawn(async move {
                for i in 0..MESSAGES {
                    let permit = match impatient(1 + i % 2, send.reserve()).await {
                        Some(permit) => permit.unwrap(),
                        None => send.reserve().await.unwrap(),
                    };
                    permit.send(producer * MESSAGES + i);
                }
            })
        });
        let mut tasks: Vec<_> = producers.collect();
        drop(send);
        for _ in 0..2 {
            let (receive, seen) = (Arc::clone(&receive), Arc::clone(&seen));
            tasks.push(spawn(async move {
                loop {
                    let mut receive = receive.lock().await;
                    let message = impatient(2, receive.recv()).await;
                    match message {
                        Some(Some(message)) => seen.lock().unwrap().push(message),
                        Some(None) => return,
                        None => {
                            let Some(message) = receive.recv().await else { return };
                            seen.lock().unwrap().push(message);
                        }
                    }
                }
            }));
        }
        finish(tasks);
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        for producer in 0..PRODUCERS {
            let own: Vec<_> = seen.iter().filter(|message| *message / MESSAGES == producer).collect();
            assert!(own.is_sorted(), "messages of one sender overtake each other");
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..PRODUCERS * MESSAGES).collect::<Vec<_>>());
    });
}

#[test]
fn a_receiver_that_goes_ends_every_sender() {
    scenario(|| {
        let (send, mut receive) = mpsc::channel(1);
        let mut tasks: Vec<_> = (0..3)
            .map(|_| {
                let send = send.clone();
                spawn(async move { while send.send(()).await.is_ok() {} })
            })
            .collect();
        tasks.push(spawn(async move { send.closed().await }));
        tasks.push(spawn(async move {
            for _ in 0..3 {
                receive.recv().await.unwrap();
            }
        }));
        finish(tasks);
    });
}

/// Counts who is inside something, and how many there are at most.
#[derive(Default)]
struct Inside(AtomicUsize);

struct Leave<'a>(&'a Inside);

impl Inside {
    fn enter(&self, most: usize) -> Leave<'_> {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) < most, "too many are inside");
        Leave(self)
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A timeout that looks at the time first: what was given to the future at the last moment is dropped with it.
async fn strict_timeout(limit: Duration, future: impl Future<Output = ()>) -> bool {
    let (mut timer, mut future) = (pin!(sleep(limit)), pin!(future));
    poll_fn(|context| match timer.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending => future.as_mut().poll(context).map(|()| true),
    })
    .await
}

#[test]
fn timeouts_anywhere_leave_a_mutex_a_semaphore_and_a_lock_as_they_were() {
    fair_scenario(|| {
        let shared = Arc::new((
            Mutex::new(0),
            Semaphore::new(3),
            RwLock::new(0),
            [const { Inside(AtomicUsize::new(0)) }; 3],
        ));
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks: Vec<_> = (0..5)
            .map(|task| {
                let (shared, done) = (Arc::clone(&shared), Arc::clone(&done));
                spawn(async move {
                    let (mutex, semaphore, lock, inside) = &*shared;
                    for round in 0..3 {
                        let limit = Duration::from_nanos(4_000 * (1 + (5 * task + 3 * round) % 8));
                        let work = async {
                            let _permit = semaphore.acquire().await.unwrap();
                            let _inside = inside[0].enter(3);
                            if task % 2 == 0 {
                                let mut value = lock.write().await;
                                let _inside = inside[1].enter(1);
                                sleep(Duration::from_nanos(1_000)).await;
                                *value += 1;
                            } else {
                                let _value = lock.read().await;
                            }
                            let mut value = mutex.lock().await;
                            let _inside = inside[2].enter(1);
                            let before = *value;
                            sleep(Duration::from_nanos(500)).await;
                            *value = before + 1;
                        };
                        let over = if round % 2 == 0 {
                            timeout(limit, work).await.is_ok()
                        } else {
                            strict_timeout(limit, work).await
                        };
                        done.fetch_add(usize::from(over), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // The clock goes on while somebody works.
        let works = Arc::new(AtomicUsize::new(tasks.len()));
        let workers = std::mem::take(&mut tasks);
        for worker in workers {
            let works = Arc::clone(&works);
            tasks.push(spawn(async move {
                worker.await.unwrap();
                works.fetch_sub(1, Ordering::Relaxed);
            }));
        }
        finish_with_clock(tasks, &works);
        let (mutex, semaphore, lock, _) = &*shared;
        assert_eq!(semaphore.available_permits(), 3);
        assert_eq!(*mutex.try_lock().unwrap(), done.load(Ordering::Relaxed));
        assert!(*lock.try_write().unwrap() <= 9);
    });
}

/// As [`finish`], while every CPU has a task that moves the clock on.
fn finish_with_clock(tasks: Vec<JoinHandle<()>>, works: &Arc<AtomicUsize>) {
    let tasks = Arc::new(tasks);
    let cpu = |tasks: Arc<Vec<JoinHandle<()>>>, works: Arc<AtomicUsize>| {
        let clock = spawn_pinned(async move {
            while works.load(Ordering::Relaxed) > 0 {
                // All times are multiples of this, so that much ends at once.
                set_clock(now().as_nanos() + 500);
                for _ in 0..3 {
                    yield_now().await;
                }
            }
        });
        run_until(|| clock.is_finished() && tasks.iter().all(JoinHandle::is_finished));
    };
    let others: Vec<_> = (0..OTHERS)
        .map(|_| {
            let (tasks, works) = (Arc::clone(&tasks), Arc::clone(works));
            shuttle::thread::spawn(move || cpu(tasks, works))
        })
        .collect();
    cpu(Arc::clone(&tasks), Arc::clone(works));
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn wakes_given_to_tasks_that_are_aborted_reach_the_others() {
    const KEPT: usize = 3;
    scenario(|| {
        let shared = Arc::new((WaitQueue::new(WaitReason::Other), AtomicUsize::new(0), Notify::new()));
        let put = |(queue, tokens, _): &(WaitQueue, AtomicUsize, Notify)| {
            tokens.fetch_add(1, Ordering::Relaxed);
            queue.wake_one();
        };
        let (mut tasks, mut aborted) = (Vec::new(), Vec::new());
        for i in 0..2 * KEPT {
            let keep = i % 2 == 1;
            let group = if keep { &mut tasks } else { &mut aborted };
            let place = Arc::clone(&shared);
            group.push(spawn(async move {
                let (queue, tokens, _) = &*place;
                let take = |tokens: usize| tokens.checked_sub(1);
                queue.wait_for(|| tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()).await;
                if !keep {
                    put(&place);
                    pending::<()>().await;
                }
            }));
            let place = Arc::clone(&shared);
            group.push(spawn(async move {
                // From one to the next, so that each gets one.
                place.2.notified().await;
                place.2.notify_one();
                if !keep {
                    pending::<()>().await;
                }
            }));
        }
        tasks.push(spawn(async move {
            yield_now().await;
            shared.2.notify_one();
            for (i, task) in aborted.iter().enumerate() {
                if i % 2 == 0 {
                    put(&shared);
                }
                task.abort();
                yield_now().await;
            }
            for task in aborted {
                let _ = task.await;
            }
        }));
        finish(tasks);
    });
}

#[test]
fn a_barrier_and_a_watch_keep_rounds_together() {
    const TASKS: usize = 4;
    const ROUNDS: usize = 3;
    scenario(|| {
        let barrier = Arc::new(Barrier::new(TASKS));
        let (send, receive) = watch::channel(0);
        let send = Arc::new(send);
        let mut tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (barrier, send) = (Arc::clone(&barrier), Arc::clone(&send));
                spawn(async move {
                    for round in 0..ROUNDS {
                        if barrier.wait().await.is_leader() {
                            send.send_modify(|value| *value += 1);
                        }
                        assert!(*send.borrow() <= round + 1, "a round ended before all had come");
                    }
                })
            })
            .collect();
        drop(send);
        tasks.push(spawn(async move {
            let mut receive = receive;
            let _ = impatient(2, receive.changed()).await;
            assert_eq!(*receive.wait_for(|value| *value == ROUNDS).await.unwrap(), ROUNDS);
        }));
        finish(tasks);
    });
}
