//! Faultline's devices: interrupt -> completion -> waker.
//!
//! Every driver here has the same three rooms, and data flows through them in one direction:
//!
//! 1. **The handler** (`interrupt()`), called by the kernel's trap code. It acknowledges the device,
//!    records what happened in atomics or a ring that it alone pushes to, and raises a signal. It takes
//!    no lock that other code takes, allocates nothing, frees nothing. The kernel sends the end of
//!    interrupt to the interrupt controller after it returns.
//! 2. **The owner**, one task (or one reader), which waits for the signal, takes what was recorded and
//!    turns it into completions. It is the only code that touches the device's queues.
//! 3. **The waiter**, any task or thread, which holds a future and is woken by the owner. Dropping a
//!    waiter never takes memory away from a device: whoever owns the memory is the request, not the
//!    waiter.
//!
//! Nothing here polls a device, with two exceptions that say so where they stand: setting devices up and
//! calibrating the timer at boot, and [`serial::Serial::write_now`], with which a panic is printed.
//!
//! What may be called from where is said at each item. If nothing is said, an item may be called from a
//! task or a kernel thread, but not from an interrupt handler.
//!
//! Unsafe code stands in the rooms that touch registers or memory shared with a device (`port`, `mmio`,
//! `dma`, `shared_memory`, `virtio::filler`, `virtio_blk::ring`, and one method of `pci`); everything else denies it.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod block;
mod byte_ring;
mod completion;
pub mod dma;
pub mod fw_cfg;
pub mod keyboard;
pub mod line;
pub mod mirror;
mod mmio;
pub mod pci;
mod port;
pub mod power;
mod quiet;
mod room;
pub mod screen;
pub mod serial;
pub mod shared_memory;
pub mod timer;
pub mod virtio;
pub mod virtio_blk;

pub use virtio_blk::VirtioBlk;
