//! What the executor needs of this machine.

use executor::{Platform, TaskRef};

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    arch::{apic, cpu, paging, registers},
    clock, memory,
};

struct Machine;

impl Platform for Machine {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn set_alarm(&self, deadline: u64) {
        clock::set_alarm(deadline);
    }

    fn kick(&self, cpu: u32) {
        if let Some(cpu) = cpu::by_number(cpu) {
            apic::kick(cpu.apic_id.load(Relaxed) as u8);
        }
    }

    fn quiesce(&self) {
        paging::forget();
    }

    fn hogged(&self, task: &TaskRef, nanos: u64) {
        /// Lines of the log about this are so far apart, in ns.
        const PAUSE: u64 = 1_000_000_000;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (now, next) = (clock::now(), NEXT.load(Relaxed));
        if now >= next && NEXT.compare_exchange(next, now + PAUSE, Relaxed, Relaxed).is_ok() {
            log::warn!("task {} \"{}\" polled for {} us", task.id(), task.name(), nanos / 1_000);
        }
    }

    fn before_idle(&self) {
        // Nobody asks an idle CPU to leave the address space of a program that ends.
        paging::leave_user_space();
    }

    fn idle(&self) {
        // Clears frames for whoever needs zeros next, one each time: whatever wakes this CPU meanwhile comes right after it,
        // and then the run loop looks. When there are enough of them, or frames are short, it sleeps.
        if memory::memory().frames().prepare_zeroed() {
            x86_64::instructions::interrupts::enable();
            return;
        }
        let cpu = cpu::current();
        cpu.idle_since.store(clock::now(), Relaxed);
        registers::enable_and_halt();
        // The run loop does not move to another CPU.
        cpu.idle_since.store(0, Relaxed);
    }
}

/// Hands this machine to the executor. Once at boot.
pub(crate) fn init() {
    executor::init(&Machine);
}
