//! Programs of ring 3 without a disk: their code is a page that a pager makes.
#![allow(unsafe_code, reason = "reads a program's code out of the kernel's own")]

use alloc::{boxed::Box, vec::Vec};
use core::arch::global_asm;

use kernel::{
    memory::{self, memory},
    thread::{self, ThreadHandle},
};
use mm::{AddressSpace, PAGE_SIZE, PageIndex, Placement, Protection, TestPager, VirtAddr, VmObject};

use crate::check::{Failure, Needed, Outcome};

/// Where a program's code is mapped, readable and executable.
pub(crate) const CODE: u64 = 0x40_0000;
/// Where its data is mapped: zeros, readable and writable.
pub(crate) const DATA: u64 = 0x1000_0000;
/// Where counters have the page that they share.
pub(crate) const SHARED: u64 = 0x2000_0000;
/// Pages of data; the stack begins at their end.
const DATA_PAGES: u64 = 80;

/// Starts a program with this code, of at most a page.
pub(crate) fn start(code: Vec<u8>) -> Result<ThreadHandle, Failure> {
    let space = memory::new_user_space().needed("a space")?;
    map_code(&space, code)?;
    let data = VmObject::zero(memory(), DATA_PAGES);
    let (first, at) = (PageIndex::new(0), Placement::Fixed(VirtAddr::truncated(DATA)));
    space.map(&data, first, DATA_PAGES, Protection::READ_WRITE.for_user(), at).needed("the data")?;
    let stack = DATA + DATA_PAGES * PAGE_SIZE as u64;
    thread::spawn_user("program", space, VirtAddr::truncated(CODE), stack)
        .needed("a program cannot be started")
}

/// Maps this code, of at most a page, where programs have it.
pub(crate) fn map_code(space: &AddressSpace, code: Vec<u8>) -> Outcome {
    let fill = move |_: PageIndex, page: &mut [u8]| {
        page.fill(0xf4);
        page[..code.len()].copy_from_slice(&code);
    };
    let code = VmObject::new(memory(), TestPager::new(memory(), Box::new(fill)), 1);
    let (first, at) = (PageIndex::new(0), Placement::Fixed(VirtAddr::truncated(CODE)));
    space.map(&code, first, 1, Protection::READ_EXECUTE.for_user(), at).needed("the code")?;
    Ok(())
}

/// A program that makes system calls and touches 64 pages of its data, and checks after each that every
/// register and every page is as it left them. Ends with 0 if so.
pub(crate) fn storm() -> Result<ThreadHandle, Failure> {
    start(code_between(&raw const ring3_storm, &raw const ring3_storm_end))
}

/// A program that counts in a word of each page of its memory, whose address is its stack pointer, and checks that each is
/// as it left it; see `forks`. Ends with 0 when it is told to, with 1 when a word is not.
pub(crate) fn counter() -> Vec<u8> {
    code_between(&raw const ring3_counter, &raw const ring3_counter_end)
}

/// The code between two labels of what follows.
fn code_between(begin: *const u8, end: *const u8) -> Vec<u8> {
    // SAFETY: the two labels enclose code below, which nobody changes.
    let code = unsafe { core::slice::from_raw_parts(begin, end.byte_offset_from(begin) as usize) };
    code.into()
}

unsafe extern "C" {
    static ring3_storm: u8;
    static ring3_storm_end: u8;
    static ring3_counter: u8;
    static ring3_counter_end: u8;
}

global_asm!(
    ".global ring3_counter, ring3_counter_end",
    "ring3_counter:",
    "mov ebx, {shared}",
    "mov r14, [rbx + 16]",
    // Whoever was forked or stopped in the middle of a round ends it first.
    "mov r12, [rsp]",
    "xor r13d, r13d",
    "2:",
    "mov [rsp + r13], r12",
    "add r13, 4096",
    "cmp r13, r14",
    "jne 2b",
    "3:",
    "mov rdx, r12",
    "inc r12",
    "xor r13d, r13d",
    "4:",
    "mov edi, 1",
    "cmp [rsp + r13], rdx",
    "jne 9f",
    "mov [rsp + r13], r12",
    "add r13, 4096",
    "cmp r13, r14",
    "jne 4b",
    "lock inc qword ptr [rbx + 8]",
    "cmp qword ptr [rbx], 0",
    "je 3b",
    "xor edi, edi",
    "9:",
    "mov eax, {exit}",
    "syscall",
    "ud2",
    "ring3_counter_end:",
    shared = const SHARED,
    exit = const 60,
);

global_asm!(
    ".global ring3_storm, ring3_storm_end",
    "ring3_storm:",
    "mov r12d, {rounds}",
    "mov r13d, {data}",
    // Registers are kept by a system call, and by whatever comes in between.
    "2:",
    "lea rbx, [r12 + 1]",
    "lea rbp, [r12 + 2]",
    "lea rdx, [r12 + 3]",
    "lea rsi, [r12 + 4]",
    "lea rdi, [r12 + 5]",
    "lea r8, [r12 + 6]",
    "lea r9, [r12 + 7]",
    "lea r10, [r12 + 8]",
    "lea r14, [r12 + 9]",
    "lea r15, [r12 + 10]",
    "movq xmm0, r14",
    "movq xmm15, r15",
    "mov eax, {getppid}",
    "syscall",
    "mov ecx, 40",
    "3: dec ecx",
    "jnz 3b",
    "sub rbx, 1",
    "sub rbp, 2",
    "sub rdx, 3",
    "sub rsi, 4",
    "sub rdi, 5",
    "sub r8, 6",
    "sub r9, 7",
    "sub r10, 8",
    "xor rbx, r12",
    "xor rbp, r12",
    "xor rdx, r12",
    "xor rsi, r12",
    "xor rdi, r12",
    "xor r8, r12",
    "xor r9, r12",
    "xor r10, r12",
    "or rax, rbx",
    "or rax, rbp",
    "or rax, rdx",
    "or rax, rsi",
    "or rax, rdi",
    "or rax, r8",
    "or rax, r9",
    "or rax, r10",
    "movq rcx, xmm0",
    "xor rcx, r14",
    "or rax, rcx",
    "movq rcx, xmm15",
    "xor rcx, r15",
    "or rax, rcx",
    "mov edi, 1",
    "test rax, rax",
    "jnz 9f",
    // A page of data: zero when it is new, else what the round 64 rounds ago left there.
    "mov eax, r12d",
    "and eax, 63",
    "shl eax, 12",
    "mov rcx, [r13 + rax]",
    "mov [r13 + rax], r12",
    "mov edi, 2",
    "lea rdx, [r12 + 64]",
    "cmp edx, {rounds}",
    "ja 4f",
    "cmp rcx, rdx",
    "jne 9f",
    "jmp 5f",
    "4:",
    "test rcx, rcx",
    "jnz 9f",
    "5:",
    "dec r12d",
    "jnz 2b",
    "xor edi, edi",
    "9:",
    "mov eax, {exit}",
    "syscall",
    "ud2",
    "ring3_storm_end:",
    rounds = const 3000,
    data = const DATA,
    getppid = const 110,
    exit = const 60,
);
