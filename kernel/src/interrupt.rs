//! Which device's handler serves which vector.
//!
//! A handler does three things: acknowledge, record, wake. It takes no lock that other code takes,
//! allocates nothing and frees nothing. Interrupts are off while it runs.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use conquer_once::spin::OnceCell;
use drivers::pci::InterruptTarget;

use crate::{
    arch::{apic, cpu, idt},
    clock, trace,
};

/// What runs for a vector.
pub type Handler = &'static (dyn Fn() + Sync);

const DEVICE_VECTORS: usize = (idt::DEVICES_END - idt::FIRST_ISA) as usize;

static HANDLERS: [OnceCell<Handler>; DEVICE_VECTORS] = [const { OnceCell::uninit() }; DEVICE_VECTORS];
static NEXT_MSI: AtomicU8 = AtomicU8::new(idt::FIRST_MSI);

/// The handler of an ISA interrupt (0..16); unmasks it. At boot.
///
/// # Panics
/// When the interrupt has a handler already.
pub fn on_isa(irq: u8, handler: Handler) {
    register(idt::FIRST_ISA + irq, handler);
    apic::enable_isa(irq);
}

/// A vector of its own for a device with message-signalled interrupts, on the CPU that has booted; `None` when all are taken.
/// There is no way to give one back, so whoever did not use it gives it to the next device.
pub fn allocate() -> Option<InterruptTarget> {
    let next = |vector| (vector < idt::DEVICES_END).then_some(vector + 1);
    let vector = NEXT_MSI.fetch_update(Relaxed, Relaxed, next).ok()?;
    Some(InterruptTarget { vector, apic_id: cpu::boot_apic_id() })
}

/// The handler of a vector from [`allocate`].
///
/// # Panics
/// When the vector has a handler already.
pub fn register(vector: u8, handler: Handler) {
    let slot = &HANDLERS[usize::from(vector - idt::FIRST_ISA)];
    assert!(slot.try_init_once(|| handler).is_ok(), "vector {vector:#x} has a handler already");
}

/// Serves `vector`. Called with interrupts off, by the trap code only.
pub(crate) fn dispatch(vector: u8) {
    match vector {
        idt::SPURIOUS => return,
        idt::TIMER => clock::timer_interrupt(),
        idt::FIRST_ISA..idt::DEVICES_END => {
            trace::interrupt(vector);
            if let Some(handler) = HANDLERS[usize::from(vector - idt::FIRST_ISA)].get() {
                handler();
            }
        }
        // A kick has done its work by arriving. APIC errors are counted by the APIC.
        _ => {}
    }
    apic::end_of_interrupt();
}
