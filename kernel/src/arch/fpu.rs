//! The vector registers of ring-3 threads.
//!
//! The kernel uses none. CR0.TS is set while the registers hold nobody's state, so a thread's first
//! vector instruction since it was entered traps; its state is loaded then, and stored when
//! it leaves the CPU. Threads that use none pay nothing.
#![allow(unsafe_code, reason = "saves and restores the vector registers")]

use alloc::boxed::Box;
use core::{alloc::Layout, sync::atomic::Ordering::Relaxed};

use x86_64::registers::control::{Cr0, Cr0Flags};

use super::cpu::Cpu;
use crate::thread::Thread;

/// The area of FXSAVE (Intel SDM vol. 1, 10.5): x87 and SSE state.
#[repr(C, align(16))]
pub(crate) struct FpuState([u8; 512]);

impl FpuState {
    /// The state after power-on: all exceptions masked (Intel SDM vol. 1, 8.1 and 11.6). `None` when there
    /// is no memory.
    fn new() -> Option<Box<Self>> {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not empty; a box owns what the allocator gave out for its layout, and all
        // bytes may be zero.
        let mut area = unsafe {
            let bytes = alloc::alloc::alloc_zeroed(layout).cast::<Self>();
            (!bytes.is_null()).then(|| Box::from_raw(bytes))?
        };
        area.0[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Some(area)
    }
}

/// The thread's first vector instruction since it was entered: gives it the registers. False when there is
/// no memory for its state.
pub(super) fn first_use(cpu: &Cpu, thread: &Thread) -> bool {
    // SAFETY: only `enter`, which runs on one CPU at a time for a thread, touches the area.
    let state = unsafe { &mut *thread.fpu_ptr() };
    if state.is_none() {
        *state = FpuState::new();
    }
    let Some(area) = state else { return false };
    // SAFETY: the area is 512 bytes, aligned, and holds a valid state; CR4.OSFXSR is set.
    unsafe {
        core::arch::asm!("clts", "fxrstor64 [{}]", in(reg) &raw const **area, options(nostack));
    }
    cpu.fpu_loaded.store(true, Relaxed);
    true
}

/// The thread leaves the CPU: stores its state if it used the registers.
pub(super) fn leave(cpu: &Cpu, thread: &Thread) {
    if !cpu.fpu_loaded.load(Relaxed) {
        return;
    }
    cpu.fpu_loaded.store(false, Relaxed);
    // SAFETY: as in `first_use`, which allocated the area.
    if let Some(area) = unsafe { &mut *thread.fpu_ptr() } {
        // SAFETY: the area is 512 bytes, aligned and exclusively ours; setting TS affects ring 3 only.
        unsafe {
            core::arch::asm!("fxsave64 [{}]", in(reg) &raw mut **area, options(nostack));
            Cr0::update(|cr0| cr0.insert(Cr0Flags::TASK_SWITCHED));
        }
    }
}
