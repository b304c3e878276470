//! Idle CPUs take work over from busy ones, and busy ones rouse them for it.
#![allow(unsafe_code, reason = "the thief takes tasks out of another CPU's run queue")]

use core::sync::atomic::Ordering;

use crate::arch;
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
        .map(|victim| unsafe { cpu.ready.steal(cpu, victim) })
        .find(|&stolen| stolen > 0);
    // Whoever saw this and roused nobody has left its surplus where `idle` looks once more.
    cpu.searching.store(false, Ordering::SeqCst);
    add(&cpu.steals, stolen.unwrap_or(0) as u64);
    stolen.is_some()
}

/// Whether a CPU has ready tasks beside one that it polls, as far as can be told from outside. One that sleeps
/// was just roused for what it has.
pub(crate) fn has_surplus(cpu: &'static CpuLocal) -> bool {
    !cpu.sleeping.load(Ordering::Relaxed)
        && !cpu.current.load(Ordering::Relaxed).is_null()
        && (cpu.ready.has_movable()
            || !cpu.woken_tasks.is_empty()
            || !cpu.woken_threads.is_empty()
            || cpu.ready.has_movable_in_hand())
}

/// At the beginning of a poll: another CPU sleeps that could do what is left here.
#[cold]
pub(crate) fn offer(cpu: &CpuLocal) {
    if cpu.ready.has_movable() || cpu.ready.has_movable_in_hand() {
        rouse_thief();
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
