//! Idle CPUs take work over from busy ones, and busy ones rouse them for it. Where all are busy, each looks every few
//! milliseconds whether another has more to do than itself ([`balance`]).
//!
//! What stands in a CPU's queue or lies in its hand when a poll begins is behind that poll: it is offered at once
//! ([`offer`]), and taken at once. What is woken *during* a poll mostly runs right after it, as when two tasks wake
//! each other in turn, and is better left where it is, unless the poll goes on for long. So a CPU that pushes during
//! a poll asks one that sleeps to *watch* over it, unless one does ([`pushed_while_some_sleep`]): that one looks
//! after a millisecond, and where the same poll goes on, it takes what was woken.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | push or begin of a poll, CPU that goes idle | each has a fence between its store and its look: one sees the other |
//! | push, end of a watch | the same: the push sees that nobody watches any more, or `idle::end_watch` sees what was pushed and, having work of its own, asks another one |
//! | push or begin of a poll, CPU that leaves idle with work of its own | who roused that one, and no other, had its fence before that one's on leaving: so at its first poll ([`offer`]) it sees what it was roused for, and rouses the next |
//! | watcher, watcher | `watched_by` is changed from nobody to one by compare-and-swap |
#![allow(unsafe_code, reason = "the thief takes tasks out of another CPU's run queue")]

use core::sync::atomic::Ordering;

use crate::arch;
use crate::atomic::fence;
use crate::cpu::{CpuLocal, cpus};
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
        .map(|victim| unsafe { cpu.ready.steal(cpu, victim, usize::MAX) })
        .find(|&stolen| stolen > 0);
    // Whoever saw this and roused nobody has left its surplus where `idle` looks once more.
    cpu.searching.store(false, Ordering::SeqCst);
    if let Some(stolen) = stolen {
        count(cpu, stolen);
    }
    stolen.is_some()
}

/// A busy CPU compares itself with the others so often, in nanoseconds.
pub(crate) const BALANCE_NS: u64 = 4_000_000;

/// Takes over from the busiest CPU half of what that has more than this one: where all CPUs are busy, nobody else
/// would. Only for run loops, between polls.
#[cold]
pub(crate) fn balance(cpu: &'static CpuLocal) {
    if has_woken(cpu) {
        // It does not know yet how much it has to do.
        return;
    }
    // One that is ready again and again without another stands in no queue.
    let own = cpu.ready.len().max(1);
    let load = |other: &CpuLocal| other.ready.len() + 1;
    let Some(busiest) = victims(cpu).filter(|other| has_surplus(other)).max_by_key(|other| load(other))
    else {
        return;
    };
    let most = load(busiest).saturating_sub(own) / 2;
    if most > 0 {
        // SAFETY: this is the thief's run loop, between polls.
        let stolen = unsafe { cpu.ready.steal(cpu, busiest, most) };
        if stolen > 0 {
            count(cpu, stolen);
        }
    }
}

/// After a theft: the thief is busy from here on, so what it has left is for another one.
pub(crate) fn count(thief: &'static CpuLocal, stolen: usize) {
    add(&thief.steals, stolen as u64);
    thief.owes_look.store(false, Ordering::Relaxed);
    // Pairs with the one of a push whose CPU has seen that this one was searching.
    fence(Ordering::SeqCst);
    if SLEEPERS.load(Ordering::Relaxed) > 0 && is_some_left(thief) {
        rouse_thief();
    }
}

/// Whether other CPUs have something for one that is idle.
fn is_some_left(cpu: &'static CpuLocal) -> bool {
    victims(cpu).any(|other| has_surplus(other) || needs_watcher(other))
}

fn needs_watcher(cpu: &CpuLocal) -> bool {
    is_polling(cpu) && has_woken(cpu) && !is_watched(cpu)
}

/// Whether a CPU polls, and has ready tasks beside that were there when the poll began, as far as can be told from
/// outside.
pub(crate) fn has_surplus(cpu: &'static CpuLocal) -> bool {
    is_polling(cpu) && (cpu.ready.has_movable() || cpu.ready.has_movable_in_hand())
}

pub(crate) fn is_polling(cpu: &CpuLocal) -> bool {
    !cpu.sleeping.load(Ordering::Relaxed) && !cpu.current.load(Ordering::Relaxed).is_null()
}

pub(crate) fn has_woken(cpu: &CpuLocal) -> bool {
    !cpu.woken_tasks.is_empty() || !cpu.woken_threads.is_empty()
}

fn is_watched(cpu: &CpuLocal) -> bool {
    cpu.watched_by.load(Ordering::Relaxed) != 0
}

/// At the beginning of a poll: another CPU sleeps that could do what is left here, or what this one was roused for and
/// does not do, as it has work of its own.
#[cold]
#[inline(never)]
pub(crate) fn offer(cpu: &'static CpuLocal) {
    let owes_look = cpu.owes_look.load(Ordering::Relaxed);
    cpu.owes_look.store(false, Ordering::Relaxed);
    if has_surplus(cpu) || needs_watcher(cpu) || owes_look && is_some_left(cpu) {
        rouse_thief();
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
    } else if is_polling(cpu) && !is_watched(cpu) {
        // Else the run loop comes past by itself, or the watcher does.
        rouse_thief();
    }
}

/// Makes an idle CPU look for something to steal, unless one is looking already.
pub(crate) fn rouse_thief() {
    if cpus().any(|cpu| cpu.searching.load(Ordering::SeqCst)) {
        return;
    }
    if let Some(idle) = cpus().find(|cpu| cpu.sleeping.load(Ordering::Relaxed)) {
        idle.rouse();
    }
}
