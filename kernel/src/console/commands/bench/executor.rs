//! `bench executor`: what a wake costs in this machine.

use alloc::{string::ToString, vec::Vec};
use core::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use conquer_once::spin::OnceCell;
use executor::{
    Builder, JoinHandle, WaitReason,
    sync::{Mutex, Signal},
    time,
};

use super::super::super::{CommandError, output::say};
use crate::{
    arch::{apic, registers::time_stamp},
    clock, cpus, interrupt,
};

/// Wakes that are measured, after some that are not.
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
/// Long enough for a CPU to fall asleep.
const NAP: Duration = Duration::from_millis(1);

/// By an interrupt, and on a CPU that sleeps.
pub(super) async fn run() -> Result<u8, CommandError> {
    // One at a time: they share a vector.
    let _alone = ALONE.lock().await;
    bench_interrupt().await?;
    bench_sleeping_cpu().await
}

static ALONE: Mutex<()> = Mutex::new(());
/// Told by the interrupt.
static ARRIVED: Signal = Signal::new(WaitReason::Other);
/// When it was sent, in ticks of the time-stamp counter.
static SENT: AtomicU64 = AtomicU64::new(0);
/// The woken task has run.
static SEEN: Signal = Signal::new(WaitReason::Other);

/// A task on CPU `cpu`.
fn on<F>(cpu: u32, future: F) -> Result<JoinHandle<F::Output>, CommandError>
where
    F: Future<Output: Send> + Send + 'static,
{
    let task = Builder::new().name("bench").cpu(cpu).try_spawn(future);
    task.map_err(|why| CommandError::Failed(why.to_string()))
}

async fn ended<T>(task: JoinHandle<T>) -> Result<T, CommandError> {
    task.await.map_err(|why| CommandError::Failed(why.to_string()))
}

/// Waits for `signal`; the time-stamp counter at the first instruction of the poll in which it was there.
async fn first_instruction(signal: &'static Signal) -> u64 {
    poll_fn(|context| {
        let now = time_stamp();
        signal.poll_wait(context).map(|()| now)
    })
    .await
}

/// From an interrupt to the first instruction of the task that it wakes, on a CPU that polls another task.
async fn bench_interrupt() -> Result<(), CommandError> {
    static VECTOR: OnceCell<Option<u8>> = OnceCell::uninit();
    let vector = *VECTOR.get_or_init(|| {
        let vector = interrupt::allocate()?.vector;
        interrupt::register(vector, &|| ARRIVED.signal());
        Some(vector)
    });
    let no_vector = || CommandError::Failed("no interrupt vector is left".to_string());
    let vector = vector.ok_or_else(no_vector)?;
    let cpu = executor::current_cpu();
    let woken = on(cpu, async {
        let mut ticks = Vec::new();
        for _ in 0..WARM_UP + ROUNDS {
            let now = first_instruction(&ARRIVED).await;
            ticks.push(now.saturating_sub(SENT.load(Relaxed)));
            SEEN.signal();
        }
        ticks
    })?;
    let sending = on(cpu, async move {
        for _ in 0..WARM_UP + ROUNDS {
            // The other one waits by then.
            time::sleep(NAP).await;
            send(vector).await;
        }
    });
    let sending = sending.inspect_err(|_| woken.abort())?;
    ended(sending).await?;
    let mut ticks = ended(woken).await?;
    let ticks = &mut ticks[WARM_UP..];
    ticks.sort_unstable();
    say!("from an interrupt to the woken task, on a busy CPU, in ticks of the time-stamp counter");
    say!("(with --icount one instruction each):");
    say!("median          {:>9}", ticks[ROUNDS / 2]);
    say!("worst           {:>9}", ticks[ROUNDS - 1]);
    Ok(())
}

/// Interrupts this CPU at the end of a poll, and waits until the woken task has run.
async fn send(vector: u8) {
    let mut sent = false;
    poll_fn(|context| {
        let seen = SEEN.poll_wait(context);
        if !core::mem::replace(&mut sent, true) {
            SENT.store(apic::interrupt_self(vector), Relaxed);
        }
        seen
    })
    .await;
}

/// From the wake to the first instruction of a task whose CPU sleeps, in wall time.
async fn bench_sleeping_cpu() -> Result<u8, CommandError> {
    let here = executor::current_cpu();
    let Some(other) = cpus::all().map(|cpu| cpu.number()).find(|&number| number != here) else {
        say!("one CPU: there is no other that could be woken");
        return Ok(0);
    };
    let woken = on(other, async {
        let mut times = Vec::new();
        for _ in 0..WARM_UP + ROUNDS {
            let late = poll_fn(|context| {
                let now = clock::now();
                ARRIVED.poll_wait(context).map(|()| now.saturating_sub(SENT.load(Relaxed)))
            });
            times.push(late.await);
            SEEN.signal();
        }
        times
    })?;
    let waking = on(here, async {
        for _ in 0..WARM_UP + ROUNDS {
            time::sleep(NAP).await;
            SENT.store(clock::now(), Relaxed);
            ARRIVED.signal();
            SEEN.wait().await;
        }
    });
    let waking = waking.inspect_err(|_| woken.abort())?;
    ended(waking).await?;
    let mut times = ended(woken).await?;
    let times = &mut times[WARM_UP..];
    times.sort_unstable();
    say!("from the wake of a task to its first instruction, on another CPU that sleeps:");
    say!("median          {:>9} ns", times[ROUNDS / 2]);
    say!("99th percentile {:>9} ns", times[ROUNDS * 99 / 100]);
    say!("worst           {:>9} ns", times[ROUNDS - 1]);
    Ok(0)
}
