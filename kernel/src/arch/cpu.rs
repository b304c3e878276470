//! What each CPU has of its own: the block that GS points at while the kernel runs.
//!
//! The boot CPU's block and trap stacks are statics; those of the others are made when they are started
//! ([`Cpu::make`]), and stay for ever.
//!
//! | who | may do what with a block |
//! | --- | --- |
//! | its CPU, interrupts off | everything |
//! | its CPU, interrupts on | nothing that outlives the moment: a kernel thread may go on elsewhere |
//! | other CPUs | read atomics, send it a kick |
#![allow(unsafe_code, reason = "sets the GS base and the control registers")]

use alloc::boxed::Box;
use core::{
    arch::asm,
    cell::UnsafeCell,
    mem::offset_of,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use executor::CpuLocal;
use x86_64::{
    VirtAddr,
    registers::{
        control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags},
        model_specific::{GsBase, KernelGsBase},
    },
};

use super::{apic, context::Context, gdt::Segments, idt, paging, stubs};
use crate::{
    clock::Comparison,
    heap::{self, DrawsOnReserve},
    memory,
    thread::Thread,
};

/// More CPUs than this are left alone.
pub const MAX_CPUS: usize = 64;

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

    /// The address of the page fault that is being answered.
    pub(super) fault_address: AtomicU64,

    /// The executor's next deadline, in ns since boot.
    pub(crate) alarm: AtomicU64,
    /// What the one-shot timer is set to, in ns since boot; `u64::MAX` when it is not running.
    pub(crate) armed: AtomicU64,
    /// When the time slot of the thread that was entered last is over, in ns since boot.
    pub(crate) slot_end: AtomicU64,

    /// This CPU's local APIC id.
    pub(crate) apic_id: AtomicU32,
    /// When this CPU came up, in ns since boot.
    pub(crate) up_since: AtomicU64,
    /// Since when it is idle, in ns since boot; 0 while it is not.
    pub(crate) idle_since: AtomicU64,
    /// Whether its clock agrees with the boot CPU's.
    pub(crate) comparison: Comparison,
    /// It stands still for good, because of a panic: the instruction where it stopped. 0 while it runs.
    pub(crate) stopped_at: AtomicU64,
    /// What runs here may take from the heap's reserve.
    pub(crate) draws_on_reserve: DrawsOnReserve,
    /// Timer interrupts since boot.
    pub timer_interrupts: AtomicU64,
    /// Non-maskable interrupts since boot.
    pub nmis: AtomicU64,
    /// Page faults that this CPU raised since boot, each a real #PF.
    pub page_faults: AtomicU64,
    /// How often a thread was entered since boot.
    pub enters: AtomicU64,

    pub(super) segments: Segments,
}

/// The CPU that the machine booted on.
pub(super) static BOOT_CPU: Cpu = Cpu::new(0);
static BOOT_TRAP_STACKS: TrapStacks = [const { TrapStack::new() }; TRAP_STACKS];

/// The CPUs that are up, by their numbers.
static CPUS: [AtomicPtr<Cpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
/// They are below this.
static NUMBERS: AtomicU32 = AtomicU32::new(0);

impl Cpu {
    const fn new(id: u32) -> Self {
        Self {
            local: CpuLocal::new(id),
            context: AtomicPtr::new(ptr::null_mut()),
            executor_stack: AtomicU64::new(0),
            syscall_scratch: AtomicU64::new(0),
            thread: AtomicPtr::new(ptr::null_mut()),
            fpu_loaded: AtomicBool::new(false),
            fault_address: AtomicU64::new(0),
            alarm: AtomicU64::new(u64::MAX),
            armed: AtomicU64::new(u64::MAX),
            slot_end: AtomicU64::new(u64::MAX),
            apic_id: AtomicU32::new(0),
            up_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            comparison: Comparison::new(),
            stopped_at: AtomicU64::new(0),
            draws_on_reserve: DrawsOnReserve::new(),
            timer_interrupts: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            page_faults: AtomicU64::new(0),
            enters: AtomicU64::new(0),
            segments: Segments::new(),
        }
    }

    /// A block for another CPU, with its trap stacks; `None` when there is no memory. They stay for ever.
    pub(crate) fn make(number: u32) -> Option<&'static Self> {
        const FRAMES: usize = size_of::<TrapStacks>() / mm::PAGE_SIZE;
        const ALIGN: usize = TRAP_STACK_SIZE / mm::PAGE_SIZE;
        let stacks = memory::memory().frames().try_alloc_contiguous(FRAMES, ALIGN)?;
        let cpu: &'static Self = Box::leak(heap::try_box(Self::new(number))?);
        let stacks = memory::phys_to_virt(stacks.into_address().as_u64()) as *const TrapStacks;
        // SAFETY: the frames are ours for good, aligned, and mapped with all physical memory; stacks need
        // no first value.
        cpu.segments.prepare(unsafe { &*stacks }, cpu);
        Some(cpu)
    }

    /// Makes the executing CPU the boot CPU: what a lock, a trap and a report need. First of all.
    pub(super) fn begin_boot() {
        BOOT_CPU.segments.prepare(&BOOT_TRAP_STACKS, &BOOT_CPU);
        BOOT_CPU.begin();
    }

    /// Makes this the block of the CPU that executes the call, which was just started by another one. Its run loop
    /// follows soon: the others count on it.
    pub(super) fn begin_other(&'static self) {
        self.apic_id.store(apic::id().into(), Relaxed);
        self.begin();
        apic::enable_local();
    }

    fn begin(&'static self) {
        self.segments.load();
        // Loading the null selector into GS may have cleared its base.
        self.load_gs();
        KernelGsBase::write(VirtAddr::zero());
        idt::init();
        set_control_registers();
        // From here on others may send it interrupts.
        CPUS[self.number() as usize].store(ptr::from_ref(self).cast_mut(), Release);
        NUMBERS.fetch_max(self.number() + 1, Release);
        self.local.bind();
    }

    /// The CPU's number: 0 is the boot CPU.
    pub fn number(&self) -> u32 {
        self.local.id()
    }

    /// The executor's part.
    pub fn local(&self) -> &CpuLocal {
        &self.local
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

/// The thread whose `enter` is under way on the CPU that executes the call; null outside. Read in one instruction:
/// so a thread that moves to another CPU meanwhile finds itself, whichever it reads there.
pub(crate) fn current_thread() -> *const Thread {
    let thread: *const Thread;
    // SAFETY: as in `current`; the offset is that of a pointer-sized field.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) thread, const offset_of!(Cpu, thread),
            options(nostack, readonly, preserves_flags));
    }
    thread
}

/// The CPUs that are up, by their numbers.
pub fn all() -> impl Iterator<Item = &'static Cpu> {
    (0..NUMBERS.load(Acquire)).filter_map(by_number)
}

/// How many CPUs are up.
pub fn online() -> usize {
    all().count()
}

/// The CPU with this number, once it is up. From anywhere.
pub(crate) fn by_number(number: u32) -> Option<&'static Cpu> {
    // SAFETY: only `begin` writes there, blocks that stay for ever.
    unsafe { CPUS.get(number as usize)?.load(Acquire).as_ref() }
}

/// All trap stacks of a CPU.
pub(super) type TrapStacks = [TrapStack; TRAP_STACKS];

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
        // SAFETY: called once, before the stack is in use.
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
    paging::set_memory_types(cr4);
}

fn raw_cpuid_leaf(leaf: u32) -> core::arch::x86_64::CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, 0)
}

/// The local APIC of the CPU that takes the devices' interrupts.
pub(crate) fn boot_apic_id() -> u8 {
    BOOT_CPU.apic_id.load(Relaxed) as u8
}

/// A snapshot of a CPU's counters, for reports.
#[derive(Clone, Copy, Debug, Default)]
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

/// The counters of all CPUs together.
pub fn counters() -> Counters {
    all().map(Cpu::counters).fold(Counters::default(), |sum, cpu| Counters {
        timer_interrupts: sum.timer_interrupts + cpu.timer_interrupts,
        nmis: sum.nmis + cpu.nmis,
        page_faults: sum.page_faults + cpu.page_faults,
        enters: sum.enters + cpu.enters,
    })
}

impl Cpu {
    /// This CPU's counters.
    pub fn counters(&self) -> Counters {
        Counters {
            timer_interrupts: self.timer_interrupts.load(Relaxed),
            nmis: self.nmis.load(Relaxed),
            page_faults: self.page_faults.load(Relaxed),
            enters: self.enters.load(Relaxed),
        }
    }

    /// How long it has been up and how long it has been idle, in ns. From any CPU: so the second one may be a bit
    /// off.
    pub fn times(&self, now: u64) -> (u64, u64) {
        let idle_since = self.idle_since.load(Relaxed);
        let idle_now = if idle_since == 0 { 0 } else { now.saturating_sub(idle_since) };
        let up = now.saturating_sub(self.up_since.load(Relaxed));
        (up, (self.local.counters().idle_ns + idle_now).min(up))
    }
}
