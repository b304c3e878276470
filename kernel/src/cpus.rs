//! The other CPUs: found in ACPI's MADT, reset and started one after the other by a task of the boot CPU, before
//! the kernel's first task.
//!
//! ```text
//! boot CPU    reset all, 10 ms │ block, stack, ticket │ start-up IPI, 200 us, once more │ compare clocks │ next
//! other CPU                                             trampoline                      │ compare clocks │ run loop
//! ```
//!
//! The task waits by timers. A CPU that does not come, and one for which there is no memory, is left out with a line
//! in the log; the machine goes on with those that it has.

use core::{sync::atomic::Ordering::Relaxed, time::Duration};

use alloc::vec::Vec;
use executor::time::{Instant, sleep};

use crate::{
    arch::{
        apic,
        cpu::{self, Cpu, MAX_CPUS},
        stacks::CpuStack,
        trampoline::Trampoline,
    },
    clock, memory, trace,
};

/// From the reset of a CPU to its start, and from there to the second try (Intel SDM vol. 3, 8.4.4.1).
const RESET: Duration = Duration::from_millis(10);
const SECOND_TRY: Duration = Duration::from_micros(200);
/// A CPU that takes no ticket for so long is absent. Real ones come in microseconds; one that a busy host runs waits
/// for its turn there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a CPU that took its ticket may need to its run loop.
const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// How often the task looks.
const LOOK: Duration = Duration::from_micros(50);

/// Frames that a CPU takes: its stack, its trap stacks and some for tables.
const FRAMES: usize = CpuStack::FRAMES + 64;

/// What a CPU is started with.
#[derive(Clone, Copy)]
struct Equipment {
    cpu: &'static Cpu,
    stack: CpuStack,
}

/// Why a CPU is not there.
enum Absence {
    /// It did not come; what was made for it is free.
    Silent,
    /// It came, and went no further.
    Stuck,
}

/// Starts all CPUs that there are. Once, by the first task of the boot CPU.
pub(crate) async fn start_all() {
    let ids: Vec<u8> = apic::other_ids().collect();
    if apic::cpus() > MAX_CPUS {
        log::warn!("the machine has {} CPUs, of which {MAX_CPUS} are used", apic::cpus());
    }
    if ids.is_empty() {
        return;
    }
    let Some(trampoline) = Trampoline::place() else {
        log::warn!("no memory below 1 MiB can be used, so {} CPUs stay off", ids.len());
        return;
    };
    ids.iter().for_each(|&id| apic::reset(id));
    sleep(RESET).await;
    let mut number = 1;
    let mut unused = None;
    for (index, &id) in ids.iter().enumerate() {
        let Some(equipment) = unused.take().or_else(|| equip(number)) else {
            log::warn!("there is no memory for {} CPUs more, which stay off", ids.len() - index);
            break;
        };
        match start(&trampoline, id, equipment).await {
            Ok(()) => number += 1,
            Err(Absence::Silent) => {
                log::warn!("the CPU with APIC id {id} does not start; it stays off");
                unused = Some(equipment);
            }
            Err(Absence::Stuck) => {
                log::warn!("the CPU with APIC id {id} does not come up; it stays off");
                number += 1;
            }
        }
    }
}

/// What CPU `number` needs, unless less than a quarter of the memory would be left for what the machine is for.
fn equip(number: u32) -> Option<Equipment> {
    let frames = memory::memory().frames().stats();
    if frames.free < frames.total / 4 + FRAMES {
        return None;
    }
    Some(Equipment { cpu: Cpu::make(number)?, stack: CpuStack::make(number)? })
}

async fn start(trampoline: &Trampoline, id: u8, equipment: Equipment) -> Result<(), Absence> {
    let Equipment { cpu, stack } = equipment;
    trampoline.offer(cpu, &stack);
    trampoline.start(id);
    sleep(SECOND_TRY).await;
    if !trampoline.is_taken() {
        trampoline.start(id);
    }
    let began = Instant::now();
    while !trampoline.is_taken() {
        if began.elapsed() > PATIENCE && trampoline.withdraw() {
            return Err(Absence::Silent);
        }
        sleep(LOOK).await;
    }
    let began = Instant::now();
    while !cpu.comparison.serve() {
        if began.elapsed() > LONG_PATIENCE && cpu.comparison.close() {
            return Err(Absence::Stuck);
        }
        sleep(LOOK).await;
    }
    if let Some(off) = cpu.comparison.beyond() {
        log::warn!("the clock of CPU {} is {off} ns off, and cannot be corrected", cpu.number());
    }
    // From here on it cannot fail: it has a few hundred instructions to go.
    while cpu.up_since.load(Relaxed) == 0 {
        sleep(LOOK).await;
    }
    Ok(())
}

/// The life of a CPU that was started, once it has its block: its clock is compared, then it runs tasks. Interrupts
/// are off.
pub(crate) fn join(cpu: &'static Cpu) -> ! {
    cpu.up_since.store(clock::now(), Relaxed);
    trace::cpu_is_up(cpu.number());
    log::debug!("CPU {} is up", cpu.number());
    x86_64::instructions::interrupts::enable();
    executor::run()
}

/// The CPUs that are up, by their numbers.
pub fn all() -> impl Iterator<Item = &'static Cpu> {
    cpu::all()
}

/// How many CPUs are up. All are when the kernel's first task begins.
pub fn online() -> usize {
    cpu::online()
}
