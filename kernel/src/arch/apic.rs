//! The interrupt controllers: local APICs (timer, end of interrupt, interrupts between CPUs) and I/O APIC (ISA
//! interrupts).
//!
//! A local APIC's registers stand at the same address for all CPUs, and each reaches its own.
#![allow(unsafe_code, reason = "reads ACPI tables and programs interrupt controllers")]

use core::{
    pin::Pin,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use acpi::{
    AcpiHandler, AcpiTables, PhysicalMapping,
    madt::{Madt, MadtEntry},
};
use conquer_once::spin::OnceCell;
use x2apic::ioapic::{IoApic, IrqFlags, IrqMode, RedirectionTableEntry};
use x86_64::{instructions::port::Port, registers::model_specific::Msr};

use super::{
    cpu::{BOOT_CPU, MAX_CPUS},
    device_memory, idt,
};
use crate::memory;

/// Offsets of a local APIC's registers, of 32 bits each (Intel SDM vol. 3, table 10-1), and their values.
mod register {
    pub(super) const ID: u64 = 0x20;
    pub(super) const TASK_PRIORITY: u64 = 0x80;
    pub(super) const END_OF_INTERRUPT: u64 = 0xb0;
    pub(super) const SPURIOUS: u64 = 0xf0;
    pub(super) const COMMAND: u64 = 0x300;
    pub(super) const COMMAND_DESTINATION: u64 = 0x310;
    pub(super) const TIMER: u64 = 0x320;
    pub(super) const PIN_0: u64 = 0x350;
    pub(super) const PIN_1: u64 = 0x360;
    pub(super) const ERROR: u64 = 0x370;
    pub(super) const TIMER_INITIAL: u64 = 0x380;
    pub(super) const TIMER_CURRENT: u64 = 0x390;
    pub(super) const TIMER_DIVIDE: u64 = 0x3e0;

    /// In `SPURIOUS`: the APIC is on.
    pub(super) const ENABLED: u32 = 1 << 8;
    /// In the local vector table.
    pub(super) const MASKED: u32 = 1 << 16;
    /// In `TIMER_DIVIDE`: the timer counts bus cycles divided by 16.
    pub(super) const DIVIDE_BY_16: u32 = 0b0011;

    /// In `COMMAND` and in the local vector table: what is delivered.
    pub(super) const NMI: u32 = 0b100 << 8;
    pub(super) const INIT: u32 = 0b101 << 8;
    pub(super) const STARTUP: u32 = 0b110 << 8;
    /// In `COMMAND`.
    pub(super) const PENDING: u32 = 1 << 12;
    pub(super) const ASSERT: u32 = 1 << 14;
    pub(super) const TO_SELF: u32 = 0b01 << 18;
}

/// Where the interrupt controllers are, and who has one, read from ACPI's MADT once at boot.
struct Found {
    /// Physical in the MADT, then where it is mapped; as is the next.
    local_apic: u64,
    io_apic: u64,
    io_apic_first: u32,
    /// Global system interrupt and flags of each ISA interrupt.
    isa: [(u32, u16); 16],
    /// How many CPUs are named, and the APIC ids of the first of them.
    cpus: usize,
    ids: [u8; MAX_CPUS],
}

/// Where the local APIC's registers are mapped; 0 before [`init`].
static LOCAL: AtomicU64 = AtomicU64::new(0);
static FOUND: OnceCell<Found> = OnceCell::uninit();

fn read(register: u64) -> u32 {
    let address = LOCAL.load(Relaxed) + register;
    // SAFETY: `init` mapped the registers for ever; reading one of these has no effect.
    unsafe { (address as *const u32).read_volatile() }
}

/// # Safety
/// `init` has mapped the registers, and the value is one that this CPU's APIC may get now.
unsafe fn write(register: u64, value: u32) {
    let address = LOCAL.load(Relaxed) + register;
    // SAFETY: as the caller promises.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// Finds and enables the interrupt controllers; the ISA inputs stay masked. Once, on the boot CPU.
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
    LOCAL.store(found.local_apic, Relaxed);
    enable_local();
    BOOT_CPU.apic_id.store(id().into(), Relaxed);
    // SAFETY: the address is that of the MADT; the vectors have handlers.
    unsafe { IoApic::new(found.io_apic).init(idt::FIRST_ISA) };
}

/// Sets up the executing CPU's local APIC: one-shot timer, not running; kicks and non-maskable interrupts come
/// in. Interrupts are off.
pub(super) fn enable_local() {
    leave_x2apic();
    // SAFETY: all vectors have handlers. The first pin was the 8259s'; the second one is where a PC's
    // non-maskable interrupts arrive.
    unsafe {
        write(register::TASK_PRIORITY, 0);
        write(register::TIMER_DIVIDE, register::DIVIDE_BY_16);
        write(register::TIMER_INITIAL, 0);
        write(register::TIMER, idt::TIMER.into());
        write(register::ERROR, idt::APIC_ERROR.into());
        write(register::PIN_0, register::MASKED);
        write(register::PIN_1, register::NMI);
        write(register::SPURIOUS, register::ENABLED | u32::from(idt::SPURIOUS));
    }
}

/// Firmware may have left the APIC in a mode in which its registers are not in memory; the way back leads through
/// off (Intel SDM vol. 3, 10.12.5).
fn leave_x2apic() {
    const APIC_BASE: u32 = 0x1b;
    const ENABLED: u64 = 1 << 11;
    const X2APIC: u64 = 1 << 10;
    let mut base = Msr::new(APIC_BASE);
    // SAFETY: every CPU with a local APIC has this register; nobody relies on the APIC yet.
    unsafe {
        let value = base.read();
        if value & X2APIC != 0 {
            base.write(value & !(ENABLED | X2APIC));
            base.write(value & !X2APIC | ENABLED);
        }
    }
}

/// The executing CPU's local APIC id.
pub(super) fn id() -> u8 {
    (read(register::ID) >> 24) as u8
}

/// Maps a controller's page of registers.
fn map_registers(address: u64) -> u64 {
    let mapped = device_memory::map_registers(address, mm::PAGE_SIZE as u64);
    mapped.expect("there is memory at boot").as_ptr() as u64
}

fn read_madt(madt: Pin<&Madt>) -> Found {
    let mut found = Found {
        local_apic: madt.local_apic_address.into(),
        io_apic: 0,
        io_apic_first: u32::MAX,
        isa: core::array::from_fn(|irq| (irq as u32, 0)),
        cpus: 0,
        ids: [0; MAX_CPUS],
    };
    for entry in madt.entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & 1 != 0 => {
                if let Some(id) = found.ids.get_mut(found.cpus) {
                    *id = cpu.apic_id;
                }
                found.cpus += 1;
            }
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
pub(crate) fn cpus() -> usize {
    FOUND.get().map_or(1, |found| found.cpus)
}

/// The APIC ids of the other CPUs that the firmware names, as far as the kernel has numbers for them.
pub(crate) fn other_ids() -> impl Iterator<Item = u8> {
    let ids = FOUND.get().map_or(&[][..], |found| &found.ids[..found.cpus.min(MAX_CPUS)]);
    let own = super::cpu::boot_apic_id();
    ids.iter().copied().filter(move |&id| id != own)
}

/// Routes ISA interrupt `irq` (0..16) to the boot CPU, edge triggered unless ACPI says otherwise; its
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
    entry.set_dest(super::cpu::boot_apic_id());
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
    unsafe { write(register::END_OF_INTERRUPT, 0) };
}

/// Starts this CPU's one-shot timer: an interrupt after `ticks`; 0 stops it.
pub(crate) fn set_timer(ticks: u32) {
    // SAFETY: the timer's vector has a handler.
    unsafe { write(register::TIMER_INITIAL, ticks) };
}

/// What is left of this CPU's timer's count.
pub(crate) fn timer_left() -> u32 {
    read(register::TIMER_CURRENT)
}

/// Interrupts the CPU with this APIC id, to make it look at its queues. From anywhere.
pub(crate) fn kick(id: u8) {
    send(id, u32::from(idt::KICK) | register::ASSERT);
}

/// Interrupts this CPU with a device's vector, and returns the time-stamp counter of the moment before.
pub(crate) fn interrupt_self(vector: u8) -> u64 {
    wait_until_sent();
    let before = super::registers::time_stamp();
    // One register says it all, so an interrupt may come before.
    // SAFETY: devices' vectors may come at any time.
    unsafe { write(register::COMMAND, register::TO_SELF | register::ASSERT | u32::from(vector)) };
    before
}

/// Puts the CPU with this APIC id into the state after power-on, where it waits for [`start_up`].
pub(crate) fn reset(id: u8) {
    send(id, register::INIT | register::ASSERT);
}

/// Makes a CPU that was [`reset`] execute the page at `address`, in real mode. One that runs already does not care.
pub(crate) fn start_up(id: u8, address: u64) {
    send(id, register::STARTUP | register::ASSERT | (address >> 12) as u32);
}

/// Interrupts the CPU with this APIC id, whether it wants it or not. Interrupts are off; for a panic, so it looks at
/// nothing of this CPU's own.
pub(crate) fn interrupt_unmasked(id: u8) {
    send_now(id, register::NMI | register::ASSERT);
}

/// From anywhere. The command is two registers, so no interrupt may come between. Those that cannot be masked send
/// nothing.
fn send(id: u8, command: u32) {
    executor::lock::without_interrupts(|| send_now(id, command));
}

fn send_now(id: u8, command: u32) {
    wait_until_sent();
    // SAFETY: the callers send what the receiver can take.
    unsafe {
        write(register::COMMAND_DESTINATION, u32::from(id) << 24);
        write(register::COMMAND, command);
    }
}

/// The command before this one may still be on its way, which takes as long as the other CPU's APIC does.
fn wait_until_sent() {
    /// More looks than any APIC needs: the command is then given up for this one.
    const LOOKS: u32 = 100_000;
    for _ in 0..LOOKS {
        if read(register::COMMAND) & register::PENDING == 0 {
            break;
        }
        core::hint::spin_loop();
    }
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
