//! A CPU without work.
//!
//! Going idle: publish 'sleeping', a sequentially consistent fence, look at everything again with interrupts
//! off, then enable interrupts and halt as one step. A waker pushes, a fence, reads 'sleeping'. One of the two
//! sees the other. With acquire and release alone both may miss, and the CPU sleeps on ready work.
//!
//! While it sleeps it may watch over others: see `steal`.
#![allow(unsafe_code, reason = "the watcher takes tasks out of another CPU's run queue")]

use core::sync::atomic::Ordering;

use crate::arch;
use crate::atomic::fence;
use crate::cpu::CpuLocal;
use crate::platform::platform;
use crate::run::{add, has_ready_thread, has_work};
use crate::steal::{SLEEPERS, count, has_surplus, has_woken, is_polling, rouse_thief, victims};

/// What a CPU has done while it was idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idled {
    Slept,
    /// It has watched over others, and must say so when it goes on: [`end_watch`].
    Watching,
}

/// Waits on this CPU until there may be something to do.
pub(crate) fn idle() -> Idled {
    let cpu = arch::local();
    let before = platform().now();
    arch::interrupts_off();
    platform().before_idle();
    SLEEPERS.fetch_add(1, Ordering::Relaxed);
    cpu.sleeping.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let is_called = cpu.attention.load(Ordering::Relaxed);
    let nothing = !is_called && !has_work() && !has_ready_thread() && !victims(cpu).any(has_surplus);
    let mut idled = Idled::Slept;
    if nothing {
        if watch(cpu) {
            idled = Idled::Watching;
        }
        platform().idle();
    } else {
        arch::interrupts_on();
    }
    cpu.sleeping.store(false, Ordering::Relaxed);
    // Pairs with the one in `grace_period`: it sees that we are awake, or we see it before the next poll.
    fence(Ordering::SeqCst);
    SLEEPERS.fetch_sub(1, Ordering::Relaxed);
    // Whoever believed until here that it sleeps may have roused this CPU and no other one.
    cpu.owes_look.store(true, Ordering::Relaxed);
    add(&cpu.idle_ns, platform().now().saturating_sub(before));
    idled
}

/// A watcher takes what waits behind a poll that goes on for this many nanoseconds. A model's clock stands.
const WATCH_NS: u64 = if cfg!(loom) { 0 } else { 1_000_000 };

/// Whether the poll of that CPU is the one that its watcher saw, perhaps an earlier watcher than this one.
fn is_seen(other: &CpuLocal) -> bool {
    let current = other.current.load(Ordering::Relaxed);
    core::ptr::eq(current, other.seen_current.load(Ordering::Relaxed))
        && other.polls.load(Ordering::Relaxed) == other.seen_polls.load(Ordering::Relaxed)
}

/// Watches over those in whose polls something was woken, unless somebody does. For a CPU that has said that it sleeps,
/// with interrupts off; sets its alarm. False if there are none.
pub(crate) fn watch(cpu: &'static CpuLocal) -> bool {
    let mut look_at = None;
    for other in victims(cpu).filter(|other| is_polling(other) && has_woken(other)) {
        let taken =
            other.watched_by.compare_exchange(0, cpu.id() + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken {
            // A watcher that was woken early has left the same poll behind: then it goes on since that one's first look.
            if !is_seen(other) {
                other.seen_current.store(other.current.load(Ordering::Relaxed), Ordering::Relaxed);
                other.seen_polls.store(other.polls.load(Ordering::Relaxed), Ordering::Relaxed);
                other.seen_at.store(platform().now(), Ordering::Relaxed);
            }
            let over_at = other.seen_at.load(Ordering::Relaxed).saturating_add(WATCH_NS);
            look_at = Some(look_at.map_or(over_at, |at: u64| at.min(over_at)));
        }
    }
    if let Some(look_at) = look_at {
        let mut wheel = cpu.wheel.lock();
        // Whoever looks at the timers after the alarm sets it anew.
        wheel.alarm_is_over();
        let next = wheel.next_alarm().unwrap_or(u64::MAX);
        platform().set_alarm(next.min(look_at));
    }
    look_at.is_some()
}

/// The watcher goes on: it takes what waits behind a poll that went on all the while. Before that time is over it leaves
/// it there, and watches on when it idles again. With work of its own it asks another one. Only for its run loop, between
/// polls.
pub(crate) fn end_watch(cpu: &'static CpuLocal) {
    let mut busy = cpu.ready.has_tasks() || cpu.ready.has_threads() || has_woken(cpu);
    let now = platform().now();
    for other in victims(cpu).filter(|other| other.watched_by.load(Ordering::Relaxed) == cpu.id() + 1) {
        let watched_for = now.saturating_sub(other.seen_at.load(Ordering::Relaxed));
        let is_stuck = watched_for >= WATCH_NS && is_seen(other);
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
            let stolen = unsafe { cpu.ready.steal(cpu, other, usize::MAX) };
            if stolen > 0 {
                busy = true;
                count(cpu, stolen);
            }
        }
    }
}
