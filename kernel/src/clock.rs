//! Time: a monotonic clock over the time-stamp counter, and the one-shot timer behind the alarms.
//!
//! The timer serves two deadlines of a CPU at once, the executor's next alarm and the end of the running
//! thread's time slot, and is set to the earlier one. It is only ever pulled forward: when it fires before
//! anything is due, the handler sets it again. So entering a thread a thousand times within one slot
//! costs no write to the timer, and an idle CPU without an alarm gets none but for the end of the last slot.

mod comparison;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) use comparison::Comparison;

use crate::arch::{
    apic,
    cpu::{self, Cpu},
    registers,
};

/// The length of a time slot in ns.
pub const SLOT: u64 = 1_000_000;

/// `ns = ticks * mult >> SHIFT`.
const SHIFT: u32 = 32;

static BOOT_TICKS: AtomicU64 = AtomicU64::new(0);
static TICK_MULT: AtomicU64 = AtomicU64::new(0);
/// Timer ticks a ns, times 2^32; below one in practice.
static TIMER_MULT: AtomicU64 = AtomicU64::new(0);
/// The longest wait that the timer can count, in ns.
static TIMER_REACH: AtomicU64 = AtomicU64::new(0);
static TSC_KHZ: AtomicU32 = AtomicU32::new(0);

/// Calibrates both clocks; the clock starts at 0 here. Once at boot, interrupts off.
pub(crate) fn init() {
    // Interrupts are off, and the count lasts longer than the calibration: it ends without one.
    apic::set_timer(u32::MAX);
    let rates = drivers::timer::calibrate(|| {
        let left = apic::timer_left();
        (registers::time_stamp(), u64::from(u32::MAX - left))
    });
    apic::set_timer(0);
    let rates = rates.expect("the interval timer does not answer: time cannot be measured");
    BOOT_TICKS.store(registers::time_stamp(), Relaxed);
    TICK_MULT.store(((1_000_000_000_u128 << SHIFT) / u128::from(rates.tsc_hz)) as u64, Relaxed);
    TIMER_MULT.store(((u128::from(rates.apic_timer_hz) << 32) / 1_000_000_000) as u64, Relaxed);
    TIMER_REACH
        .store((u128::from(u32::MAX) * 1_000_000_000 / u128::from(rates.apic_timer_hz)) as u64, Relaxed);
    TSC_KHZ.store((rates.tsc_hz / 1000) as u32, Relaxed);
}

/// The rate of the time-stamp counter, in kHz.
pub fn tsc_khz() -> u32 {
    TSC_KHZ.load(Relaxed)
}

/// The rate of the one-shot timer, in kHz.
pub fn timer_khz() -> u64 {
    ((u128::from(TIMER_MULT.load(Relaxed)) * 1_000_000) >> 32) as u64
}

/// Nanoseconds since boot, the same on all CPUs. May be called from anywhere, also from an interrupt handler.
pub fn now() -> u64 {
    let ticks = registers::time_stamp().wrapping_sub(BOOT_TICKS.load(Relaxed));
    ((u128::from(ticks) * u128::from(TICK_MULT.load(Relaxed))) >> SHIFT) as u64
}

/// The executor's next deadline on this CPU; `u64::MAX`: none.
pub(crate) fn set_alarm(deadline: u64) {
    executor::lock::without_interrupts(|| {
        let cpu = cpu::current();
        cpu.alarm.store(deadline, Relaxed);
        arm(cpu, deadline);
    });
}

/// A thread's time slot begins. Interrupts are off.
pub(crate) fn start_slot(cpu: &Cpu) {
    cpu.slot_end.store(now() + SLOT, Relaxed);
}

/// The timer shall fire at the end of the slot: a thread is about to be entered. Interrupts are off.
pub(crate) fn watch_slot(cpu: &Cpu) {
    arm(cpu, cpu.slot_end.load(Relaxed));
}

/// Whether the running thread's slot is over. Interrupts are off.
pub(crate) fn slot_is_over(cpu: &Cpu) -> bool {
    now() >= cpu.slot_end.load(Relaxed)
}

/// The timer fired: tells the executor if its deadline is reached, and sets the timer for what comes next.
pub(crate) fn timer_interrupt() {
    let cpu = cpu::current();
    cpu.timer_interrupts.store(cpu.timer_interrupts.load(Relaxed) + 1, Relaxed);
    cpu.armed.store(u64::MAX, Relaxed);
    if now() >= cpu.alarm.load(Relaxed) {
        cpu.alarm.store(u64::MAX, Relaxed);
        executor::alarm_fired();
    }
    arm(cpu, cpu.alarm.load(Relaxed));
    if !cpu.thread_ptr().is_null() && !slot_is_over(cpu) {
        watch_slot(cpu);
    }
}

/// Makes sure that the timer fires at `deadline` or earlier. Interrupts are off.
fn arm(cpu: &Cpu, deadline: u64) {
    if deadline >= cpu.armed.load(Relaxed) {
        return;
    }
    // Further away than the timer can count: it fires early, and is set again.
    let wait = deadline.saturating_sub(now()).min(TIMER_REACH.load(Relaxed));
    // Rounded up, so that the timer does not fire just before the deadline and again just after it.
    let ticks = ((u128::from(wait) * u128::from(TIMER_MULT.load(Relaxed))) >> 32) as u32;
    cpu.armed.store(deadline, Relaxed);
    apic::set_timer(ticks.saturating_add(1));
}
