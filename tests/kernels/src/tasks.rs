//! The executor's tasks on the machine: wakes, timers and ends by the thousand, and shares of the CPUs.

use alloc::{sync::Arc, vec::Vec};
use core::{
    future::{pending, poll_fn},
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    task::Poll,
    time::Duration,
};

use executor::{
    Builder, JoinHandle, TaskState,
    sync::{AtomicWaker, Mutex, Semaphore},
    time::{self, Instant},
    yield_now,
};
use kernel::cpus;

use crate::{
    check::{Failure, Needed, Outcome, ensure, eventually, in_time, storm},
    usage,
};

/// A task on CPU `number`, counted round.
fn on<F>(number: usize, future: F) -> Result<JoinHandle<F::Output>, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    let cpu = (number % cpus::online()) as u32;
    Builder::new().name("pinned").cpu(cpu).try_spawn(future).needed("a task could not be started")
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A place of a ring in which tokens go round.
#[derive(Default)]
struct Place {
    tokens: AtomicU64,
    waker: AtomicWaker,
}

/// A million times a task hands a token to one on the next CPU and wakes it. A wake that was lost would leave a token
/// where it is, and in the end all of them.
pub(crate) async fn million_wakes() -> Outcome {
    const PLACES: usize = 16;
    const TOKENS: u64 = 64;
    let wakes = 1_000_000 * storm() as u64;
    let ring: Arc<Vec<Place>> = Arc::new((0..PLACES).map(|_| Place::default()).collect());
    let (left, over) = (Arc::new(AtomicU64::new(wakes)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for number in 0..PLACES {
        let (ring, left, over) = (ring.clone(), left.clone(), over.clone());
        let place = poll_fn(move |context| {
            let (here, next) = (&ring[number], &ring[(number + 1) % PLACES]);
            here.waker.register(context.waker());
            for _ in 0..here.tokens.swap(0, SeqCst) {
                if left.fetch_sub(1, SeqCst) == 1 {
                    over.store(true, SeqCst);
                    ring.iter().for_each(|place| place.waker.wake());
                }
                next.tokens.fetch_add(1, SeqCst);
                next.waker.wake();
            }
            if over.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        });
        tasks.push(on(number, place)?);
    }
    for token in 0..TOKENS as usize {
        ring[token % PLACES].tokens.fetch_add(1, SeqCst);
        ring[token % PLACES].waker.wake();
    }
    let mut last = wakes;
    while !over.load(SeqCst) {
        let moved = || left.load(SeqCst) < last || over.load(SeqCst);
        eventually("a token goes on", moved).await?;
        last = left.load(SeqCst);
    }
    for task in tasks {
        in_time("a place of the ring ends", task).await?.needed("a task was lost")?;
    }
    let tokens: u64 = ring.iter().map(|place| place.tokens.load(SeqCst)).sum();
    ensure!(tokens == TOKENS, "{tokens} tokens of {TOKENS} are there");
    Ok(())
}

/// Ten thousand timers of all CPUs: none is early, all come, and those that are dropped do not.
pub(crate) async fn ten_thousand_timers() -> Outcome {
    const TIMERS: usize = 10_000;
    const SPREAD_US: u64 = 1_500_000;
    usage::stays_equal(storm(), |round| async move {
        let mut random = Random(round as u64 + 1);
        let early = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for number in 0..TIMERS {
            let deadline = Instant::now() + Duration::from_micros(random.next(SPREAD_US));
            let dropped = (number % 4 == 3).then(|| Duration::from_micros(random.next(SPREAD_US)));
            let early = early.clone();
            tasks.push(on(number, async move {
                let fired = match dropped {
                    None => {
                        time::sleep_until(deadline).await;
                        true
                    }
                    Some(after) => time::timeout(after, time::sleep_until(deadline)).await.is_ok(),
                };
                if fired && Instant::now() < deadline {
                    early.fetch_add(1, Relaxed);
                }
            })?);
        }
        for task in tasks {
            in_time("a timer fires", task).await?.needed("a task was lost")?;
        }
        let early = early.load(Relaxed);
        ensure!(early == 0, "{early} of {TIMERS} timers were early");
        Ok(())
    })
    .await
}

/// Tasks are aborted by others at any moment: each ends once, with its future dropped, and nothing that it had or
/// waited for is lost.
pub(crate) async fn abort_storm() -> Outcome {
    const TASKS: usize = 400;
    usage::stays_equal(6 * storm(), |round| async move {
        let mut random = Random(round as u64 + 7);
        let mutex = Arc::new(Mutex::new(0_u64));
        let permits = Arc::new(Semaphore::new(3));
        let alive = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for number in 0..TASKS {
            let (mutex, permits, alive) = (mutex.clone(), permits.clone(), Alive::new(&alive));
            let nap = Duration::from_micros(random.next(3_000));
            let task = async move {
                let _alive = alive;
                match number % 5 {
                    0 => time::sleep(nap).await,
                    1 => pending().await,
                    2 => {
                        let mut guard = mutex.lock().await;
                        yield_now().await;
                        *guard += 1;
                    }
                    3 => {
                        let _permits = permits.acquire_many(2).await;
                        time::sleep(nap / 16).await;
                    }
                    _ => loop {
                        yield_now().await;
                    },
                }
            };
            let builder = Builder::new().name("short-lived");
            let builder =
                if number % 3 == 0 { builder.cpu((number % cpus::online()) as u32) } else { builder };
            tasks.push(builder.try_spawn(task).needed("a task could not be started")?);
        }
        // From each CPU, everybody aborts a part of them; each task is aborted by somebody, some by two.
        let mut aborters = Vec::new();
        for number in 0..cpus::online() {
            let mut victims = Vec::new();
            for (index, task) in tasks.iter().enumerate() {
                if index % cpus::online() == number || index % 7 == 0 {
                    victims.push((task.abort_handle(), Duration::from_micros(random.next(20))));
                }
            }
            aborters.push(on(number, async move {
                for (victim, nap) in victims {
                    victim.abort();
                    time::sleep(nap).await;
                }
            })?);
        }
        for aborter in aborters {
            in_time("all are aborted", aborter).await?.needed("a task was lost")?;
        }
        let mut done = 0;
        for task in tasks {
            let state = task.task();
            done += u64::from(in_time("an aborted task ends", task).await?.is_ok());
            ensure!(state.state() == TaskState::Done, "a task that was joined is {:?}", state.state());
        }
        let alive = alive.load(SeqCst);
        ensure!(alive == 0, "{alive} futures were not dropped, of {TASKS}");
        ensure!(done < TASKS as u64, "nobody was aborted");
        let counted = in_time("the mutex is free", mutex.lock()).await?;
        ensure!(*counted <= TASKS as u64 / 5, "{} tasks had the mutex", *counted);
        ensure!(permits.available_permits() == 3, "{} permits are left", permits.available_permits());
        Ok(())
    })
    .await
}

/// Counts futures that are there.
struct Alive(Arc<AtomicU64>);

impl Alive {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Tasks that are always ready, eight for each CPU, all begun on one: no task gets less than half of its share.
pub(crate) async fn tasks_share_the_cpus() -> Outcome {
    const FOR_EACH: usize = 8;
    const TIME: Duration = Duration::from_millis(1500);
    let stop = Arc::new(AtomicBool::new(false));
    let counters: Vec<Arc<AtomicU64>> = (0..FOR_EACH * cpus::online()).map(|_| Arc::default()).collect();
    let mut tasks = Vec::new();
    for counter in &counters {
        let (counter, stop) = (counter.clone(), stop.clone());
        let task = Builder::new().name("busy").try_spawn(async move {
            while !stop.load(Relaxed) {
                work();
                counter.fetch_add(1, Relaxed);
                yield_now().await;
            }
        });
        tasks.push(task.needed("a task could not be started")?);
    }
    // Until the others have taken their part.
    time::sleep(TIME / 8).await;
    let before: Vec<u64> = counters.iter().map(|counter| counter.load(Relaxed)).collect();
    time::sleep(TIME).await;
    let now = counters.iter().map(|counter| counter.load(Relaxed));
    let mut counts: Vec<u64> = now.zip(before).map(|(now, before)| now - before).collect();
    stop.store(true, Relaxed);
    for task in tasks {
        in_time("a busy task ends", task).await?.needed("a task was lost")?;
    }
    counts.sort_unstable();
    let share = counts.iter().sum::<u64>() / counts.len() as u64;
    ensure!(counts[0] * 2 >= share, "a task had {} turns, and its share is {share}: {counts:?}", counts[0]);
    Ok(())
}

/// Some microseconds.
fn work() {
    for step in 0..2_000_u32 {
        core::hint::black_box(step);
    }
}
