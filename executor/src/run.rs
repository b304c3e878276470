//! The run loop of a CPU.
//!
//! ```text
//! alarm fired? -> fire timers      (time::advance)
//! take what was woken, pick one    (run_queue)
//! poll it                          (poll)
//! nothing there -> steal           (steal)
//! nothing there either -> idle     (idle)
//! ```
//! Going idle: publish 'sleeping', a sequentially consistent fence, look at everything again with interrupts
//! off, then enable interrupts and halt as one step. A waker pushes, a fence, reads 'sleeping'. One of the two
//! sees the other. With acquire and release alone both may miss, and the CPU sleeps on ready work.
#![allow(unsafe_code, reason = "polls tasks through their headers, and owns the CPU's run queue")]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::task::Context;

use crate::atomic::fence;
use crate::cpu::{CpuLocal, cpus};
use crate::platform::{HOG_NS, platform};
use crate::task::header::Header;
use crate::task::state::{AfterPoll, HANDLE, JOINER};
use crate::task::{TaskRef, registry, waker};
use crate::{arch, grace, time};

/// Runs this CPU's tasks for ever: woken tasks, after each round of them one thread, and when there is nothing,
/// [`Platform::idle`](crate::platform::Platform::idle). Called once per CPU, with interrupts on.
pub fn run() -> ! {
    loop {
        if !poll_one() && !steal() {
            idle();
        }
    }
}

/// One step of [`run`]: fires timers if the alarm came, then polls one task or thread. False if none was ready.
///
/// # Panics
/// When called inside a poll, which includes every thread.
pub fn poll_one() -> bool {
    let cpu = arch::local();
    assert!(cpu.current.load(Ordering::Relaxed).is_null(), "the run loop was called inside a poll");
    #[cfg(not(target_os = "none"))]
    cpu.host.check_alarm();
    reap(cpu);
    grace::pass(cpu);
    if cpu.alarm.load(Ordering::Relaxed) && cpu.alarm.swap(false, Ordering::Acquire) {
        time::advance(cpu);
    }
    // SAFETY: no poll is under way on this CPU, so this is its run loop.
    let Some(task) = (unsafe { cpu.ready.next(&cpu.woken_tasks, &cpu.woken_threads) }) else {
        return false;
    };
    // SAFETY: the task came out of the queue: it is scheduled, and ours.
    unsafe { poll(cpu, task) };
    true
}

/// Whether a task is ready on this CPU or its alarm came: then a thread that runs here should be left. Threads
/// that are ready do not count. For the end of an interrupt handler, with interrupts off.
#[inline]
pub fn has_work() -> bool {
    let cpu = arch::local();
    cpu.alarm.load(Ordering::Relaxed)
        || cpu.ready.has_tasks()
        || !cpu.woken_tasks.is_empty()
        || grace::is_due(cpu)
}

/// Whether a thread, other than the one that runs, is ready on this CPU: for the end of a time slot. With
/// interrupts off.
pub fn has_ready_thread() -> bool {
    let cpu = arch::local();
    cpu.ready.has_threads() || !cpu.woken_threads.is_empty()
}

/// CPUs that are idle, as a hint.
static SLEEPERS: AtomicUsize = AtomicUsize::new(0);

/// The other CPUs.
fn victims(cpu: &CpuLocal) -> impl Iterator<Item = &'static CpuLocal> {
    cpus().filter(move |other| !core::ptr::eq(*other, cpu))
}

/// Looks for ready tasks on the other CPUs, beginning with those of higher numbers. True if it took some. Half of
/// the CPUs may search at a time, or they would only meet each other.
pub(crate) fn steal() -> bool {
    let cpu = arch::local();
    let (others, thieves) = victims(cpu).fold((0, 0), |(others, thieves), other| {
        (others + 1, thieves + usize::from(other.searching.load(Ordering::Relaxed)))
    });
    if thieves * 2 >= others {
        return false;
    }
    cpu.searching.store(true, Ordering::Relaxed);
    let behind = victims(cpu).filter(|victim| victim.id() > cpu.id());
    let stolen = behind
        .chain(victims(cpu).filter(|victim| victim.id() < cpu.id()))
        .filter(|victim| has_surplus(victim))
        // SAFETY: this is the thief's run loop, between polls.
        .map(|victim| unsafe { cpu.ready.steal(cpu, victim) })
        .find(|&stolen| stolen > 0);
    // Whoever saw this and roused nobody has left its surplus where `idle` looks once more.
    cpu.searching.store(false, Ordering::SeqCst);
    add(&cpu.steals, stolen.unwrap_or(0) as u64);
    stolen.is_some()
}

/// Whether a CPU has ready tasks beside one that it polls, as far as can be told from outside. One that sleeps was just roused for what it has.
fn has_surplus(cpu: &'static CpuLocal) -> bool {
    !cpu.sleeping.load(Ordering::Relaxed)
        && !cpu.current.load(Ordering::Relaxed).is_null()
        && (cpu.ready.has_movable() || !cpu.woken_tasks.is_empty() || !cpu.woken_threads.is_empty())
}

/// Makes an idle CPU look for something to steal, unless one is looking already.
#[cold]
fn rouse_thief() {
    if cpus().any(|cpu| cpu.searching.load(Ordering::SeqCst)) {
        return;
    }
    if let Some(idle) = cpus().find(|cpu| cpu.sleeping.load(Ordering::Relaxed)) {
        idle.rouse();
    }
}

/// Waits on this CPU until there may be something to do.
pub(crate) fn idle() {
    let cpu = arch::local();
    let before = platform().now();
    arch::interrupts_off();
    SLEEPERS.fetch_add(1, Ordering::Relaxed);
    cpu.sleeping.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let nothing = !has_work() && !has_ready_thread() && cpu.dead.is_empty() && !victims(cpu).any(has_surplus);
    if nothing {
        platform().idle();
    } else {
        arch::interrupts_on();
    }
    cpu.sleeping.store(false, Ordering::Relaxed);
    // Pairs with the one in `grace_period`: it sees that we are awake, or we see it before the next poll.
    fence(Ordering::SeqCst);
    SLEEPERS.fetch_sub(1, Ordering::Relaxed);
    add(&cpu.idle_ns, platform().now().saturating_sub(before));
}

/// Frees the tasks whose last reference was dropped since the last look.
pub(crate) fn reap(cpu: &CpuLocal) {
    let mut task = cpu.dead.take();
    while !task.is_null() {
        // SAFETY: nobody else has the task, and only the run loop takes from this stack.
        unsafe {
            let next = (*task).link.load(Ordering::Relaxed);
            ((*task).vtable.free)(task);
            task = next;
        }
    }
}

/// # Safety
/// The task is QUEUED, was taken out of the queue, and this CPU's run loop is between polls.
unsafe fn poll(cpu: &'static CpuLocal, task: *mut Header) {
    /// Ends the poll also when the future panics, which only hosts survive.
    struct Current(&'static CpuLocal);
    impl Drop for Current {
        fn drop(&mut self) {
            self.0.current.store(core::ptr::null_mut(), Ordering::Relaxed);
        }
    }
    // SAFETY: the executor's reference keeps it until it is done, below.
    let header = unsafe { &*task };
    cpu.current.store(task, Ordering::Relaxed);
    let current = Current(cpu);
    let cancelled = header.state.start();
    // The change of the state stands between what a thief looks at and this look at whether there are any, as the
    // fence in `idle` does: either it sees what is left here, or we see that it sleeps.
    if cpu.ready.has_movable() && SLEEPERS.load(Ordering::Relaxed) > 0 {
        rouse_thief();
    }
    header.begin_notes();
    let began = platform().now();
    // SAFETY: RUNNING, so the stage is ours and holds the future.
    let done = unsafe {
        if cancelled {
            (header.vtable.drop_future)(task);
            true
        } else {
            let waker = waker::borrowed(task);
            (header.vtable.poll)(task, &mut Context::from_waker(&waker))
        }
    };
    drop(current);
    let now = platform().now();
    let took = now.saturating_sub(began);
    count(cpu, header, took);
    if took > HOG_NS && !header.state.is_thread() {
        // SAFETY: the executor's reference keeps it until `finish`.
        platform().hogged(&unsafe { TaskRef::borrow(task) }, took);
    }
    if done {
        // SAFETY: the future is gone, and the output there unless cancelled.
        unsafe { finish(cpu, task, cancelled) };
        return;
    }
    header.end_notes(now);
    if header.state.end_pending() == AfterPoll::Requeue {
        // SAFETY: SCHEDULED was set while RUNNING, so nobody else pushes.
        unsafe { cpu.ready.push_again(task, header.state.is_thread(), header.nice()) };
    }
}

/// # Safety
/// The task is RUNNING and its future gone.
unsafe fn finish(cpu: &'static CpuLocal, task: *mut Header, cancelled: bool) {
    // SAFETY: the executor's reference is given back at the end.
    let header = unsafe { &*task };
    registry::unregister(cpu, header.id.load(Ordering::Relaxed));
    let before = header.state.finish(cancelled);
    if before & HANDLE == 0 && !cancelled {
        // SAFETY: nobody wants the output.
        unsafe { (header.vtable.drop_output)(task) };
    }
    if before & JOINER != 0 {
        // SAFETY: JOINER was set when DONE came: the waker is ours.
        if let Some(waker) = header.joiner.with_mut(|joiner| unsafe { (*joiner).take() }) {
            waker.wake();
        }
    }
    if header.state.drop_reference() {
        // SAFETY: the last reference is gone, and the run loop may free.
        unsafe { (header.vtable.free)(task) };
    }
}

#[inline]
fn count(cpu: &CpuLocal, header: &Header, took: u64) {
    add(&cpu.polls, 1);
    let polls = header.polls.load(Ordering::Relaxed);
    header.polls.store(polls.wrapping_add(1), Ordering::Relaxed);
    if took > u64::from(header.longest_poll.load(Ordering::Relaxed)) {
        header.longest_poll.store(u32::try_from(took).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
    if took > cpu.longest_poll_ns.load(Ordering::Relaxed) && !header.state.is_thread() {
        cpu.longest_poll_ns.store(took, Ordering::Relaxed);
        cpu.longest_poll.store(header.name(), Ordering::Relaxed);
    }
}

/// Adds to a counter that only this CPU writes.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
