//! The workloads, each written once for all runtimes that can spawn.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crate::meter::{self, Meter};

/// An executor that spawns tasks and runs them on the thread that calls `block_on`.
pub(crate) trait Runtime {
    type Handle<T: Send + 'static>;
    /// Where a task of this runtime leaves its waker.
    type Slot: Slot;

    fn new() -> Self;

    /// Runs `main` to its end, and the tasks meanwhile.
    fn block_on<F: Future>(&self, main: F) -> F::Output;

    fn spawn<F>(&self, future: F) -> Self::Handle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> impl Future<Output = T>;

    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Gives memory that is kept for later tasks back to the allocator.
    fn release_memory() {}
}

/// An `AtomicWaker`.
pub(crate) trait Slot: Default + Send + Sync + 'static {
    fn register(&self, waker: &Waker);
    fn wake(&self);
}

impl Slot for futures::task::AtomicWaker {
    fn register(&self, waker: &Waker) {
        futures::task::AtomicWaker::register(self, waker);
    }

    fn wake(&self) {
        futures::task::AtomicWaker::wake(self);
    }
}

/// Spawns and awaits one task after another.
pub(crate) fn spawn_seq<R: Runtime>(meter: &mut Meter, n: usize) {
    let runtime = R::new();
    meter.measure(|| {
        runtime.block_on(async {
            for i in 0..n {
                black_box(R::join(runtime.spawn(async move { i })).await);
            }
        });
    });
}

/// Spawns all, then awaits all.
pub(crate) fn spawn_batch<R: Runtime>(meter: &mut Meter, n: usize) {
    let runtime = R::new();
    let mut handles = Vec::with_capacity(n);
    meter.measure(|| {
        runtime.block_on(async {
            for i in 0..n {
                handles.push(runtime.spawn(async move { i }));
            }
            for handle in handles {
                black_box(R::join(handle).await);
            }
        });
    });
}

/// A flag, and who is woken when it is set.
#[derive(Default)]
pub(crate) struct Side<S> {
    flag: AtomicBool,
    slot: S,
}

impl<S: Slot> Side<S> {
    fn take(&self) -> bool {
        self.flag.load(Ordering::Acquire) && {
            self.flag.store(false, Ordering::Relaxed);
            true
        }
    }

    fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.slot.wake();
    }
}

/// One of the two who wake each other `wakes` times in all. Written by hand, so that next to nothing but the executor
/// and the wakers is measured.
pub(crate) struct Player<S> {
    own: Arc<Side<S>>,
    other: Arc<Side<S>>,
    rounds: usize,
}

impl<S: Slot> Player<S> {
    pub(crate) fn pair(wakes: usize) -> [Self; 2] {
        let [one, other] = [0, 1].map(|_| Arc::new(Side::default()));
        one.set();
        let player = |own: &Arc<_>, other: &Arc<_>| Player {
            own: Arc::clone(own),
            other: Arc::clone(other),
            rounds: wakes / 2,
        };
        [player(&one, &other), player(&other, &one)]
    }
}

impl<S: Slot> Future for Player<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while self.rounds > 0 {
            if !self.own.take() {
                self.own.slot.register(context.waker());
                if !self.own.take() {
                    return Poll::Pending;
                }
            }
            self.rounds -= 1;
            self.other.set();
        }
        Poll::Ready(())
    }
}

/// Two tasks wake each other.
pub(crate) fn pingpong<R: Runtime>(meter: &mut Meter, n: usize) {
    let [one, other] = Player::<R::Slot>::pair(n);
    pair::<R, _, _>(meter, one, other);
}

/// Two tasks, spawned in this order.
pub(crate) fn pair<R, A, B>(meter: &mut Meter, one: A, other: B)
where
    R: Runtime,
    A: Future<Output = ()> + Send + 'static,
    B: Future<Output = ()> + Send + 'static,
{
    let runtime = R::new();
    meter.measure(|| {
        runtime.block_on(async {
            let (one, other) = (runtime.spawn(one), runtime.spawn(other));
            R::join(one).await;
            R::join(other).await;
        });
    });
}

/// So many tasks at once.
pub(crate) fn crowd<R, F>(meter: &mut Meter, tasks: usize, task: impl Fn() -> F)
where
    R: Runtime,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = R::new();
    meter.measure(|| {
        runtime.block_on(async {
            let handles: Vec<_> = (0..tasks).map(|_| runtime.spawn(task())).collect();
            for handle in handles {
                R::join(handle).await;
            }
        });
    });
}

/// How many tasks yield in turn.
pub(crate) const YIELDERS: usize = 1_000;

/// A thousand tasks yield in turn.
pub(crate) fn yields<R: Runtime>(meter: &mut Meter, n: usize) {
    crowd::<R, _>(meter, YIELDERS, || async move {
        for _ in 0..n / YIELDERS {
            R::yield_now().await;
        }
    });
}

/// How many tasks want the same mutex.
pub(crate) const RIVALS: usize = 100;

/// A task that waits for ever is woken from outside, `n` times; `drain` runs what is ready.
pub(crate) fn wake_from_outside(
    meter: &mut Meter,
    n: usize,
    spawn: impl FnOnce(&dyn Fn() -> PendingTask),
    drain: impl Fn(),
) {
    let slot = Arc::new(WakerSlot::default());
    spawn(&|| PendingTask { slot: Some(Arc::clone(&slot)) });
    drain();
    let waker = slot.lock().ok().and_then(|mut slot| slot.take()).expect("the task was polled");
    meter.measure(|| {
        for _ in 0..n {
            waker.wake_by_ref();
            drain();
        }
    });
}

type WakerSlot = std::sync::Mutex<Option<Waker>>;

/// Gives its waker away in the first poll, and waits for ever.
pub(crate) struct PendingTask {
    slot: Option<Arc<WakerSlot>>,
}

impl Future for PendingTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.slot.is_some() {
            self.give_away(context.waker().clone());
        }
        Poll::Pending
    }
}

impl PendingTask {
    /// Once only, so it is not to burden each poll.
    #[cold]
    fn give_away(&mut self, waker: Waker) {
        if let Some(slot) = self.slot.take()
            && let Ok(mut slot) = slot.lock()
        {
            *slot = Some(waker);
        }
    }
}

/// What a task takes beside its future: bytes and allocations.
#[derive(Clone, Copy)]
pub(crate) struct TaskMemory {
    pub(crate) bytes: usize,
    pub(crate) allocations: usize,
}

/// How many tasks are spawned to see what one takes.
pub(crate) const SPAWNED: usize = 1_000;

/// A task that is not small.
pub(crate) async fn heavy_task(load: [u64; 16]) -> u64 {
    black_box(&load);
    load.iter().sum()
}

/// Spawns a batch of tasks for the third time, when tables have grown to what they need.
pub(crate) fn memory<R: Runtime>() -> TaskMemory {
    let runtime = R::new();
    let size = size_of_val(&heavy_task([0; 16]));
    let mut handles = Vec::with_capacity(SPAWNED);
    let mut taken = meter::Heap::default();
    for _ in 0..3 {
        R::release_memory();
        runtime.block_on(async {
            taken = meter::Heap::taken_by(|| {
                handles.extend((0..SPAWNED).map(|_| runtime.spawn(heavy_task([1; 16]))));
            });
            for handle in handles.drain(..) {
                black_box(R::join(handle).await);
            }
        });
    }
    TaskMemory {
        bytes: (taken.bytes / SPAWNED).saturating_sub(size),
        allocations: taken.allocations / SPAWNED,
    }
}

/// How many deadlines there are for a tick.
const DENSITY: usize = 10;

/// Deadlines in ticks.
pub(crate) fn deadlines(n: usize) -> impl Iterator<Item = u64> {
    let mut seed = 88_172_645_463_325_252_u64;
    (0..n).map(move |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        1 + seed % (n / DENSITY) as u64
    })
}

/// How many ticks the clock moves on between two looks at what is due.
pub(crate) const STEP: usize = 10;

/// How many steps lead past all deadlines.
pub(crate) fn steps(n: usize) -> usize {
    (n / DENSITY).div_ceil(STEP)
}
