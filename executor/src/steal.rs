//! Idle CPUs take work over from busy ones, and busy ones rouse them for it.
//!
//! What stands in a CPU's queue or lies in its hand when a poll begins is behind that poll: it is offered at once
//! ([`offer`]), and taken at once. What is woken *during* a poll mostly runs right after it, as when two tasks wake
//! each other in turn, and is better left where it is, unless the poll goes on for long. So one sleeping CPU *watches*
//! over each that is awake: it looks every millisecond, and where the same poll goes on as at the last look, it takes
//! what was woken meanwhile. A CPU that pushes, and nobody watches over it, asks one that sleeps ([`ask_to_watch`]).
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | push or begin of a poll, CPU that goes idle | each has a fence between its store and its look: one sees the other |
//! | push, end of a watch | the same: the push sees that nobody watches any more, or [`end_watch`] sees what was pushed and, having work of its own, asks another one |
//! | watcher, watcher | `watched_by` is changed from nobody to one by compare-and-swap |
#![allow(unsafe_code, reason = "the thief takes tasks out of another CPU's run queue")]

use core::sync::atomic::Ordering;

use crate::arch;
use crate::atomic::fence;
use crate::cpu::{CpuLocal, cpus};
use crate::platform::platform;
use crate::run::add;

/// CPUs that are idle, as a hint.
#[cfg(not(loom))]
pub(crate) static SLEEPERS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
// Models run side by side, and each needs its own.
#[cfg(loom)]
loom::lazy_static! {
    pub(crate) static ref SLEEPERS: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

/// The other CPUs.
pub(crate) fn victims(cpu: &CpuLocal) -> impl Iterator<Item = &'static CpuLocal> {
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
    if let Some(stolen) = stolen {
        count(cpu, stolen);
    }
    stolen.is_some()
}

/// After a theft: the thief is busy from here on, so what it has left is for another one.
fn count(thief: &'static CpuLocal, stolen: usize) {
    add(&thief.steals, stolen as u64);
    // Pairs with the one of a push whose CPU has seen that this one was searching.
    fence(Ordering::SeqCst);
    let is_left = |other| has_surplus(other) || is_polling(other) && has_woken(other) && !is_watched(other);
    if SLEEPERS.load(Ordering::Relaxed) > 0 && victims(thief).any(is_left) {
        rouse_thief();
    }
}

/// Whether a CPU polls, and has ready tasks beside that were there when the poll began, as far as can be told from
/// outside.
pub(crate) fn has_surplus(cpu: &'static CpuLocal) -> bool {
    is_polling(cpu) && (cpu.ready.has_movable() || cpu.ready.has_movable_in_hand())
}

fn is_polling(cpu: &CpuLocal) -> bool {
    !cpu.sleeping.load(Ordering::Relaxed) && !cpu.current.load(Ordering::Relaxed).is_null()
}

fn has_woken(cpu: &CpuLocal) -> bool {
    !cpu.woken_tasks.is_empty() || !cpu.woken_threads.is_empty()
}

fn is_watched(cpu: &CpuLocal) -> bool {
    cpu.watched_by.load(Ordering::Relaxed) != 0
}

/// At the beginning of a poll: another CPU sleeps that could do what is left here.
#[cold]
pub(crate) fn offer(cpu: &'static CpuLocal) {
    if cpu.ready.has_movable() || cpu.ready.has_movable_in_hand() {
        rouse_thief();
    } else if has_woken(cpu) {
        ask_to_watch(cpu);
    }
}

/// Something was pushed to this CPU while one sleeps, perhaps this one. Any context.
#[cold]
pub(crate) fn pushed_while_some_sleep(cpu: &'static CpuLocal) {
    if cpu.sleeping.load(Ordering::Relaxed) {
        // Whoever runs here, even an interrupt handler, runs on a CPU that looks again before it sleeps. The push
        // came before this look, so a thread that was moved away in between has not missed anything.
        if !core::ptr::eq(cpu, arch::local()) {
            cpu.kick();
        }
    } else {
        ask_to_watch(cpu);
    }
}

fn ask_to_watch(cpu: &'static CpuLocal) {
    // Between two polls the run loop comes past by itself.
    if is_polling(cpu) && !is_watched(cpu) {
        rouse_thief();
    }
}

/// A watcher looks after this many nanoseconds.
const WATCH_NS: u64 = 1_000_000;

/// Watches over those that are awake and nobody else watches over. For a CPU that has said that it sleeps, with
/// interrupts off; sets its alarm. False if there are none.
pub(crate) fn watch(cpu: &'static CpuLocal, now: u64) -> bool {
    let mut watches = false;
    for other in victims(cpu).filter(|other| !other.sleeping.load(Ordering::Relaxed)) {
        let taken =
            other.watched_by.compare_exchange(0, cpu.id() + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken {
            other.seen_current.store(other.current.load(Ordering::Relaxed), Ordering::Relaxed);
            other.seen_polls.store(other.polls.load(Ordering::Relaxed), Ordering::Relaxed);
            watches = true;
        }
    }
    if watches {
        let mut wheel = cpu.wheel.lock();
        // Whoever looks at the timers after the alarm sets it anew.
        wheel.alarm_is_over();
        let next = wheel.next_alarm().unwrap_or(u64::MAX);
        platform().set_alarm(next.min(now.saturating_add(WATCH_NS)));
    }
    watches
}

/// The watcher goes on: it takes what waits behind a poll that went on all the while, or asks another one to watch.
/// Only for its run loop, between polls.
pub(crate) fn end_watch(cpu: &'static CpuLocal) {
    let mut busy = cpu.ready.has_tasks() || cpu.ready.has_threads() || has_woken(cpu);
    for other in victims(cpu).filter(|other| other.watched_by.load(Ordering::Relaxed) == cpu.id() + 1) {
        let current = other.current.load(Ordering::Relaxed);
        let is_stuck = core::ptr::eq(current, other.seen_current.load(Ordering::Relaxed))
            && other.polls.load(Ordering::Relaxed) == other.seen_polls.load(Ordering::Relaxed);
        other.watched_by.store(0, Ordering::Relaxed);
        // Pairs with the one of a push: it sees that nobody watches any more, or we see what it has pushed.
        fence(Ordering::SeqCst);
        if !is_polling(other) || !has_woken(other) {
            continue;
        }
        if busy {
            rouse_thief();
        } else if is_stuck {
            // SAFETY: this is the thief's run loop, between polls.
            let stolen = unsafe { cpu.ready.steal(cpu, other) };
            if stolen > 0 {
                busy = true;
                count(cpu, stolen);
            }
        }
    }
}

/// Makes an idle CPU look for something to steal, unless one is looking already.
fn rouse_thief() {
    if cpus().any(|cpu| cpu.searching.load(Ordering::SeqCst)) {
        return;
    }
    if let Some(idle) = cpus().find(|cpu| cpu.sleeping.load(Ordering::Relaxed)) {
        idle.rouse();
    }
}
