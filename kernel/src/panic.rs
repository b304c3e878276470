//! The report of a panic: what the kernel knew when it found its own bug.
//!
//! It goes to the serial line first and takes no lock that it would have to wait for. It runs on a stack
//! of its own: the panicking thread's stack may not be there.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | a panic, other CPUs at work | a non-maskable interrupt stops each of them where it stands, before the report begins |
//! | a panic, another CPU's | one exchange decides who reports; the other one stands still and is named in the report |
//! | a panic, another on the same CPU | a line, and the end |
//! | the report, a CPU that stopped with a lock | lists that are locked are left out; the serial line is taken over |

use core::{
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use crate::{
    arch::{
        apic,
        context::{Context, Frame},
        cpu::{self, Cpu},
        paging, registers,
        trap::{self, FaultUnderWay},
    },
    clock, machine, println, screen,
    serial::{self, Lines},
    thread,
};

/// The number of the CPU that reports a panic.
static REPORTER: AtomicU32 = AtomicU32::new(NOBODY);
const NOBODY: u32 = u32::MAX;

/// How long the other CPUs have to stop, in ns.
const STOP: u64 = 100_000_000;

/// The most entries of a list, and frames of a backtrace, that a report shows.
const MAX_LINES: usize = 24;

/// The general registers at the moment in question, as far as they are known.
#[derive(Clone, Copy, Default)]
struct Registers {
    general: Option<[u64; 15]>,
    rip: u64,
    rsp: u64,
    rbp: u64,
    rflags: u64,
}

const GENERAL: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl From<&Context> for Registers {
    fn from(c: &Context) -> Self {
        let general = [
            c.rax, c.rbx, c.rcx, c.rdx, c.rsi, c.rdi, c.rbp, c.r8, c.r9, c.r10, c.r11, c.r12, c.r13, c.r14,
            c.r15,
        ];
        Self { general: Some(general), rip: c.rip, rsp: c.rsp, rbp: c.rbp, rflags: c.rflags }
    }
}

impl From<&FaultUnderWay> for Registers {
    fn from(fault: &FaultUnderWay) -> Self {
        Self { general: None, rip: fault.rip, rsp: fault.rsp, rbp: fault.rbp, rflags: fault.rflags }
    }
}

impl From<&Frame> for Registers {
    fn from(f: &Frame) -> Self {
        let general = [
            f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14,
            f.r15,
        ];
        Self { general: Some(general), rip: f.rip, rsp: f.rsp, rbp: f.rbp, rflags: f.rflags }
    }
}

struct Report<'a> {
    message: &'a dyn fmt::Display,
    registers: Registers,
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let registers = Registers {
        general: None,
        rip: panic as *const () as u64,
        rsp: registers::stack_pointer(),
        rbp: registers::frame_pointer(),
        rflags: x86_64::registers::rflags::read_raw(),
    };
    end(&Report { message: info, registers })
}

/// A trap while the executor or a handler ran.
pub(crate) fn kernel_trap(frame: &Frame) -> ! {
    let address = x86_64::registers::control::Cr2::read_raw();
    let message = KernelTrap { vector: frame.vector, error: frame.error, address };
    end(&Report { message: &message, registers: frame.into() })
}

/// A thread trapped with interrupts off.
pub(crate) fn trap_with_guard_held(context: &Context, vector: u64, address: u64) -> ! {
    let guard = executor::lock::held_guard().unwrap_or("none (interrupts are off)");
    let name = thread::current().map_or("?", |thread| thread.name());
    let trap = KernelTrap { vector, error: context.error, address };
    let message = format_args!("thread \"{name}\" trapped while it held the spin lock \"{guard}\": {trap}");
    end(&Report { message: &message, registers: context.into() })
}

struct KernelTrap {
    vector: u64,
    error: u64,
    address: u64,
}

impl KernelTrap {
    fn page_fault(error: u64, address: u64) -> Self {
        Self { vector: 14, error, address }
    }
}

impl fmt::Display for KernelTrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vector {
            14 => {
                let access = match self.error {
                    error if error & 0x10 != 0 => "execution",
                    error if error & 0x2 != 0 => "write",
                    _ => "read",
                };
                let reason =
                    if self.error & 1 == 0 { "the page is not there" } else { "the page forbids it" };
                write!(f, "page fault: {access} at {:#x}, {reason}", self.address)?;
                if thread::current().is_none() {
                    f.write_str("; only threads may fault, not tasks, drivers or interrupt handlers")?;
                }
                Ok(())
            }
            8 => write!(f, "double fault (last page fault at {:#x})", self.address),
            18 => f.write_str("machine check"),
            vector => write!(f, "exception {vector}, error code {:#x}", self.error),
        }
    }
}

fn end(report: &Report<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    let cpu = cpu::current();
    match REPORTER.compare_exchange(NOBODY, cpu.number(), SeqCst, SeqCst) {
        Ok(_) => registers::call_on_panic_stack(&mut || {
            stop_others(cpu);
            let _ = write_report(cpu, report);
            leave();
        }),
        Err(reporter) if reporter == cpu.number() => {
            println!("\npanic during a panic: {} (at {:#x})", report.message, report.registers.rip);
            leave()
        }
        Err(_) => {
            cpu.stopped_at.store(report.registers.rip, SeqCst);
            registers::halt_for_ever()
        }
    }
}

/// Whether another CPU than `cpu` reports a panic. From anywhere.
pub(crate) fn is_reported_elsewhere(cpu: &Cpu) -> bool {
    let reporter = REPORTER.load(SeqCst);
    reporter != NOBODY && reporter != cpu.number()
}

/// Makes all other CPUs stand still, and takes over what they may have been in the middle of.
fn stop_others(own: &Cpu) {
    let others = || cpu::all().filter(|other| other.number() != own.number());
    if others().next().is_none() {
        return;
    }
    others().for_each(|other| apic::interrupt_unmasked(other.apic_id.load(SeqCst) as u8));
    let end = clock::now() + STOP;
    while others().any(|other| other.stopped_at.load(SeqCst) == 0) && clock::now() < end {
        core::hint::spin_loop();
    }
    serial::take_over();
}

fn leave() -> ! {
    // First: a screen that cannot be painted keeps nobody from knowing.
    drivers::power::control("panic");
    screen::show_if_possible();
    drivers::power::off()
}

fn write_report(cpu: &Cpu, report: &Report<'_>) -> fmt::Result {
    let out = &mut Lines::new();
    let registers = &report.registers;
    writeln!(out, "\nPANIC after {} us: {}", clock::now() / 1000, report.message)?;
    if cpu::online() > 1 {
        writeln!(out, "on CPU {} of {}", cpu.number(), cpu::online())?;
    }
    match (thread::current(), executor::current_task()) {
        (Some(thread), _) => writeln!(out, "in thread {} \"{}\"", thread.id(), thread.name())?,
        (None, Some(task)) => writeln!(out, "in task {} \"{}\"", task.id(), task.name())?,
        (None, None) => writeln!(out, "in no task: at boot, idle, or in an interrupt handler")?,
    }
    if let Some(guard) = executor::lock::held_guard() {
        writeln!(out, "holding the spin lock \"{guard}\"")?;
    }
    writeln!(out, "rip {:016x} rsp {:016x} rflags {:08x}", registers.rip, registers.rsp, registers.rflags)?;
    if let Some(general) = &registers.general {
        for (names, values) in GENERAL.chunks(5).zip(general.chunks(5)) {
            for (name, value) in names.iter().zip(values) {
                write!(out, "{name:>3} {value:016x} ")?;
            }
            writeln!(out)?;
        }
    }
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    writeln!(out, "cr2 {cr2:016x} cr3 {:016x}", paging::active_root().as_u64())?;
    write_others(out, cpu)?;
    write_parked(out)?;
    write_requests(out)?;
    writeln!(out, "backtrace:")?;
    write_backtrace(out, registers)?;
    match trap::fault_under_way(cpu) {
        Some(fault) => write_first_fault(out, &fault),
        None => Ok(()),
    }
}

/// The fault of a thread that was being answered meanwhile.
fn write_first_fault(out: &mut Lines, fault: &FaultUnderWay) -> fmt::Result {
    let (trap, registers) = (KernelTrap::page_fault(fault.error, fault.address), Registers::from(fault));
    writeln!(out, "while the thread's own fault was answered: {trap}")?;
    writeln!(out, "rip {:016x} rsp {:016x} rflags {:08x}", registers.rip, registers.rsp, registers.rflags)?;
    write_backtrace(out, &registers)
}

/// Where the other CPUs stand.
fn write_others(out: &mut Lines, own: &Cpu) -> fmt::Result {
    for other in cpu::all().filter(|other| other.number() != own.number()) {
        match other.stopped_at.load(SeqCst) {
            0 => writeln!(out, "CPU {} does not stop", other.number())?,
            rip => writeln!(out, "CPU {} stopped at {rip:#018x}", other.number())?,
        }
    }
    Ok(())
}

fn write_parked(out: &mut Lines) -> fmt::Result {
    let now = clock::now();
    let mut threads = 0;
    let complete = thread::try_visit(|thread| {
        threads += 1;
        if threads <= MAX_LINES {
            let _ = write!(out, "thread {} \"{}\" ", thread.id(), thread.name());
            let _ = write_wait(out, thread.task().and_then(|task| task.wait()), now);
        }
    });
    if !complete {
        writeln!(out, "(the list of threads is locked)")?;
    } else if threads > MAX_LINES {
        writeln!(out, "... and {} threads more", threads - MAX_LINES)?;
    }
    let mut tasks = 0;
    let complete = executor::try_for_each_task(&mut |task| {
        if task.class() == executor::Class::Task && task.wait().is_some() {
            tasks += 1;
            if tasks <= MAX_LINES {
                let _ = write!(out, "task {} \"{}\" ", task.id(), task.name());
                let _ = write_wait(out, task.wait(), now);
            }
        }
    });
    if !complete {
        writeln!(out, "(the list of tasks is locked)")?;
    } else if tasks > MAX_LINES {
        writeln!(out, "... and {} tasks more", tasks - MAX_LINES)?;
    }
    Ok(())
}

/// What the disks are asked for. Counters, which nobody has locked.
fn write_requests(out: &mut Lines) -> fmt::Result {
    for disk in machine::disks() {
        let stats = disk.device.stats();
        let (now, so_far) = (stats.in_flight, stats.requests);
        writeln!(
            out,
            "{}: {now} requests under way, {so_far} taken up so far, {} failed",
            disk.name, stats.errors
        )?;
    }
    Ok(())
}

fn write_wait(out: &mut Lines, wait: Option<(executor::WaitReason, u64)>, now: u64) -> fmt::Result {
    match wait {
        Some((reason, since)) => {
            writeln!(out, "waits for {reason} since {} us", now.saturating_sub(since) / 1000)
        }
        None => writeln!(out, "is ready or runs"),
    }
}

/// Follows the frame pointers, as long as they lead upwards through mapped memory. The runner turns the
/// addresses into functions, files and lines.
fn write_backtrace(out: &mut Lines, registers: &Registers) -> fmt::Result {
    writeln!(out, "  #0 {:#018x}", registers.rip)?;
    let mut frame = registers.rbp;
    for number in 1..MAX_LINES {
        let Some((next, return_address)) = paging::read_kernel_pair(frame) else { break };
        if return_address == 0 {
            break;
        }
        // The call is just before the address to return to.
        writeln!(out, "  #{number} {:#018x}", return_address - 1)?;
        if next <= frame {
            break;
        }
        frame = next;
    }
    Ok(())
}
