//! Several CPUs: all are up, agree on the time, and wake each other.

use alloc::{sync::Arc, vec::Vec};
use core::{
    sync::atomic::Ordering::{Acquire, Release},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{Builder, JoinHandle, sync::Notify, time};
use kernel::{arch::cpu::Cpu, clock, cpus};

use crate::{
    check::{Failure, Needed, Outcome, ensure, eventually, expected_cpus, in_time, storm},
    crew::Crew,
};

/// A task on one CPU.
fn on<F>(cpu: &Cpu, future: F) -> Result<JoinHandle<F::Output>, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    Builder::new().name("pinned").cpu(cpu.number()).try_spawn(future).needed("a task could not be started")
}

/// Every CPU that the machine has is up, has its own number, and runs tasks and timers.
pub(crate) async fn all_cpus_are_up() -> Outcome {
    let (online, expected) = (cpus::online(), expected_cpus());
    ensure!(online == expected, "{online} CPUs are up, not {expected}");
    let mut tasks = Vec::new();
    for cpu in cpus::all() {
        let task = on(cpu, async {
            let before = executor::current_cpu();
            time::sleep(Duration::from_millis(2)).await;
            (before, executor::current_cpu())
        });
        tasks.push((cpu.number(), task?));
    }
    for (number, task) in tasks {
        let (before, after) = in_time("a task on each CPU ends", task).await?.needed("a pinned task")?;
        ensure!(before == number && after == number, "a task of CPU {number} ran on {before} and {after}");
    }
    Ok(())
}

/// Who has the token: looked at so often, and then again a bit later. The host may have fewer CPUs than the machine,
/// and the one that has the token may wait for its turn there.
const LOOKS: u32 = 500;
const LOOK: Duration = Duration::from_micros(50);

/// A token goes round all CPUs as fast as they see it: each reads the clock, and never finds an earlier time than the
/// one before.
pub(crate) async fn clock_never_goes_back() -> Outcome {
    /// Whose turn it is, and the time that the one before has read.
    struct Token {
        turn: AtomicUsize,
        time: AtomicU64,
        /// By how much the clock went back in all, and how often.
        back: AtomicU64,
        times: AtomicU64,
    }
    let passes = 1_000 * storm();
    let token = Arc::new(Token {
        turn: AtomicUsize::new(0),
        time: AtomicU64::new(0),
        back: AtomicU64::new(0),
        times: AtomicU64::new(0),
    });
    let all = cpus::online();
    let mut tasks = Vec::new();
    for (place, cpu) in cpus::all().enumerate() {
        let token = token.clone();
        let rounds = async move {
            for round in 0..passes {
                let mine = round * all + place;
                while !(0..LOOKS).any(|_| token.turn.load(Acquire) == mine) {
                    time::sleep(LOOK).await;
                }
                let (last, now) = (token.time.load(Relaxed), clock::now());
                if now < last {
                    token.back.fetch_add(last - now, Relaxed);
                    token.times.fetch_add(1, Relaxed);
                }
                token.time.store(now, Relaxed);
                token.turn.store(mine + 1, Release);
            }
        };
        tasks.push(on(cpu, rounds)?);
    }
    for task in tasks {
        in_time("the token has gone round", task).await?.needed("a pinned task")?;
    }
    let (back, times) = (token.back.load(Relaxed), token.times.load(Relaxed));
    ensure!(times == 0, "{times} readings of {} were earlier, by {back} ns in all", passes * all);
    Ok(())
}

/// A task of a CPU that sleeps runs when another CPU wakes it: by a kick, and not by any timer.
pub(crate) async fn sleeping_cpu_is_woken() -> Outcome {
    /// Much longer than a kick takes, also on a busy host.
    const SLOWEST: Duration = Duration::from_secs(2);
    let rounds = 50 * storm() as u64;
    let sleeper = cpus::all().last().needed("a CPU")?;
    let waker = cpus::all().next().needed("a CPU")?;
    let (wake, woken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ran = Arc::new(AtomicU64::new(0));
    let sleeping = {
        let (wake, woken, ran) = (wake.clone(), woken.clone(), ran.clone());
        on(sleeper, async move {
            for _ in 0..rounds {
                wake.notified().await;
                ran.fetch_add(1, Relaxed);
                woken.notify_one();
            }
        })?
    };
    let waking = on(waker, async move {
        for round in 0..rounds {
            // Long enough for it to fall asleep.
            time::sleep(Duration::from_millis(1)).await;
            wake.notify_one();
            if time::timeout(SLOWEST, woken.notified()).await.is_err() {
                return Err(round);
            }
        }
        Ok(())
    })?;
    let kicks = sleeper.local().counters().kicks;
    let interrupts = sleeper.counters().timer_interrupts;
    let outcome = in_time("all wakes arrive", waking).await?.needed("the waking task")?;
    let kicks = sleeper.local().counters().kicks - kicks;
    let interrupts = sleeper.counters().timer_interrupts - interrupts;
    if let Err(round) = outcome {
        return Err(Failure::new(alloc::format!("wake {round} did not arrive")));
    }
    in_time("the sleeping task ends", sleeping).await?.needed("the sleeping task")?;
    ensure!(ran.load(Relaxed) == rounds, "it ran {} times of {rounds}", ran.load(Relaxed));
    ensure!(kicks * 2 >= rounds, "{kicks} kicks for {rounds} wakes");
    ensure!(interrupts * 2 < rounds, "{interrupts} timer interrupts: was it the timer?");
    Ok(())
}

/// Threads that were spawned on one CPU run on all of them.
pub(crate) async fn threads_use_all_cpus() -> Outcome {
    let all = cpus::online();
    let seen: Arc<[AtomicBool]> = (0..all).map(|_| AtomicBool::new(false)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let mut crew = Crew::default();
    for _ in 0..2 * all {
        let (seen, stop) = (seen.clone(), stop.clone());
        crew.add("computing", move || {
            while !stop.load(Relaxed) {
                if let Some(seen) = seen.get(executor::current_cpu() as usize) {
                    seen.store(true, Relaxed);
                }
            }
        })?;
    }
    let outcome =
        eventually("threads were seen on all CPUs", || seen.iter().all(|seen| seen.load(Relaxed))).await;
    stop.store(true, Relaxed);
    crew.finish().await?;
    outcome
}

/// A task panics on another CPU than the one that booted, while the others print and compute.
pub(crate) async fn panic_on_another_cpu() -> Outcome {
    busy_elsewhere()?;
    let unlucky = cpus::all().nth(2).needed("a third CPU")?;
    on(unlucky, async {
        time::sleep(Duration::from_millis(20)).await;
        panic!("CPU 2 has had enough")
    })?
    .await
    .needed("the panicking task")
}

/// Every CPU panics at the same moment.
pub(crate) async fn panic_on_all_cpus() -> Outcome {
    static HERE: AtomicUsize = AtomicUsize::new(0);
    let all = cpus::online();
    let mut tasks = Vec::new();
    for cpu in cpus::all() {
        tasks.push(on(cpu, async move {
            HERE.fetch_add(1, Relaxed);
            // Whoever runs when the last one comes goes on within some ns, which is less than an interrupt takes to
            // stop it: so the panics meet.
            while HERE.load(Relaxed) < all {
                core::hint::spin_loop();
            }
            if HERE.load(Relaxed) > 0 {
                panic!("all at once")
            }
        })?);
    }
    for task in tasks {
        task.await.needed("a panicking task")?;
    }
    Err(Failure::new("the machine goes on".into()))
}

/// Lines of the log and threads that compute, for as long as the machine runs.
fn busy_elsewhere() -> Outcome {
    for cpu in cpus::all().filter(|cpu| cpu.number() != 2) {
        drop(on(cpu, async {
            loop {
                kernel::println!("a line of somebody else");
                executor::yield_now().await;
            }
        })?);
    }
    for _ in 0..2 {
        drop(
            kernel::thread::spawn("computing", || {
                loop {
                    core::hint::spin_loop();
                }
            })
            .needed("a thread")?,
        );
    }
    Ok(())
}
