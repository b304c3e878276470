//! The life of a thread, as one future.

use alloc::sync::Arc;
use core::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};

use executor::{TaskRef, lock::in_trap};
use mm::{Access, AddressSpace, Denial, Fault, FaultOutcome};

use super::{
    EndReason, Killed, Raised, Thread,
    call::Call,
    stack::{self, Stack, StackPart},
};
use crate::{
    arch::{
        copy, paging,
        trap::{self, Exception, PageFault, Trap, Turn},
    },
    clock,
    fault_stats::{self, FaultKind},
    heap::{self, Draw},
    memory, syscall,
    trace::{self, Kind},
};

/// A thread whose own stack cannot grow for want of memory tries again after this time: what stands on its stack may
/// be linked elsewhere, so it cannot be ended there.
const STACK_RETRY: Duration = Duration::from_millis(10);

/// The most that a parked thread's future may take, in bytes.
const MAX_FUTURE: usize = 512;

/// Runs `thread` until it ends. The scheduler is the executor: the thread is parked while this future is
/// pending.
///
/// # Cancellation
/// Dropping it ends the thread where it stands, without running any destructor on its stack; only `Builder`
/// tasks that are aborted do that, and threads' tasks are not.
pub(super) fn run(thread: Arc<Thread>, stack: Option<Stack>) -> impl Future<Output = EndReason> + Send {
    let future = async move {
        if let Some(task) = executor::current_task() {
            thread.task.init_once(|| task);
        }
        // A wake for the future that `block_on` polls on the thread is a wake of this task. What the task awaits
        // in between, because of a fault or the end of a slot, takes it for its own.
        let mut wake_may_be_spent = false;
        let mut entered_in = None;
        let mut is_due = false;
        trace::name_thread(&thread);
        let reason = loop {
            let may_end = || thread.with_context(|context| context.is_user()) || !thread.begun.load(Relaxed);
            if thread.kill_requested() && may_end() {
                break thread.kill_reason();
            }
            thread.begun.store(true, Relaxed);
            let poll = thread.task().map(TaskRef::polls);
            let turn = match (core::mem::replace(&mut entered_in, poll) != poll, core::mem::take(&mut is_due))
            {
                (true, false) => Turn::First,
                (true, true) => Turn::Due,
                (false, _) => Turn::Later,
            };
            trace::thread(Kind::Resume, &thread);
            let trap = trap::enter(&thread, turn);
            trace::thread(Kind::Leave, &thread);
            match trap {
                Trap::PageFault(fault) => {
                    wake_may_be_spent = true;
                    if let Some(end) = serve_fault(&thread, fault).await {
                        break end;
                    }
                }
                Trap::SlotOver | Trap::Interrupted => {
                    wake_may_be_spent = true;
                    executor::yield_now().await;
                }
                // A wake that is spent here is none that the thread waits for: it polls before it parks, or the trap
                // that took it from between the two has set the mark.
                Trap::NotYet => {
                    is_due = true;
                    executor::yield_now().await;
                }
                Trap::Syscall => {
                    if let Some(end) = syscall::serve(&thread).await {
                        break end;
                    }
                }
                Trap::Call => match Call::from_number(thread.with_context(|context| context.rax)) {
                    Some(Call::Yield) => {
                        wake_may_be_spent = true;
                        executor::yield_now().await;
                    }
                    // The next poll enters the thread whatever is ready here, so it looks once more, and can park then.
                    Some(Call::Park) if core::mem::take(&mut wake_may_be_spent) => {
                        executor::yield_now().await;
                    }
                    Some(Call::Park) => parked_once().await,
                    Some(Call::Exit) => break EndReason::Finished(0),
                    None => break raised(&thread, Exception { vector: 13, error: 0 }),
                },
                Trap::Exception(exception) => break raised(&thread, exception),
            }
        };
        trace::thread(Kind::End, &thread);
        // What the thread had is given back here, not in a function of its own, whose future would hold all of it
        // a second time. Its record stays as long as somebody holds it.
        if thread.space().is_some() {
            // CPUs on which it ran may have its tables loaded still. After this they do only where another thread
            // of the same space runs; so when the last one has ended, the tables may go.
            paging::leave_user_space();
            executor::grace_period().await;
        }
        thread.drop_entry();
        if let Some(stack) = stack {
            stack.give_back().await;
        }
        super::THREADS.lock().remove(&thread.id());
        reason
    };
    checked(future)
}

/// Refuses to compile when a thread's future has grown too large: each parked thread has one.
fn checked<F>(future: F) -> F {
    const { assert!(size_of::<F>() <= MAX_FUTURE) };
    future
}

/// Pending once: the next wake of the thread's task enters it again.
fn parked_once() -> impl Future<Output = ()> {
    let mut parked = false;
    poll_fn(move |_| if core::mem::replace(&mut parked, true) { Poll::Ready(()) } else { Poll::Pending })
}

fn raised(thread: &Thread, exception: Exception) -> EndReason {
    EndReason::Raised(Raised { exception, at: thread.with_context(|context| context.rip) })
}

/// Resolves a fault, parking the thread as long as that takes. Returns why the thread ends, if it does.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
fn serve_fault(thread: &Thread, fault: PageFault) -> impl Future<Output = Option<EndReason>> + Send {
    async move {
        assert!(!fault.is_reserved_bit(), "a page table is corrupted: fault at {:#x}", fault.address);
        thread.counters.faults.fetch_add(1, Relaxed);
        trace::fault(thread, access_number(fault), fault.address);
        let place = match place(thread, fault) {
            Ok(place) => place,
            Err(why) => return refuse(thread, fault, why),
        };
        let may_end = place.may_end;
        let (outcome, parked_at) = {
            let mut resolve = pin!(place.space.resolve(as_seen_by_mm(fault)));
            let mut parked_at = 0;
            // It owns what it needs: what it borrowed would be in the future twice.
            poll_fn(move |context| {
                if parked_at != 0 {
                    trace::thread(Kind::Wake, thread);
                }
                if may_end && thread.kill_requested() {
                    return Poll::Ready((None, parked_at));
                }
                let poll = if may_end {
                    resolve.as_mut().poll(context)
                } else {
                    heap::drawing(Draw::Half, || resolve.as_mut().poll(context))
                };
                if poll.is_pending() && parked_at == 0 {
                    parked_at = clock::now();
                    trace::thread(Kind::Park, thread);
                }
                poll.map(|outcome| (Some(outcome), parked_at))
            })
            .await
        };
        if outcome == Some(FaultOutcome::Resolved) {
            trace::thread(Kind::Map, thread);
        }
        if parked_at == 0 {
            fault_stats::at_once();
        } else {
            let parked = clock::now().saturating_sub(parked_at);
            thread.counters.parks.fetch_add(1, Relaxed);
            thread.counters.parked_ns.fetch_add(parked, Relaxed);
            fault_stats::parked(kind(fault, may_end), parked);
        }
        match outcome {
            Some(FaultOutcome::Resolved) => None,
            Some(FaultOutcome::Denied(Denial::OutOfMemory)) if !may_end => {
                executor::time::sleep(STACK_RETRY).await;
                None
            }
            Some(FaultOutcome::Denied(why)) => refuse(thread, fault, why),
            None => end_or_fail_copy(thread, thread.kill_reason()),
        }
    }
}

/// Resolves a fault for which nothing has to be waited for, and says whether it was one. Called where the trap arrives,
/// with interrupts off; what is left, with all that can go wrong, is for [`serve_fault`].
#[inline(always)]
pub(crate) fn serve_fault_at_once(thread: &Thread, fault: PageFault) -> bool {
    let since = trace::is_on().then(clock::now);
    let resolved = resolve_at_once(thread, fault);
    if let Some(since) = since.filter(|_| resolved) {
        trace::fault_at_once(thread, access_number(fault), fault.address, since);
    }
    resolved
}

#[inline(always)]
fn resolve_at_once(thread: &Thread, fault: PageFault) -> bool {
    if fault.is_reserved_bit() || thread.kill_requested() {
        return false;
    }
    let space = match (fault.address >> 63, thread.space()) {
        (0, Some(space)) => space,
        _ => match place(thread, fault) {
            Ok(Place { space, may_end: true }) => space,
            _ => return false,
        },
    };
    if !in_trap(|within| space.resolve_at_once(as_seen_by_mm(fault), within)) {
        return false;
    }
    thread.counters.faults.fetch_add(1, Relaxed);
    fault_stats::at_once();
    true
}

/// What a fault that parked its thread is counted as.
fn kind(fault: PageFault, may_end: bool) -> FaultKind {
    match fault {
        _ if !may_end => FaultKind::Stack,
        _ if fault.is_execute() => FaultKind::Execute,
        _ if fault.is_write() => FaultKind::Write,
        _ => FaultKind::Read,
    }
}

/// How a record says it: 1 a write, 2 an execution, 4 by ring 3.
fn access_number(fault: PageFault) -> u8 {
    u8::from(fault.is_write()) | u8::from(fault.is_execute()) << 1 | u8::from(fault.is_user()) << 2
}

fn as_seen_by_mm(fault: PageFault) -> Fault {
    let access = match fault {
        _ if fault.is_execute() => Access::Execute,
        _ if fault.is_write() => Access::Write,
        _ => Access::Read,
    };
    Fault { address: fault.address, access, user: fault.is_user() }
}

/// Where a fault belongs.
struct Place<'a> {
    space: &'a AddressSpace,
    /// Whether a kill may end the thread here: it touched memory outside its stack, so it owns nothing, or
    /// it is in a guarded copy.
    may_end: bool,
}

/// The address decides: the upper half is the kernel's, the lower half the thread's own.
#[inline]
fn place(thread: &Thread, fault: PageFault) -> Result<Place<'_>, Denial> {
    let upper = fault.address >> 63 == 1;
    match (upper, thread.space()) {
        (true, _) if fault.is_user() => Err(Denial::UserTouchesKernel),
        (true, _) => match stack::part(fault.address) {
            StackPart::Guard => Err(Denial::StackOverflow),
            StackPart::Usable => Ok(Place { space: memory::kernel_space(), may_end: false }),
            StackPart::None => Ok(Place { space: memory::kernel_space(), may_end: true }),
        },
        (false, Some(space)) => Ok(Place { space, may_end: true }),
        (false, None) => Err(Denial::NoMapping),
    }
}

/// An access that was denied ends the thread, or fails its guarded copy.
fn refuse(thread: &Thread, fault: PageFault, why: Denial) -> Option<EndReason> {
    let at = thread.with_context(|context| context.rip);
    end_or_fail_copy(thread, EndReason::Denied { address: fault.address, why, at })
}

fn end_or_fail_copy(thread: &Thread, why: EndReason) -> Option<EndReason> {
    let go_on = thread.with_context(|context| {
        if context.is_user() {
            return false;
        }
        let go_on = copy::denied_at(context.rip);
        if let Some(rip) = go_on {
            context.rip = rip;
        }
        go_on.is_some()
    });
    if go_on {
        thread.refuse(match why {
            EndReason::Denied { why, .. } => Err(why),
            _ => Ok(Killed),
        });
        return None;
    }
    Some(why)
}
