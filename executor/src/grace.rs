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
//! | the CPU that asks, itself | does not count where the look is taken: its own poll is the one that waits |

use crate::arch;
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::cpu::{CpuLocal, cpus};
use crate::lock::without_interrupts_on_stack;
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
    // Ordered before whatever the caller has taken away is looked for in vain.
    let request = REQUESTS.fetch_add(1, Ordering::SeqCst) + 1;
    fence(Ordering::SeqCst);
    if !without_interrupts_on_stack(|| interrupt_others(request)) {
        PASSES.wait_for(|| without_interrupts_on_stack(|| is_over(request)).then_some(())).await;
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

/// The CPUs that a request waits for. With interrupts off, or the caller might find itself on another CPU.
fn missing(request: u64) -> impl Iterator<Item = &'static CpuLocal> {
    let own = arch::local();
    cpus().filter(move |cpu| {
        !core::ptr::eq(*cpu, own)
            && cpu.passed.load(Ordering::SeqCst) < request
            && !cpu.sleeping.load(Ordering::SeqCst)
    })
}

fn is_over(request: u64) -> bool {
    missing(request).next().is_none()
}

/// Makes busy CPUs come to the end of their poll. True if there are none.
fn interrupt_others(request: u64) -> bool {
    let mut none = true;
    for cpu in missing(request) {
        cpu.kick();
        none = false;
    }
    none
}
