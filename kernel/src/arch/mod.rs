//! The thin rim: what only an x86-64 in ring 0 can do.
//!
//! Everything unsafe of the kernel stands in this folder, a room a file: trap entry ([`stubs`], [`trap`]),
//! the CPU's own data ([`cpu`]), segments and vectors, the interrupt controllers, the vector registers,
//! guarded copies and the hardware's view of an address space. The rest of the crate denies `unsafe`.

pub mod apic;
pub mod context;
pub mod copy;
pub mod cpu;
pub(crate) mod device_memory;
pub(crate) mod dma;
pub mod fpu;
pub mod gdt;
pub mod idt;
pub mod paging;
pub mod registers;
pub(crate) mod stacks;
mod stubs;
pub(crate) mod trampoline;
pub mod trap;
pub(crate) mod word;

/// First of all at boot: what a lock, a trap and a report need.
pub(crate) fn init() {
    cpu::Cpu::begin_boot();
}
