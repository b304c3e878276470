//! The interrupt controllers: local APIC (timer, end of interrupt, kicks) and I/O APIC (ISA interrupts).
#![allow(unsafe_code, reason = "reads ACPI tables and programs interrupt controllers")]

use core::{cell::UnsafeCell, pin::Pin, ptr::NonNull};

use acpi::{
    AcpiHandler, AcpiTables, PhysicalMapping,
    madt::{Madt, MadtEntry},
};
use conquer_once::spin::OnceCell;
use x2apic::{
    ioapic::{IoApic, IrqFlags, IrqMode, RedirectionTableEntry},
    lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode},
};
use x86_64::instructions::port::Port;

use super::{cpu::BOOT_CPU, device_memory, idt};
use crate::memory;

/// The timer counts bus cycles divided by this.
const TIMER_DIVIDE: TimerDivide = TimerDivide::Div16;

/// Where the interrupt controllers are, read from ACPI's MADT once at boot.
struct Found {
    /// Physical in the MADT, then where it is mapped; as is the next.
    local_apic: u64,
    io_apic: u64,
    io_apic_first: u32,
    /// Global system interrupt and flags of each ISA interrupt.
    isa: [(u32, u16); 16],
    cpus: usize,
}

/// The local APIC. Its registers are the executing CPU's own, so one object serves all.
struct Local(UnsafeCell<LocalApic>);

// SAFETY: the object holds nothing but the registers' address; each CPU reaches its own registers, with
// interrupts off or in single stores.
unsafe impl Sync for Local {}
// SAFETY: as above.
unsafe impl Send for Local {}

static LOCAL: OnceCell<Local> = OnceCell::uninit();
static FOUND: OnceCell<Found> = OnceCell::uninit();

fn local() -> &'static mut LocalApic {
    let local = LOCAL.get().expect("the local APIC is found at boot");
    // SAFETY: no method of `LocalApic` calls another user of this reference, and the registers behind
    // it are this CPU's own.
    unsafe { &mut *local.0.get() }
}

/// Finds and enables the interrupt controllers; the ISA inputs stay masked.
pub(crate) fn init(rsdp: u64) {
    // SAFETY: the boot loader hands over the address of the firmware's tables.
    let tables = unsafe { AcpiTables::from_rsdp(Window, rsdp as usize) }
        .unwrap_or_else(|error| panic!("the firmware's ACPI tables cannot be read: {error:?}"));
    let madt = tables.find_table::<Madt>().unwrap_or_else(|error| panic!("ACPI has no MADT: {error:?}"));
    let found = FOUND.get_or_init(|| {
        let mut found = read_madt(madt.get());
        found.local_apic = map_registers(found.local_apic);
        found.io_apic = map_registers(found.io_apic);
        found
    });
    mask_8259();
    // LOCAL APIC: one-shot timer, not running.
    let mut local = LocalApicBuilder::new()
        .timer_vector(idt::TIMER.into())
        .error_vector(idt::APIC_ERROR.into())
        .spurious_vector(idt::SPURIOUS.into())
        .timer_mode(TimerMode::OneShot)
        .timer_divide(TIMER_DIVIDE)
        .timer_initial(0)
        .set_xapic_base(found.local_apic)
        .build()
        .unwrap_or_else(|error| panic!("no local APIC: {error}"));
    // SAFETY: the address is that of the MADT, mapped with all physical memory; vectors have handlers.
    unsafe {
        local.enable();
        connect_pins(found.local_apic);
        BOOT_CPU.apic_id.store(local.id(), core::sync::atomic::Ordering::Relaxed);
    }
    let _ = LOCAL.try_init_once(|| Local(UnsafeCell::new(local)));
    // SAFETY: as above.
    unsafe { IoApic::new(found.io_apic).init(idt::FIRST_ISA) };
}

/// `enable` leaves both interrupt pins unmasked with vector 0, which is none. The first one was the 8259s';
/// the second one is where a PC's non-maskable interrupts arrive.
///
/// # Safety
/// `registers` is where the executing CPU's local APIC is mapped.
unsafe fn connect_pins(registers: u64) {
    // The local vector table (Intel SDM vol. 3, 11.5.1).
    const LINT0: u64 = 0x350;
    const LINT1: u64 = 0x360;
    const MASKED: u32 = 1 << 16;
    const NMI: u32 = 0b100 << 8;
    for (register, value) in [(LINT0, MASKED), (LINT1, NMI)] {
        // SAFETY: registers of 32 bits, as the caller promises.
        unsafe { ((registers + register) as *mut u32).write_volatile(value) };
    }
}

/// Maps a controller's page of registers.
fn map_registers(address: u64) -> u64 {
    let mapped = device_memory::map(address, mm::PAGE_SIZE as u64);
    mapped.expect("there is memory at boot").as_ptr() as u64
}

fn read_madt(madt: Pin<&Madt>) -> Found {
    let mut found = Found {
        local_apic: madt.local_apic_address.into(),
        io_apic: 0,
        io_apic_first: u32::MAX,
        isa: core::array::from_fn(|irq| (irq as u32, 0)),
        cpus: 0,
    };
    for entry in madt.entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & 1 != 0 => found.cpus += 1,
            MadtEntry::IoApic(io) if io.global_system_interrupt_base < found.io_apic_first => {
                found.io_apic = io.io_apic_address.into();
                found.io_apic_first = io.global_system_interrupt_base;
            }
            MadtEntry::InterruptSourceOverride(entry) => {
                if let Some(isa) = found.isa.get_mut(usize::from(entry.irq)) {
                    *isa = (entry.global_system_interrupt, entry.flags);
                }
            }
            MadtEntry::LocalApicAddressOverride(entry) => found.local_apic = entry.local_apic_address,
            _ => {}
        }
    }
    assert!(found.io_apic != 0, "the MADT names no I/O APIC");
    found
}

/// How many CPUs the firmware names.
pub fn cpus() -> usize {
    FOUND.get().map_or(1, |found| found.cpus)
}

/// Routes ISA interrupt `irq` (0..16) to this CPU, edge triggered unless ACPI says otherwise; its
/// vector is `FIRST_ISA + irq`.
pub(crate) fn enable_isa(irq: u8) {
    let found = FOUND.get().expect("the I/O APIC is found at boot");
    let (global, flags) = found.isa[usize::from(irq)];
    let mut irq_flags = IrqFlags::empty();
    // MPS INTI flags (ACPI 6.5, table 5.26): polarity in bits 0..2, trigger mode in bits 2..4.
    irq_flags.set(IrqFlags::LOW_ACTIVE, flags & 0b11 == 0b11);
    irq_flags.set(IrqFlags::LEVEL_TRIGGERED, flags >> 2 & 0b11 == 0b11);
    let mut entry = RedirectionTableEntry::default();
    entry.set_vector(idt::FIRST_ISA + irq);
    entry.set_mode(IrqMode::Fixed);
    entry.set_flags(irq_flags);
    entry.set_dest(BOOT_CPU.apic_id.load(core::sync::atomic::Ordering::Relaxed) as u8);
    let input = (global - found.io_apic_first) as u8;
    // SAFETY: the address is that of the MADT; the vector has a handler.
    unsafe {
        let mut io_apic = IoApic::new(found.io_apic);
        io_apic.set_table_entry(input, entry);
        io_apic.enable_irq(input);
    }
}

/// The 8259s that every PC still has would deliver spurious interrupts as exceptions.
fn mask_8259() {
    for data in [0x21, 0xa1] {
        // SAFETY: the interrupt mask registers of the two controllers.
        unsafe { Port::<u8>::new(data).write(0xff) };
    }
}

/// Ends the interrupt in service on this CPU.
pub(crate) fn end_of_interrupt() {
    // SAFETY: called once for each interrupt that the local APIC delivered.
    unsafe { local().end_of_interrupt() };
}

/// Starts the one-shot timer: an interrupt after `ticks`; 0 stops it.
pub(crate) fn set_timer(ticks: u32) {
    // SAFETY: the timer's vector has a handler.
    unsafe { local().set_timer_initial(ticks) };
}

/// What is left of the timer's count.
pub(crate) fn timer_left() -> u32 {
    // SAFETY: reads a register.
    unsafe { local().timer_current() }
}

/// ACPI tables are read where all physical memory is mapped.
#[derive(Clone)]
struct Window;

impl AcpiHandler for Window {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let virt = memory::phys_to_virt(address as u64) as *mut T;
        let start = NonNull::new(virt).expect("physical memory is mapped in the upper half");
        // SAFETY: all physical memory is mapped for ever.
        unsafe { PhysicalMapping::new(address, start, size, size, Window) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}
