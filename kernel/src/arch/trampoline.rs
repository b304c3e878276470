//! The first instructions of a CPU that another one starts: from real mode to a Rust function on a stack of its own.
//!
//! ```text
//! start-up IPI ─► real mode, this page ─► protected mode ─► long mode (tables with this page at its own address)
//!               ─► take the ticket ─► stack, CPU block ─► `entered`, which loads the kernel's tables
//! ```
//!
//! A CPU starts below 1 MiB, so the code is copied to a page there (see [`memory::low_pages`]), and what it needs to
//! know stands behind it. The next four pages are page tables: the kernel's upper half, and the first page at
//! its physical address. All of it stays for ever: a CPU may come long after it was asked to.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | a CPU that comes, another one that comes late | one ticket: the stack is exchanged for 0; who gets 0 halts |
//! | a CPU that comes, who gives it up | the same exchange ([`Trampoline::withdraw`]) says which of the two was first |
#![allow(unsafe_code, reason = "starts CPUs")]

use core::{
    arch::global_asm,
    mem::offset_of,
    ptr,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use mm::{PAGE_SIZE, PhysAddr};

use super::{apic, cpu::Cpu, paging, registers, stacks::CpuStack};
use crate::{cpus, memory};

/// Where in the page [`Parameters`] stand.
const PARAMETERS: usize = 0x800;

/// What the code knows, in the order in which a CPU needs it.
#[repr(C)]
struct Parameters {
    /// Null, 32-bit code, data, 64-bit code.
    gdt: [u64; 4],
    gdt_limit: u16,
    gdt_base: [u16; 2],
    padding: u16,
    /// Far pointers: offset, selector.
    protected_mode: [u32; 2],
    long_mode: [u32; 2],
    root: u64,
    entry: u64,
    cpu: AtomicU64,
    /// The ticket: 0 when there is none.
    stack: AtomicU64,
}

const CODE_32: u32 = 0x08;
const DATA: u32 = 0x10;
const CODE_64: u32 = 0x18;

global_asm!(
    ".pushsection .rodata.faultline_trampoline, \"a\"",
    ".code16",
    "faultline_trampoline:",
    "cli",
    "cld",
    "movw %cs, %ax",
    "movw %ax, %ds",
    "xorl %ebx, %ebx",
    "movw %ax, %bx",
    "shll $4, %ebx", // where the page is
    "lgdtl ({parameters} + {gdt_limit})",
    "movl %cr0, %eax",
    "orl $1, %eax",
    "movl %eax, %cr0",
    "ljmpl *({parameters} + {protected_mode})",
    ".code32",
    "faultline_trampoline_32:",
    "movw ${data}, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw %ax, %ss",
    "movl %cr4, %eax",
    "orl $0x20, %eax", // physical address extension
    "movl %eax, %cr4",
    "movl ({parameters} + {root})(%ebx), %eax",
    "movl %eax, %cr3",
    "movl $0xc0000080, %ecx", // EFER: long mode, no-execute
    "rdmsr",
    "orl $0x900, %eax",
    "wrmsr",
    "movl %cr0, %eax",
    "andl $0x9fffffff, %eax", // caches on
    "orl $0x80010000, %eax",  // paging, write protection
    "movl %eax, %cr0",
    "ljmpl *({parameters} + {long_mode})(%ebx)",
    ".code64",
    "faultline_trampoline_64:",
    "xorl %eax, %eax",
    "xchgq %rax, ({parameters} + {stack})(%rbx)",
    "testq %rax, %rax",
    "jz 2f",
    "movq %rax, %rsp",
    "movq ({parameters} + {cpu})(%rbx), %rdi",
    "movq ({parameters} + {entry})(%rbx), %rax",
    "xorl %ebp, %ebp",
    "pushq $0",
    "jmpq *%rax",
    "2:",
    "cli",
    "hlt",
    "jmp 2b",
    "faultline_trampoline_end:",
    ".popsection",
    parameters = const PARAMETERS,
    gdt_limit = const offset_of!(Parameters, gdt_limit),
    protected_mode = const offset_of!(Parameters, protected_mode),
    long_mode = const offset_of!(Parameters, long_mode),
    root = const offset_of!(Parameters, root),
    entry = const offset_of!(Parameters, entry),
    cpu = const offset_of!(Parameters, cpu),
    stack = const offset_of!(Parameters, stack),
    data = const DATA,
    options(att_syntax),
);

unsafe extern "C" {
    static faultline_trampoline: u8;
    static faultline_trampoline_32: u8;
    static faultline_trampoline_64: u8;
    static faultline_trampoline_end: u8;
}

/// The page where CPUs start, ready for one after the other.
pub(crate) struct Trampoline {
    page: PhysAddr,
    parameters: &'static Parameters,
}

impl Trampoline {
    /// Writes the code and its tables; `None` where the machine has no memory for them below 1 MiB. Once.
    pub(crate) fn place() -> Option<Self> {
        let page = memory::low_pages()?;
        let start = page.as_u64();
        let root = make_tables(page);
        let code = &raw const faultline_trampoline;
        let [code_32, code_64, end] = [
            &raw const faultline_trampoline_32,
            &raw const faultline_trampoline_64,
            &raw const faultline_trampoline_end,
        ];
        let length = end as usize - code as usize;
        assert!(length <= PARAMETERS, "the code stands before its parameters");
        // The page is below 1 MiB.
        let at = |label: *const u8| (start as usize + (label as usize - code as usize)) as u32;
        let gdt = start as u32 + (PARAMETERS + offset_of!(Parameters, gdt)) as u32;
        let parameters = Parameters {
            gdt: [0, 0x00cf_9a00_0000_ffff, 0x00cf_9200_0000_ffff, 0x00af_9a00_0000_ffff],
            gdt_limit: 4 * 8 - 1,
            gdt_base: [gdt as u16, (gdt >> 16) as u16],
            padding: 0,
            protected_mode: [at(code_32), CODE_32],
            long_mode: [at(code_64), CODE_64],
            root: root.as_u64(),
            entry: entered as *const () as u64,
            cpu: AtomicU64::new(0),
            stack: AtomicU64::new(0),
        };
        let mapped = memory::phys_to_virt(start) as *mut u8;
        // SAFETY: the page was kept for this, nobody else uses it, and it is mapped with all physical memory.
        let parameters = unsafe {
            ptr::copy_nonoverlapping(code, mapped, length);
            let place = mapped.add(PARAMETERS).cast::<Parameters>();
            place.write(parameters);
            &*place
        };
        Some(Self { page, parameters })
    }

    /// Lets the next CPU that comes be this one.
    pub(crate) fn offer(&self, cpu: &'static Cpu, stack: &CpuStack) {
        self.parameters.cpu.store(ptr::from_ref(cpu) as u64, Release);
        self.parameters.stack.store(stack.top(), Release);
    }

    /// Whether a CPU has taken the offer.
    pub(crate) fn is_taken(&self) -> bool {
        self.parameters.stack.load(Acquire) == 0
    }

    /// Takes the offer back; false when a CPU has taken it.
    pub(crate) fn withdraw(&self) -> bool {
        self.parameters.stack.swap(0, AcqRel) != 0
    }

    /// Makes a CPU that was reset come.
    pub(crate) fn start(&self, apic_id: u8) {
        apic::start_up(apic_id, self.page.as_u64());
    }
}

/// The tables behind the page: level 4 to level 1.
fn make_tables(page: PhysAddr) -> PhysAddr {
    const PRESENT_WRITABLE: u64 = 0b11;
    let table = |level: u64| page.as_u64() + level * PAGE_SIZE as u64;
    let upper = paging::upper_half();
    for level in 1..memory::LOW_PAGES as u64 {
        let mut entries = [0_u64; 512];
        if level == 1 {
            entries[256..].copy_from_slice(&upper);
        }
        let (index, target) = match level {
            4 => (page.as_u64() as usize / PAGE_SIZE, page.as_u64()),
            _ => (0, table(level + 1)),
        };
        entries[index] = target | PRESENT_WRITABLE;
        // SAFETY: the pages were kept for this, nobody else uses them, and they are mapped with all physical
        // memory.
        unsafe { (memory::phys_to_virt(table(level)) as *mut [u64; 512]).write(entries) };
    }
    PhysAddr::new(table(1))
}

/// The first Rust function of a CPU that was started, on its own stack.
extern "C" fn entered(cpu: &'static Cpu) -> ! {
    // The tables of the trampoline are no place to stay.
    paging::leave_user_space();
    // Nobody counts on this CPU before its clock is right.
    if cpu.comparison.ask().is_err() {
        registers::halt_for_ever();
    }
    cpu.begin_other();
    cpus::join(cpu)
}
