//! The first and last instructions of every trap.
//!
//! Each trap enters on a stack of the CPU, never on the stack of whoever trapped. What happens next
//! depends on a flag of the CPU and not on the ring: while `Cpu::context` points at a
//! thread's registers, that thread is running, and the trap stores the registers there, leaves the trap
//! stack and *returns from* [`enter_raw`] with the vector in `rax`. Otherwise the executor or a handler
//! was interrupted; the registers are pushed and a Rust handler is called.
//!
//! ```text
//! enter_raw ──► iretq ──► thread ──trap──► trap_common ──► ret (to the caller of enter_raw)
//!                         thread ──page fault that needs no wait──► page_fault ──► iretq
//!                                    executor ──trap──► trap_common ──► handler ──► iretq
//! ```
//!
//! NMI, machine check, double fault and debug exceptions may come between any two instructions, also
//! between a `syscall` and its `swapgs`. Their stubs find the CPU by the first word of their own
//! stack and touch neither GS nor the current thread.
#![allow(unsafe_code, reason = "the trap entry and exit code")]

use core::{
    arch::naked_asm,
    mem::offset_of,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    context::Context,
    cpu::{Cpu, TRAP_STACK_SIZE},
    gdt::{Segments, USER_CODE, USER_DATA},
    trap,
};

/// The pseudo-vector that [`enter_raw`] returns for a `syscall` instruction.
pub(super) const SYSCALL: u64 = 0x100;

/// The pseudo-vector of a page fault that was answered, when there is work for the executor now.
pub(super) const LEAVE: u64 = 0x101;

/// Set at boot where the CPU has SMAP: `clac` is an invalid instruction elsewhere.
static HAS_SMAP: AtomicBool = AtomicBool::new(false);

/// Tells the stubs whether `clac` exists. Called once at boot, before the first thread runs.
pub(super) fn set_has_smap(has: bool) {
    HAS_SMAP.store(has, Ordering::Relaxed);
}

/// `naked_asm!` with the layout of [`Context`] and of [`Cpu`] as operands.
macro_rules! context_asm {
    ($($argument:tt)*) => {
        naked_asm!(
            // Every operand has to be named once; not every stub needs all of them.
            "# {rax} {rbx} {rcx} {rdx} {rsi} {rdi} {rbp} {r8} {r9} {r10} {r11} {r12} {r13} {r14} {r15}",
            "# {error} {rip} {cs} {rflags} {rsp} {ss} {context} {executor_stack}",
            $($argument)*
            executor_stack = const offset_of!(Cpu, executor_stack),
            context = const offset_of!(Cpu, context),
            rax = const offset_of!(Context, rax),
            rbx = const offset_of!(Context, rbx),
            rcx = const offset_of!(Context, rcx),
            rdx = const offset_of!(Context, rdx),
            rsi = const offset_of!(Context, rsi),
            rdi = const offset_of!(Context, rdi),
            rbp = const offset_of!(Context, rbp),
            r8 = const offset_of!(Context, r8),
            r9 = const offset_of!(Context, r9),
            r10 = const offset_of!(Context, r10),
            r11 = const offset_of!(Context, r11),
            r12 = const offset_of!(Context, r12),
            r13 = const offset_of!(Context, r13),
            r14 = const offset_of!(Context, r14),
            r15 = const offset_of!(Context, r15),
            error = const offset_of!(Context, error),
            rip = const offset_of!(Context, rip),
            cs = const offset_of!(Context, cs),
            rflags = const offset_of!(Context, rflags),
            rsp = const offset_of!(Context, rsp),
            ss = const offset_of!(Context, ss),
        )
    };
}

/// Loads the registers of a thread and runs it until its next trap; returns the trap's vector.
///
/// # Safety
/// Interrupts are off, `context` is a valid context that nobody else touches until this returns, its
/// `cs`/`ss` are selectors of our GDT and its `rip` is canonical. For a ring-3 context the right address
/// space is loaded.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn enter_raw(context: *mut Context) -> u64 {
    context_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov gs:[{executor_stack}], rsp",
        "mov gs:[{context}], rdi",
        "push qword ptr [rdi + {ss}]",
        "push qword ptr [rdi + {rsp}]",
        "push qword ptr [rdi + {rflags}]",
        "push qword ptr [rdi + {cs}]",
        "push qword ptr [rdi + {rip}]",
        "mov rax, [rdi + {rax}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "test byte ptr [rdi + {cs}], 3",
        "mov rdi, [rdi + {rdi}]",
        "jz 2f",
        "swapgs",
        "2:",
        "iretq",
    )
}

/// Stores all general registers but `rax` and `rdi` in the context at `rdi`. Shared by the ways out of a
/// thread; the operands are those of `context_asm!`.
macro_rules! save_registers {
    () => {
        "mov [rdi + {rbx}], rbx
         mov [rdi + {rcx}], rcx
         mov [rdi + {rdx}], rdx
         mov [rdi + {rsi}], rsi
         mov [rdi + {rbp}], rbp
         mov [rdi + {r8}], r8
         mov [rdi + {r9}], r9
         mov [rdi + {r10}], r10
         mov [rdi + {r11}], r11
         mov [rdi + {r12}], r12
         mov [rdi + {r13}], r13
         mov [rdi + {r14}], r14
         mov [rdi + {r15}], r15"
    };
}

/// Goes back to the caller of [`enter_raw`]; the vector is in `rax` already.
macro_rules! return_from_enter {
    () => {
        "mov qword ptr gs:[{context}], 0
         mov rsp, gs:[{executor_stack}]
         pop r15
         pop r14
         pop r13
         pop r12
         pop rbp
         pop rbx
         ret"
    };
}

/// The way of every ordinary trap. On the stack: vector, error code, and what the CPU pushed.
#[unsafe(naked)]
unsafe extern "C" fn trap_common() {
    context_asm!(
        "cld",
        "cmp byte ptr [rip + {has_smap}], 0",
        "je 2f",
        "clac",
        "2:",
        "test byte ptr [rsp + 24], 3",
        "jz 3f",
        "swapgs",
        "3:",
        "push rdi",
        "mov rdi, gs:[{context}]",
        "test rdi, rdi",
        "jz 4f",
        "mov [rdi + {rax}], rax",
        save_registers!(),
        "pop rax",
        "mov [rdi + {rdi}], rax",
        "pop rax",
        "pop qword ptr [rdi + {error}]",
        "pop qword ptr [rdi + {rip}]",
        "pop qword ptr [rdi + {cs}]",
        "pop qword ptr [rdi + {rflags}]",
        "pop qword ptr [rdi + {rsp}]",
        "pop qword ptr [rdi + {ss}]",
        return_from_enter!(),
        // No thread is running: the executor or a handler was interrupted.
        "4:",
        "pop rdi",
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rdi, rsp",
        "call {handler}",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        has_smap = sym HAS_SMAP,
        handler = sym trap::executor_trapped,
    )
}

/// The entry of a vector for which the CPU pushes no error code.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn plain<const VECTOR: u64>() {
    naked_asm!("push 0", "push {vector}", "jmp {common}", vector = const VECTOR, common = sym trap_common)
}

/// The entry of a vector for which the CPU pushes an error code.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn with_error<const VECTOR: u64>() {
    naked_asm!("push {vector}", "jmp {common}", vector = const VECTOR, common = sym trap_common)
}

/// The entry of a page fault. Most faults of threads are answered without leaving the thread: `trap::page_fault` is
/// called on the trap stack, with what C functions change saved there. It says how to go on: 0 goes back to the thread,
/// a vector is that of an ordinary trap. Meanwhile no thread counts as running, so a fault in it is the kernel's own, and
/// enters on another stack: see `gdt::Stack`.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn page_fault() {
    naked_asm!(
        "push {vector}",
        "cld",
        "cmp byte ptr [rip + {has_smap}], 0",
        "je 2f",
        "clac",
        "2:",
        "test byte ptr [rsp + 24], 3",
        "jz 3f",
        "swapgs",
        "3:",
        "cmp qword ptr gs:[{context}], 0",
        "je 5f",
        "sub qword ptr gs:[{stack}], {stack_size}",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        // Nine registers, the vector, the error code and the processor's five words: the stack is aligned.
        "lea rdi, [rsp + 72]",
        "call {handler}",
        "add qword ptr gs:[{stack}], {stack_size}",
        "test rax, rax",
        "jnz 4f",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add rsp, 16",
        "test byte ptr [rsp + 8], 3",
        "jz 6f",
        "swapgs",
        "6:",
        "iretq",
        "4:",
        "mov [rsp + 72], rax",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "5:",
        "test byte ptr [rsp + 24], 3",
        "jz 7f",
        "swapgs",
        "7:",
        "jmp {common}",
        vector = const trap::PAGE_FAULT,
        has_smap = sym HAS_SMAP,
        stack = const offset_of!(Cpu, segments) + Segments::PAGE_FAULT_STACK,
        stack_size = const TRAP_STACK_SIZE,
        context = const offset_of!(Cpu, context),
        handler = sym trap::page_fault,
        common = sym trap_common,
    )
}

/// The entry of the `syscall` instruction, from ring 3 only: interrupts are off (SFMASK), the stack is
/// still the user's and is not touched.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn syscall() {
    context_asm!(
        "swapgs",
        "mov gs:[{scratch}], rdi",
        "mov rdi, gs:[{context}]",
        "mov [rdi + {rax}], rax",
        save_registers!(),
        "mov rax, gs:[{scratch}]",
        "mov [rdi + {rdi}], rax",
        "mov [rdi + {rip}], rcx",
        "mov [rdi + {rflags}], r11",
        "mov [rdi + {rsp}], rsp",
        "mov qword ptr [rdi + {cs}], {user_code}",
        "mov qword ptr [rdi + {ss}], {user_data}",
        "mov eax, {syscall}",
        return_from_enter!(),
        scratch = const offset_of!(Cpu, syscall_scratch),
        user_code = const USER_CODE,
        user_data = const USER_DATA,
        syscall = const SYSCALL,
    )
}

/// The body of a stub that must not trust GS: pushes everything, finds the CPU by its own stack, and
/// calls `handler(&Cpu, &Frame)`.
macro_rules! gs_free {
    () => {
        "push rax
         push rbx
         push rcx
         push rdx
         push rsi
         push rdi
         push rbp
         push r8
         push r9
         push r10
         push r11
         push r12
         push r13
         push r14
         push r15
         cld
         cmp byte ptr [rip + {has_smap}], 0
         je 2f
         clac
         2:
         mov rsi, rsp
         mov rdi, rsp
         and rdi, -{stack_size}
         mov rdi, [rdi]
         call {handler}
         pop r15
         pop r14
         pop r13
         pop r12
         pop r11
         pop r10
         pop r9
         pop r8
         pop rbp
         pop rdi
         pop rsi
         pop rdx
         pop rcx
         pop rbx
         pop rax
         add rsp, 16
         iretq"
    };
}

/// Non-maskable interrupt: may come anywhere, changes nothing that anybody else can see.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn nmi() {
    naked_asm!(
        "push 0",
        "push 2",
        gs_free!(),
        has_smap = sym HAS_SMAP,
        stack_size = const TRAP_STACK_SIZE,
        handler = sym trap::nmi,
    )
}

/// Debug exception: from ring 3 it is the thread's, as any other; from ring 0 it is noted and ignored.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn debug() {
    naked_asm!(
        "push 0",
        "push 1",
        "test byte ptr [rsp + 24], 3",
        "jnz {common}",
        gs_free!(),
        has_smap = sym HAS_SMAP,
        stack_size = const TRAP_STACK_SIZE,
        common = sym trap_common,
        handler = sym trap::debug_in_kernel,
    )
}

/// Machine check: ends in a panic.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn machine_check() {
    naked_asm!(
        "push 0",
        "push 18",
        gs_free!(),
        has_smap = sym HAS_SMAP,
        stack_size = const TRAP_STACK_SIZE,
        handler = sym trap::fatal,
    )
}

/// Double fault: ends in a panic. The CPU pushes an error code of 0.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn double_fault() {
    naked_asm!(
        "push 8",
        gs_free!(),
        has_smap = sym HAS_SMAP,
        stack_size = const TRAP_STACK_SIZE,
        handler = sym trap::fatal,
    )
}
