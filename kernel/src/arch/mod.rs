//! The thin rim: what only an x86-64 in ring 0 can do.
//!
//! Everything unsafe of the kernel stands in this folder, a room a file: trap entry ([`stubs`], [`trap`]),
//! the CPU's own data ([`cpu`]), segments and vectors, the interrupt controllers, the vector registers,
//! guarded copies and the hardware's view of an address space. The rest of the crate denies `unsafe`.

pub(crate) mod apic;
pub(crate) mod context;
pub(crate) mod copy;
pub mod cpu;
pub(crate) mod device_memory;
pub(crate) mod dma;
pub(crate) mod fpu;
pub(crate) mod gdt;
pub(crate) mod idt;
pub(crate) mod paging;
pub(crate) mod registers;
pub(crate) mod stacks;
mod stubs;
pub(crate) mod trampoline;
pub(crate) mod trap;
pub(crate) mod word;

/// First of all at boot: what a lock, a trap and a report need.
pub(crate) fn init() {
    cpu::Cpu::begin_boot();
}
