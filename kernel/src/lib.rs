//! Faultline's machine: boot, traps, threads, system calls and the console. The only crate that is bound to
//! ring 0; a library, so that tests and prototypes are kernels of their own.
//!
//! **Principles.** A thread is a future; a fault is an `await` in it. Nothing blocks a CPU: who waits is
//! a pending future with a reason that `ps` can print. A panic is for the kernel's own bugs; everything that
//! a user, a program or a device does wrong is an error to the one who asked.
//!
//! **Who may call what from where.**
//!
//! | | may wait | may fault | may allocate | may take locks |
//! | --- | --- | --- | --- | --- |
//! | interrupt handler | no | no | no | no |
//! | task (a future on the executor) | by `await` | no | yes | spin locks, not across an `await` |
//! | kernel thread | by [`thread::block_on`] | yes, without a spin lock held | yes | as a task |
//!
//! The way of a page fault: `arch/stubs` → `arch/trap` → `thread/run` → `mm::AddressSpace::resolve` →
//! `block_pager` → `drivers::virtio_blk` → (interrupt) → `block_pager` → `thread/run` → `arch/trap`.
#![no_std]

extern crate alloc;

pub mod arch;
pub mod block_pager;
pub mod boot;
pub mod clock;
pub mod console;
pub mod cpus;
mod fault_stats;
pub mod heap;
pub mod interrupt;
mod logging;
pub mod machine;
pub mod memory;
mod panic;
mod platform;
mod power;
pub mod program;
mod screen;
pub mod serial;
mod swap;
mod syscall;
pub mod thread;
pub mod trace;
pub mod vmscript;
pub mod window;

pub use power::exit;
