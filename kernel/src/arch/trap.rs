//! Entering a thread, and what comes back.
//!
//! [`enter`] is an ordinary call that returns at the thread's next trap that needs the executor.
//! Interrupts that woke nothing here, and system calls and faults that cannot wait are answered inside.
#![allow(unsafe_code, reason = "runs threads and handles traps")]

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use x86_64::{instructions::interrupts, registers::control::Cr2};

use super::{
    context::{Context, Frame},
    cpu::{self, Cpu},
    fpu, idt, paging, registers, stubs,
};
use crate::{
    clock, interrupt, panic, syscall,
    thread::{self, Thread},
};

/// Why a thread came back from [`enter`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trap {
    /// It touched a page that is not there, or not so.
    PageFault(PageFault),
    /// It made a system call that may wait; number and arguments are in its registers.
    Syscall,
    /// A kernel thread called the kernel; the call is in its registers.
    Call,
    /// It raised another exception.
    Exception(Exception),
    /// Its time slot is over.
    SlotOver,
    /// An interrupt queued work for this CPU.
    Interrupted,
    /// It was not entered: a task is ready that goes first.
    NotYet,
}

/// How a call of [`enter`] stands in the poll that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The first call. What was woken since the run loop took the thread out is not to wait for a whole slot.
    First,
    /// The first call of the poll after one that came to nothing: others do not go before the thread again, or it would
    /// never run beside tasks that are always ready.
    Due,
    /// A later call, which goes on with the poll's time slot.
    Later,
}

/// What the CPU says of a page fault (Intel SDM vol. 3, 4.7).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFault {
    /// The address that was touched.
    pub address: u64,
    error: u32,
}

impl PageFault {
    /// Whether it was a write.
    pub(crate) fn is_write(self) -> bool {
        self.error & 1 << 1 != 0
    }

    /// Whether ring 3 made the access.
    pub(crate) fn is_user(self) -> bool {
        self.error & 1 << 2 != 0
    }

    /// Whether a reserved bit was set in a page-table entry: the tables are corrupted.
    pub(crate) fn is_reserved_bit(self) -> bool {
        self.error & 1 << 3 != 0
    }

    /// Whether it was an instruction fetch.
    pub(crate) fn is_execute(self) -> bool {
        self.error & 1 << 4 != 0
    }
}

/// An exception other than a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector, below 32.
    pub vector: u8,
    /// Its error code, 0 where there is none.
    pub error: u32,
}

const DEVICE_NOT_AVAILABLE: u64 = 7;
pub(super) const PAGE_FAULT: u64 = 14;
const FIRST_INTERRUPT: u64 = 32;
const THREAD_CALL: u64 = idt::THREAD_CALL as u64;

/// Runs `thread` on this CPU until a trap that the executor has to see.
///
/// A time slot begins with the first call of a poll, unless a task goes first. Later calls go on with it, and come back at
/// once when it is over or a task is ready here: so a thread that traps often does not keep the CPU. Called by the
/// thread's own future only, with interrupts on.
pub(crate) fn enter(thread: &Thread, turn: Turn) -> Trap {
    interrupts::disable();
    let cpu = cpu::current();
    let context = thread.context_ptr();
    cpu.thread.store(core::ptr::from_ref(thread).cast_mut(), Relaxed);
    if let Some(space) = thread.space() {
        paging::activate(space.root());
    }
    let reason_to_leave = match turn {
        Turn::First if executor::has_new_work() => Some(Trap::NotYet),
        Turn::First | Turn::Due => {
            clock::start_slot(cpu);
            None
        }
        Turn::Later => reason_to_leave(cpu),
    };
    let trap = reason_to_leave.unwrap_or_else(|| enter_until_trap(cpu, thread, context));
    fpu::leave(cpu, thread);
    cpu.thread.store(core::ptr::null_mut(), Relaxed);
    interrupts::enable();
    trap
}

/// Why a thread that could go on should not. Interrupts are off.
fn reason_to_leave(cpu: &Cpu) -> Option<Trap> {
    if clock::slot_is_over(cpu) {
        Some(Trap::SlotOver)
    } else if executor::has_work() {
        Some(Trap::Interrupted)
    } else {
        None
    }
}

/// Runs `thread` until a trap that cannot be answered here. Interrupts are off.
fn enter_until_trap(cpu: &'static Cpu, thread: &Thread, context: *mut Context) -> Trap {
    clock::watch_slot(cpu);
    loop {
        cpu.enters.store(cpu.enters.load(Relaxed) + 1, Relaxed);
        // SAFETY: interrupts are off; the context belongs to this call until it returns; ring-3 contexts
        // are made and changed by checked code only (`Thread::new_user`, `syscall`); the space is active.
        let vector = unsafe { stubs::enter_raw(context) };
        // SAFETY: the thread is not running, and nobody but this call touches its context.
        let registers = unsafe { &mut *context };
        match vector {
            PAGE_FAULT => {
                // CR2 is still this fault's: nothing that may fault has run since.
                let address = Cr2::read_raw();
                refuse_trap_with_guard_held(registers, vector, address);
                return Trap::PageFault(PageFault { address, error: registers.error as u32 });
            }
            stubs::LEAVE => return Trap::Interrupted,
            stubs::SYSCALL => {
                if !syscall::answer_at_once(registers) {
                    return Trap::Syscall;
                }
            }
            THREAD_CALL => {
                refuse_trap_with_guard_held(registers, vector, 0);
                return Trap::Call;
            }
            DEVICE_NOT_AVAILABLE if registers.is_user() && fpu::first_use(cpu, thread) => {}
            FIRST_INTERRUPT.. => {
                interrupt::dispatch(vector as u8);
                if let Some(trap) = reason_to_leave(cpu) {
                    return trap;
                }
            }
            _ => {
                refuse_trap_with_guard_held(registers, vector, 0);
                return Trap::Exception(Exception { vector: vector as u8, error: registers.error as u32 });
            }
        }
    }
}

/// A thread that traps with interrupts off holds a spin lock, or is in the middle of something that must
/// not be left: the kernel's own bug.
fn refuse_trap_with_guard_held(registers: &Context, vector: u64, address: u64) {
    if !registers.is_user() && registers.interrupts_off() {
        panic::trap_with_guard_held(registers, vector, address);
    }
}

/// What the processor leaves of a page fault.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct FaultFrame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// A page fault that a thread made and that was being answered when something went wrong.
#[derive(Clone, Copy)]
pub(crate) struct FaultUnderWay {
    /// What the processor said of it.
    pub(crate) error: u64,
    /// Where.
    pub(crate) address: u64,
    /// The thread's registers, as far as they are kept.
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) rbp: u64,
    pub(crate) rflags: u64,
}

/// The page fault that this CPU was answering, if it was: for reports.
pub(crate) fn fault_under_way(cpu: &Cpu) -> Option<FaultUnderWay> {
    /// Below the frame: registers that the stub keeps, the handler's return address, and its caller's `rbp`.
    const KEPT: u64 = (9 + 1 + 1) * 8;
    let frame = cpu.segments.page_fault_under_way()? - size_of::<FaultFrame>() as u64;
    let (rbp, _) = paging::read_kernel_pair(frame - KEPT)?;
    // SAFETY: the stub has put it there, at the top of the stack of page faults, which nobody else uses meanwhile.
    let FaultFrame { error, rip, rsp, rflags, .. } = unsafe { *(frame as *const FaultFrame) };
    Some(FaultUnderWay { error, address: cpu.fault_address.load(Relaxed), rip, rsp, rbp, rflags })
}

/// A page fault of the thread that runs: answers it if nothing has to be waited for. 0 if it did, or the vector to
/// return from `enter_raw` with. Called by the stub, with interrupts off, on the stack of page faults.
pub(super) extern "C" fn page_fault(frame: &FaultFrame) -> u64 {
    let cpu = cpu::current();
    cpu.page_faults.store(cpu.page_faults.load(Relaxed) + 1, Relaxed);
    let has_guard = frame.cs & 3 == 0 && frame.rflags & Context::INTERRUPTS_ON == 0;
    // SAFETY: a thread runs here, so its `enter` is under way, and keeps it.
    let Some(thread) = (unsafe { cpu.thread.load(Relaxed).as_ref() }).filter(|_| !has_guard) else {
        return frame.vector;
    };
    let fault = PageFault { address: Cr2::read_raw(), error: frame.error as u32 };
    cpu.fault_address.store(fault.address, Relaxed);
    let context = cpu.context.load(Relaxed);
    cpu.context.store(core::ptr::null_mut(), Relaxed);
    let served = thread::serve_fault_at_once(thread, fault);
    cpu.context.store(context, Relaxed);
    match served {
        // It may have woken somebody. The end of the slot comes by an interrupt.
        true if executor::has_work() => stubs::LEAVE,
        true => 0,
        false => frame.vector,
    }
}

/// A trap while no thread was running. Called by the stub, with interrupts off.
pub(super) extern "C" fn executor_trapped(frame: &mut Frame) {
    if frame.vector >= FIRST_INTERRUPT {
        interrupt::dispatch(frame.vector as u8);
    } else {
        panic::kernel_trap(frame);
    }
}

/// A non-maskable interrupt: counted, nothing else, unless another CPU reports a panic: then this one stands still
/// for good. It may have come at any instruction.
pub(super) extern "C" fn nmi(cpu: &Cpu, frame: &Frame) {
    if panic::is_reported_elsewhere(cpu) {
        cpu.stopped_at.store(frame.rip, SeqCst);
        registers::halt_for_ever();
    }
    cpu.nmis.store(cpu.nmis.load(Relaxed) + 1, Relaxed);
}

/// A debug exception in ring 0: a breakpoint register that somebody set, or a single step that leaked in.
pub(super) extern "C" fn debug_in_kernel(_cpu: &Cpu, frame: &mut Frame) {
    const TRAP_FLAG: u64 = 1 << 8;
    frame.rflags &= !TRAP_FLAG;
    // DR6 is sticky: what is not cleared would be read as the reason of the next one.
    // SAFETY: writing zero to DR6's low bits is always allowed; the reserved bits keep their values.
    unsafe {
        core::arch::asm!("mov dr6, {}", in(reg) 0xffff_0ff0_u64, options(nomem, nostack, preserves_flags));
    }
}

/// Machine check or double fault: GS may be the user's, so it is set before the report.
pub(super) extern "C" fn fatal(cpu: &Cpu, frame: &Frame) {
    cpu.load_gs();
    panic::kernel_trap(frame);
}
