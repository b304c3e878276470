//! A task that wants to run every 10 ms and notes how late it does: a measure of how alive the machine is.
//!
//! A tick that is late does not move the ones after it, so a wait of 50 ms counts as five late ticks.

use core::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use executor::{
    Builder, JoinHandle,
    lock::SpinLock,
    time::{self, Instant},
};

use super::histogram::{BUCKETS, Histogram, bucket};

/// The time between two ticks.
pub const PERIOD: Duration = Duration::from_millis(10);

static COUNTS: [AtomicU32; BUCKETS] = [const { AtomicU32::new(0) }; BUCKETS];
static WORST: AtomicU64 = AtomicU64::new(0);
static TASK: SpinLock<Option<JoinHandle<()>>> = SpinLock::new("ticker", None);

/// Starts the ticker, unless it runs already. From tasks and threads.
pub fn start() {
    if is_running() {
        return;
    }
    let task = Builder::new().name("ticker").spawn(tick());
    let previous = TASK.lock().replace(task);
    if let Some(previous) = previous {
        // Somebody else was as quick: one is enough.
        previous.abort();
    }
}

/// Stops the ticker; what it noted stays. From tasks and threads.
pub fn stop() {
    let task = TASK.lock().take();
    if let Some(task) = task {
        task.abort();
    }
}

/// Whether the ticker runs.
pub fn is_running() -> bool {
    TASK.lock().is_some()
}

/// How late the ticks since boot were.
pub fn lateness() -> Histogram {
    Histogram::new(COUNTS.iter().map(|count| count.load(Relaxed).into()), WORST.load(Relaxed))
}

async fn tick() {
    let mut due = Instant::now();
    loop {
        due += PERIOD;
        time::sleep_until(due).await;
        let late = (Instant::now() - due).as_nanos() as u64;
        COUNTS[bucket(late)].fetch_add(1, Relaxed);
        WORST.fetch_max(late, Relaxed);
    }
}
