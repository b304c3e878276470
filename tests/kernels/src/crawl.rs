//! A disk that crawls holds up nobody but those who want its pages.

use alloc::sync::Arc;
use core::time::Duration;

use executor::{
    WaitReason,
    lock::SpinLock,
    sync::{Mutex, oneshot},
    time::{self, Instant},
};
use kernel::{
    console::ticker,
    machine::KEYBOARD,
    thread::{self, block_on},
};
use pc_keyboard::DecodedKey;

use crate::{
    check::{Failure, Needed, Outcome, ensure, eventually, in_time},
    crew::Crew,
    pages::{self, Tally},
};

const THREADS: usize = 1000;
/// From page to page. Nothing divides both.
const STRIDE: usize = 387;
/// How long the pulse is felt.
const TIME: Duration = Duration::from_millis(3000);
/// Measured so often at most; the best counts, as the host may be busy with something else.
const TRIES: usize = 10;
/// Waits may be so much longer than in the same machine when it is idle.
const TOLERANCE: Duration = Duration::from_millis(5);
/// What the host types.
const TYPED: &str = "faultline";

/// How late things are.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    /// A 10 ms ticker, in 99 of 100 cases.
    ticks: Duration,
    /// A wait for a mutex whose holder sleeps 5 ms: the time beyond that, in the mean.
    mutex: Duration,
    /// Joining a task that sleeps 5 ms, likewise.
    join: Duration,
    /// A kernel thread that does both, likewise.
    thread: Duration,
}

impl Pulse {
    fn best(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.min(other.ticks),
            mutex: self.mutex.min(other.mutex),
            join: self.join.min(other.join),
            thread: self.thread.min(other.thread),
        }
    }

    /// What is later than in `idle` by more than is tolerated.
    fn check(self, idle: Self) -> Outcome {
        let pairs = [
            ("the ticker", self.ticks, idle.ticks),
            ("a mutex", self.mutex, idle.mutex),
            ("a join", self.join, idle.join),
            ("a thread's mutex and join", self.thread, idle.thread),
        ];
        for (what, crawling, idle) in pairs {
            ensure!(
                crawling <= idle + TOLERANCE,
                "{what} is {} us late, and {} us in the idle machine",
                crawling.as_micros(),
                idle.as_micros()
            );
        }
        Ok(())
    }
}

/// Timer, mutex, join and keyboard are as quick as ever while 1,000 threads wait for a disk that is throttled
/// to ten requests a second.
pub(crate) async fn crawling_disk_delays_nobody() -> Outcome {
    ticker::start();
    let mut idle = pulse().await?;
    let disk = pages::disk()?;
    let window = pages::window(&disk.object, THREADS)?;
    let tally = Arc::new(Tally::default());
    let mut crew = Crew::default();
    for number in 0..THREADS {
        // Not in order: what is read ahead would make the disk a quick one.
        let page = number * STRIDE % THREADS;
        let (window, tally) = (window.clone(), tally.clone());
        crew.add("reader", move || pages::read(&window, page, &tally))?;
    }
    let parked = || crew.waiting_for(WaitReason::Page);
    eventually("the threads are parked", || parked() + 50 > THREADS).await?;
    let mut crawling = pulse().await?;
    typing().await?;
    for _ in 1..TRIES {
        if crawling.check(idle).is_ok() {
            break;
        }
        crawling = crawling.best(pulse().await?);
    }
    kernel::println!("idle: {idle:?}; crawling: {crawling:?}");
    let (parked, read) = (parked(), tally.right());
    ensure!(parked > THREADS / 2, "only {parked} threads are parked: the disk does not crawl");
    ensure!(read > 0 && parked + read <= THREADS, "{read} threads read, {parked} are parked");
    crew.kill();
    crew.finish().await?;
    if crawling.check(idle).is_err() {
        // The host may have more to do now than at the beginning.
        idle = idle.best(pulse().await?);
    }
    crawling.check(idle)
}

async fn pulse() -> Result<Pulse, Failure> {
    let before = ticker::lateness();
    let thread = thread::spawn("pulse", || {
        let (mut late, mut turns) = (Duration::ZERO, 0);
        let began = Instant::now();
        while began.elapsed() < TIME {
            late += block_on(mutex()) + block_on(join());
            turns += 1;
        }
        THREAD_LATENESS.lock().replace(late / turns);
    });
    let thread = thread.needed("a thread could not be started")?;
    let began = Instant::now();
    let (mut mutex_late, mut join_late, mut turns) = (Duration::ZERO, Duration::ZERO, 0);
    while began.elapsed() < TIME {
        mutex_late += mutex().await;
        join_late += join().await;
        turns += 1;
    }
    in_time("the thread has felt the pulse", thread).await?;
    let of_thread = THREAD_LATENESS.lock().take();
    let ticks = Duration::from_nanos(ticker::lateness().since(&before).percentile(99));
    let thread = of_thread.ok_or_else(|| Failure::new("the thread has not felt the pulse".into()))?;
    Ok(Pulse { ticks, mutex: mutex_late / turns, join: join_late / turns, thread })
}

static THREAD_LATENESS: SpinLock<Option<Duration>> = SpinLock::new("lateness", None);

/// How long a sleep is that others have to wait for.
const NAP: Duration = Duration::from_millis(5);

/// Waits for a mutex whose holder sleeps; the time beyond that sleep.
async fn mutex() -> Duration {
    let (mutex, (locked, has_locked)) = (Arc::new(Mutex::new(())), oneshot::channel());
    let shared = mutex.clone();
    let holder = executor::spawn(async move {
        let guard = shared.lock().await;
        let _ = locked.send(Instant::now());
        time::sleep(NAP).await;
        drop(guard);
    });
    let Ok(began) = has_locked.await else { return Duration::MAX };
    drop(mutex.lock().await);
    drop(holder);
    began.elapsed().saturating_sub(NAP)
}

/// Joins a task that sleeps; the time beyond that sleep.
async fn join() -> Duration {
    let began = Instant::now();
    let sleeper = executor::spawn(time::sleep(NAP));
    let _ = sleeper.await;
    began.elapsed().saturating_sub(NAP)
}

/// The host types, a key when it has heard of the one before.
async fn typing() -> Outcome {
    let mut keys = KEYBOARD.keys().ok_or_else(|| Failure::new("somebody else has the keyboard".into()))?;
    drivers::power::control("type");
    for expected in TYPED.chars() {
        match in_time("a key is pressed", keys.next()).await? {
            DecodedKey::Unicode(key) if key == expected => {
                drivers::power::control(&alloc::format!("typed {key}"));
            }
            other => ensure!(false, "{expected:?} was typed, {other:?} arrived"),
        }
    }
    Ok(())
}
