//! What each CPU has of its own: the block that GS points at while the kernel runs.
#![allow(unsafe_code, reason = "sets the GS base and the control registers")]

use core::{
    arch::asm,
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use executor::CpuLocal;
use x86_64::{
    VirtAddr,
    registers::{
        control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags},
        model_specific::{GsBase, KernelGsBase},
    },
};

use super::{context::Context, stubs};
use crate::thread::Thread;

/// The size and the alignment of a trap stack: the stubs find a stack's first word by masking.
pub(super) const TRAP_STACK_SIZE: usize = 32 * 1024;

/// How many interrupt stacks a task-state segment has (Intel SDM vol. 3, 8.7).
pub(super) const TRAP_STACKS: usize = 7;

/// A CPU's own data. Fields are written by their own CPU with interrupts off; others may read them.
#[repr(C)]
pub struct Cpu {
    /// The executor's part, first: the executor finds it through GS by itself.
    local: CpuLocal,
    /// The registers of the thread that runs now; null while the executor or a handler runs. This is
    /// the flag that tells the trap stubs what a trap interrupted.
    pub(super) context: AtomicPtr<Context>,
    /// The executor's stack pointer inside `enter_raw`. Written by the stubs.
    pub(super) executor_stack: AtomicU64,
    /// Where the `syscall` stub keeps `rdi` for a moment.
    pub(super) syscall_scratch: AtomicU64,

    /// The thread whose `enter` is under way, for reports; null outside.
    pub(super) thread: AtomicPtr<Thread>,
    /// Whether the vector registers hold `thread`'s state.
    pub(super) fpu_loaded: AtomicBool,

    /// The executor's next deadline, in ns since boot.
    pub(crate) alarm: AtomicU64,
    /// What the one-shot timer is set to, in ns since boot; `u64::MAX` when it is not running.
    pub(crate) armed: AtomicU64,
    /// When the time slot of the running thread is over, in ns since boot.
    pub(crate) slot_end: AtomicU64,

    /// This CPU's local APIC id.
    pub(crate) apic_id: AtomicU32,
    /// Timer interrupts since boot.
    pub timer_interrupts: AtomicU64,
    /// Non-maskable interrupts since boot.
    pub nmis: AtomicU64,
    /// Page faults that this CPU raised since boot, each a real #PF.
    pub page_faults: AtomicU64,
    /// How often a thread was entered since boot.
    pub enters: AtomicU64,
}

/// The CPU that the machine booted on.
pub(super) static BOOT_CPU: Cpu = Cpu::new(0);

impl Cpu {
    const fn new(id: u32) -> Self {
        Self {
            local: CpuLocal::new(id),
            context: AtomicPtr::new(ptr::null_mut()),
            executor_stack: AtomicU64::new(0),
            syscall_scratch: AtomicU64::new(0),
            thread: AtomicPtr::new(ptr::null_mut()),
            fpu_loaded: AtomicBool::new(false),
            alarm: AtomicU64::new(u64::MAX),
            armed: AtomicU64::new(u64::MAX),
            slot_end: AtomicU64::new(u64::MAX),
            apic_id: AtomicU32::new(0),
            timer_interrupts: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            page_faults: AtomicU64::new(0),
            enters: AtomicU64::new(0),
        }
    }

    /// Makes this the block of the CPU that executes the call. Called once per CPU, first of all: locks
    /// need it.
    pub(super) fn install(&'static self) {
        self.load_gs();
        self.local.bind();
        KernelGsBase::write(VirtAddr::zero());
    }

    /// The thread whose `enter` is under way.
    pub(crate) fn thread_ptr(&self) -> *const Thread {
        self.thread.load(Relaxed)
    }

    /// Points GS here, whatever it held: for handlers that may have come at a moment when it was the
    /// user's.
    pub(super) fn load_gs(&self) {
        GsBase::write(VirtAddr::from_ptr(self));
    }
}

/// The CPU that executes the call. With interrupts on, the answer of a moment ago.
pub fn current() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: `install` made GS point at this CPU's block, whose first word is its own address; blocks
    // are never freed.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, readonly, preserves_flags));
        &*cpu
    }
}

/// A trap stack. Its first word is the address of its CPU's block.
#[repr(C, align(32768))]
pub(super) struct TrapStack(UnsafeCell<[u8; TRAP_STACK_SIZE]>);

const _: () = assert!(align_of::<TrapStack>() == TRAP_STACK_SIZE);

// SAFETY: only the CPU that it belongs to uses it, as a stack.
unsafe impl Sync for TrapStack {}

impl TrapStack {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new([0; TRAP_STACK_SIZE]))
    }

    /// Notes the owner in the first word; returns the stack's top.
    pub(super) fn prepare(&'static self, cpu: &'static Cpu) -> VirtAddr {
        // SAFETY: called once at boot, before the stack is in use.
        unsafe { self.0.get().cast::<*const Cpu>().write(cpu) };
        VirtAddr::from_ptr(self) + TRAP_STACK_SIZE as u64
    }
}

/// Sets the control registers as a whole: the boot loaders leave different ones.
pub(super) fn set_control_registers() {
    let basic = raw_cpuid_leaf(1);
    let extended = raw_cpuid_leaf(7);
    let mut cr4 = Cr4::read();
    // SSE for ring 3: the kernel itself uses no vector registers.
    cr4 |= Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::PAGE_GLOBAL, basic.edx & (1 << 13) != 0);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, extended.ebx & (1 << 7) != 0);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, extended.ebx & (1 << 20) != 0);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, extended.ecx & (1 << 2) != 0);
    stubs::set_has_smap(cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION));
    let mut cr0 = Cr0::read();
    cr0 |= Cr0Flags::WRITE_PROTECT
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::TASK_SWITCHED;
    cr0.remove(Cr0Flags::EMULATE_COPROCESSOR);
    // SAFETY: each flag is set only where CPUID has the feature; the kernel's text and data are mapped
    // with the rights that it needs, so write protection in ring 0 takes nothing from it.
    unsafe {
        Cr4::write(cr4);
        Cr0::write(cr0);
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
}

fn raw_cpuid_leaf(leaf: u32) -> core::arch::x86_64::CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, 0)
}

/// The local APIC of the CPU that takes the devices' interrupts.
pub(crate) fn boot_apic_id() -> u8 {
    BOOT_CPU.apic_id.load(Relaxed) as u8
}

/// A snapshot of a CPU's counters, for reports.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// See the fields of [`Cpu`].
    pub timer_interrupts: u64,
    /// Non-maskable interrupts.
    pub nmis: u64,
    /// Page faults raised.
    pub page_faults: u64,
    /// Threads entered.
    pub enters: u64,
}

/// The boot CPU's counters.
pub fn counters() -> Counters {
    let cpu = &BOOT_CPU;
    Counters {
        timer_interrupts: cpu.timer_interrupts.load(Relaxed),
        nmis: cpu.nmis.load(Relaxed),
        page_faults: cpu.page_faults.load(Relaxed),
        enters: cpu.enters.load(Relaxed),
    }
}
