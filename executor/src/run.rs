//! The run loop of a CPU.
//!
//! ```text
//! alarm fired? -> fire timers      (time::advance)
//! take what was woken, pick some   (run_queue)
//! poll it                          (run/poll)
//! nothing there -> steal           (steal::steal)
//! nothing there either -> idle     (idle::idle)
//! ```
#![allow(unsafe_code, reason = "polls tasks through their headers, and owns the CPU's run queue")]

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::CpuLocal;
use crate::idle::{Idled, end_watch, idle};
#[cfg(not(target_os = "none"))]
use crate::platform::Platform;
#[cfg(target_os = "none")]
use crate::platform::platform;
use crate::run_queue::{HAND, Ready, Round};
use crate::steal::{BALANCE_NS, balance, steal};
use crate::task::end::reap;
use crate::task::header::Header;
use crate::{arch, grace, time};

mod poll;

/// Runs this CPU's tasks for ever: woken tasks, after each round of them one thread, and when there is nothing,
/// [`Platform::idle`]. Called once per CPU, with interrupts on.
pub fn run() -> ! {
    let mut run_loop = RunLoop::new();
    loop {
        run_loop.poll_until(HAND + 1, |_| false);
        run_loop.steal_or_idle();
    }
}

/// One step of [`run`]: fires timers if the alarm came, then polls one task or thread. False if none was ready.
///
/// # Panics
/// When called inside a poll, which includes every thread.
pub fn poll_one() -> bool {
    RunLoop::new().poll_until(1, |_| true) == Until::Enough
}

/// Why a run loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    NothingReady,
    Enough,
}

/// A CPU's run loop. The end of one poll is the beginning of the next: so each reads the clock once.
pub(crate) struct RunLoop {
    cpu: &'static CpuLocal,
    now: u64,
    /// When this CPU compares itself with the others next.
    balance_at: u64,
    /// When the clock calls for something: that, or on the host the alarm.
    due: u64,
}

impl RunLoop {
    /// The loop of this CPU.
    ///
    /// # Panics
    /// Inside a poll.
    pub(crate) fn new() -> Self {
        RunLoop::on(arch::local())
    }

    /// The loop of the CPU that executes this.
    ///
    /// # Panics
    /// Inside a poll.
    #[inline]
    pub(crate) fn on(cpu: &'static CpuLocal) -> Self {
        assert!(cpu.current.load(Ordering::Relaxed).is_null(), "the run loop was called inside a poll");
        let now = now_on(cpu);
        let balance_at = now.wrapping_add(BALANCE_NS);
        RunLoop { cpu, now, balance_at, due: balance_at.min(alarm(cpu)) }
    }

    /// What was done since the last poll is not the next one's.
    pub(crate) fn look_at_clock(&mut self) {
        self.now = now_on(self.cpu);
    }

    /// Takes over work from another CPU, or waits until there may be some.
    pub(crate) fn steal_or_idle(&mut self) {
        if !steal() && idle() == Idled::Watching {
            // What the alarm brings is to be known first.
            attend(self.cpu);
            end_watch(self.cpu);
        }
        self.look_at_clock();
    }

    /// Does what else is due between two polls, then polls one thread or up to `most` tasks (and not more than a
    /// hand takes); and so on while something is ready, until `enough`, which must not panic, says so of the number of
    /// polls.
    #[inline]
    pub(crate) fn poll_until(&mut self, most: usize, mut enough: impl FnMut(usize) -> bool) -> Until {
        let cpu = self.cpu;
        loop {
            if self.is_interrupted(cpu) {
                self.attend();
            }
            // SAFETY: no poll is under way on this CPU, so this is its run loop, and its hand is empty.
            let is_enough = match unsafe { cpu.ready.look(&cpu.woken_tasks, &cpu.woken_threads) } {
                Ready::Nothing => return Until::NothingReady,
                // SAFETY: as above; the task was just taken out of where it stood.
                Ready::One(task) => unsafe { self.poll_alone(cpu, task, &mut enough) },
                Ready::More(chain) => {
                    // SAFETY: as above; the chain was just taken.
                    let polls = unsafe { self.poll_round(chain, most) };
                    if polls == 0 {
                        // A thief was quicker.
                        return Until::NothingReady;
                    }
                    add(&cpu.polls, polls as u64);
                    enough(polls)
                }
            };
            if is_enough {
                return Until::Enough;
            }
        }
    }

    /// Whether something is to be done between two polls.
    #[inline]
    fn is_interrupted(&self, cpu: &CpuLocal) -> bool {
        cpu.attention.load(Ordering::Relaxed) || self.now >= self.due
    }

    /// Does it.
    #[cold]
    fn attend(&mut self) {
        let cpu = self.cpu;
        #[cfg(not(any(target_os = "none", loom)))]
        cpu.host.check_alarm(self.now);
        attend(cpu);
        if self.now >= self.balance_at {
            self.balance_at = self.now.wrapping_add(BALANCE_NS);
            balance(cpu);
        }
        self.due = self.balance_at.min(alarm(cpu));
        self.look_at_clock();
    }

    /// Polls the only task that is ready, and again while it is ready again at once: it needs no queue while no other
    /// is. True if `enough` said so.
    ///
    /// # Safety
    /// As for [`poll_task`](RunLoop::poll_task).
    #[inline(always)]
    unsafe fn poll_alone(
        &mut self,
        cpu: &'static CpuLocal,
        task: *mut Header,
        enough: &mut impl FnMut(usize) -> bool,
    ) -> bool {
        loop {
            // SAFETY: the caller's promise; or it is scheduled again, and in no queue.
            let after = unsafe { self.poll_task(cpu, task, None) };
            add(&cpu.polls, 1);
            let is_enough = enough(1);
            if !after.is_ready() {
                return is_enough;
            }
            let others = cpu.ready.has_others(&cpu.woken_tasks, &cpu.woken_threads);
            if is_enough || others || !after.is_plain() || self.is_interrupted(cpu) {
                // SAFETY: SCHEDULED was set while RUNNING, so nobody else pushes.
                unsafe { self.queue_alone(task) };
                return is_enough;
            }
        }
    }

    /// # Safety
    /// The task is scheduled, and in no queue.
    #[cold]
    unsafe fn queue_alone(&mut self, task: *mut Header) {
        let mut round = Round::new(self.cpu);
        // SAFETY: the caller's promise.
        unsafe { self.queue_special(task, &mut round) };
        round.end();
    }

    /// Polls the next of the round, and what is dealt with it. Returns how many.
    ///
    /// # Safety
    /// As for [`RunQueue::deal`](crate::run_queue::RunQueue::deal).
    #[inline(never)]
    unsafe fn poll_round(&mut self, chain: *mut Header, most: usize) -> usize {
        let cpu = self.cpu;
        // SAFETY: the caller's promise.
        let dealt = unsafe { cpu.ready.deal(chain, &cpu.woken_tasks, &cpu.woken_threads, most) };
        let Some((mut task, dealt)) = dealt else { return 0 };
        let mut round = Round::new(cpu);
        let mut hand = cpu.ready.hand(dealt);
        let mut polls = 0;
        loop {
            // SAFETY: the task came out of the queue or the hand: it is scheduled, and ours.
            unsafe { self.poll_in_turn(task, &mut round) };
            polls += 1;
            match hand.next() {
                Some(next) => task = next.as_ptr(),
                None => break,
            }
        }
        round.end();
        polls
    }

    /// # Safety
    /// As for [`poll_task`](RunLoop::poll_task).
    #[inline(always)]
    unsafe fn poll_in_turn(&mut self, task: *mut Header, round: &mut Round) {
        // SAFETY: the caller's promise.
        let after = unsafe { self.poll_task(round.cpu, task, Some(round)) };
        if !after.is_ready() {
            return;
        }
        // SAFETY: SCHEDULED was set while RUNNING, so nobody else pushes, and the task lives.
        unsafe {
            if after.is_plain() {
                round.again.push_back_plain(task);
            } else {
                self.queue_special(task, round);
            }
        }
    }

    /// Queues again what may be a thread, pinned or nice.
    ///
    /// # Safety
    /// It is scheduled, and in no queue.
    #[cold]
    unsafe fn queue_special(&mut self, task: *mut Header, round: &mut Round) {
        // SAFETY: the caller's promise.
        unsafe {
            let nice = (*task).nice();
            if (*task).state.is_thread() {
                self.cpu.ready.push_thread_again(task, nice);
            } else if nice > 1 {
                self.poll_more(task, nice, round);
            } else {
                round.again.push_back(task);
            }
        }
    }

    /// Gives a nice task the rest of the *n* slots in a row that its factor gives it in a round, as far as it is
    /// ready again each time.
    ///
    /// # Safety
    /// As for [`poll_task`](RunLoop::poll_task).
    unsafe fn poll_more(&mut self, task: *mut Header, nice: u8, round: &mut Round) {
        for _ in 1..nice {
            if self.is_interrupted(self.cpu) {
                self.attend();
            }
            add(&self.cpu.polls, 1);
            // SAFETY: it is scheduled again, and in no queue.
            if !unsafe { self.poll_task(round.cpu, task, Some(round)) }.is_ready() {
                return;
            }
        }
        // SAFETY: as above.
        unsafe { round.again.push_back(task) };
    }
}

/// The clock, as this CPU's run loop reads it.
#[inline]
#[cfg_attr(target_os = "none", allow(unused_variables, reason = "only the host asks its own CPU"))]
fn now_on(cpu: &'static CpuLocal) -> u64 {
    #[cfg(target_os = "none")]
    return platform().now();
    #[cfg(not(target_os = "none"))]
    cpu.host.now()
}

/// When the host's alarm is due: there is no interrupt to tell.
#[inline]
#[cfg_attr(any(target_os = "none", loom), allow(unused_variables, reason = "only the host asks its own CPU"))]
fn alarm(cpu: &'static CpuLocal) -> u64 {
    #[cfg(any(target_os = "none", loom))]
    return u64::MAX;
    #[cfg(not(any(target_os = "none", loom)))]
    cpu.host.alarm()
}

/// Frees what is dead, passes a grace period, fires timers.
fn attend(cpu: &'static CpuLocal) {
    // Before the looks at what it may have been set for.
    cpu.attention.swap(false, Ordering::AcqRel);
    reap(cpu);
    grace::pass(cpu);
    if cpu.alarm.load(Ordering::Relaxed) && cpu.alarm.swap(false, Ordering::Acquire) {
        time::advance(cpu);
    }
}

/// Whether a task is ready on this CPU or its alarm came: then a thread that runs here should be left. Threads
/// that are ready do not count. For the end of an interrupt handler, with interrupts off.
#[inline]
pub fn has_work() -> bool {
    let cpu = arch::local();
    has_come(cpu) || cpu.ready.has_tasks()
}

/// As [`has_work`], but only what has come since the run loop looked last: when it polls a thread, the tasks that were
/// ready by then have had their turn.
#[inline]
pub fn has_new_work() -> bool {
    has_come(arch::local())
}

#[inline]
fn has_come(cpu: &CpuLocal) -> bool {
    let is_called =
        cpu.attention.load(Ordering::Relaxed) && (cpu.alarm.load(Ordering::Relaxed) || grace::is_due(cpu));
    is_called || !cpu.woken_tasks.is_empty()
}

/// Whether a thread, other than the one that runs, is ready on this CPU: for the end of a time slot, where interrupts are
/// off; for a task, which may be elsewhere at once, it is a guess.
pub fn has_ready_thread() -> bool {
    let cpu = arch::local();
    cpu.ready.has_threads() || !cpu.woken_threads.is_empty()
}

/// Adds to a counter that only this CPU writes.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
