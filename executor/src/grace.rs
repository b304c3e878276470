//! Grace periods: waiting until no CPU is still inside anything that it began before.
//!
//! A CPU *passes* when its run loop stands between two polls: whatever a poll, or a thread entered in one, has
//! read before that is forgotten. Who takes something away (a translation, a page table, a hook) takes it out of
//! where it can be found, awaits a grace period, and then it can be used for something else.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | request, CPU that goes idle | the CPU passes first: `idle` looks at the number of requests with the queues |
//! | request, CPU that leaves idle | both have a fence between their store and their load: the request sees that the CPU is awake, or the CPU sees the request before its next poll |
//! | request, request | numbers: a pass counts for all requests before it |
//! | end, who waits for it | a wait queue, woken by each pass, that looks again |
//! | the CPU that asks, itself | does not count: its own poll is the one that asks. Wherever the waiting task moves, that is the only one that does not |

use crate::arch;
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::cpu::{CpuLocal, cpus};
use crate::lock::without_interrupts;
use crate::platform::platform;
use crate::reason::WaitReason;
use crate::wait_queue::WaitQueue;

#[cfg(not(loom))]
static REQUESTS: AtomicU64 = AtomicU64::new(0);
#[cfg(not(loom))]
static PASSES: WaitQueue = WaitQueue::new(WaitReason::Quarantine);
#[cfg(loom)]
loom::lazy_static! {
    static ref REQUESTS: AtomicU64 = AtomicU64::new(0);
    static ref PASSES: WaitQueue = WaitQueue::new(WaitReason::Quarantine);
}

/// Waits until every other CPU was between two polls, and called
/// [`Platform::quiesce`](crate::Platform::quiesce) there, or was idle, since the call. Ready at once when all
/// others are idle ([`WaitReason::Quarantine`]).
///
/// On the host only CPUs of the same machine count, and a thread outside `block_on` counts as idle.
///
/// # Cancellation
/// Dropping it loses nothing; the others pass all the same. A future that was never polled has asked for nothing.
pub async fn grace_period() {
    // Whoever asks may be a preemptible thread: with interrupts off, this is one CPU all the while.
    let request = without_interrupts(Request::new);
    if !request.is_over() {
        PASSES.wait_for(|| request.is_over().then_some(())).await;
    }
}

/// A grace period that somebody waits for.
struct Request {
    number: u64,
    asked_by: &'static CpuLocal,
}

impl Request {
    /// Asks, and makes busy CPUs come to the end of their poll.
    fn new() -> Self {
        // Ordered before the looks of those that do not find any more what the caller has taken away.
        let number = REQUESTS.fetch_add(1, Ordering::SeqCst) + 1;
        cpus().for_each(CpuLocal::call_attention);
        fence(Ordering::SeqCst);
        let request = Request { number, asked_by: arch::local() };
        request.missing().for_each(CpuLocal::kick);
        request
    }

    /// The CPUs that it waits for.
    fn missing(&self) -> impl Iterator<Item = &'static CpuLocal> {
        cpus().filter(|cpu| {
            !core::ptr::eq(*cpu, self.asked_by)
                && cpu.passed.load(Ordering::SeqCst) < self.number
                && !cpu.sleeping.load(Ordering::SeqCst)
        })
    }

    fn is_over(&self) -> bool {
        self.missing().next().is_none()
    }
}

/// Whether a grace period waits for this CPU.
#[inline]
pub(crate) fn is_due(cpu: &CpuLocal) -> bool {
    REQUESTS.load(Ordering::Relaxed) != cpu.passed.load(Ordering::Relaxed)
}

/// This CPU stands between two polls. Only for its run loop.
#[inline]
pub(crate) fn pass(cpu: &CpuLocal) {
    if is_due(cpu) {
        pass_now(cpu);
    }
}

#[cold]
fn pass_now(cpu: &CpuLocal) {
    let requests = REQUESTS.load(Ordering::Acquire);
    platform().quiesce();
    cpu.passed.store(requests, Ordering::SeqCst);
    PASSES.wake_all();
}
