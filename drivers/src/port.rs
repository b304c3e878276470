//! I/O ports: the list of every port that this crate touches, and the one place that touches them.
//!
//! A port can only be had from the constants below, so a look at this file tells which devices the crate
//! may disturb. None of them can make the machine write to memory on its own, except through PCI
//! configuration space, whose two ports are for `pci` alone.
#![allow(unsafe_code, reason = "port instructions are unsafe; the ports they reach are listed here")]

use core::marker::PhantomData;

use x86_64::instructions::port::{PortRead, PortWrite};

/// One I/O port of width `T` (`u8`, `u16` or `u32`). May be used from anywhere, with interrupts on or off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port<T> {
    number: u16,
    width: PhantomData<T>,
}

impl<T> Port<T> {
    const fn new(number: u16) -> Self {
        Self { number, width: PhantomData }
    }
}

impl<T: PortRead> Port<T> {
    /// Reads the port.
    pub(crate) fn read(self) -> T {
        // SAFETY: the port is one of those listed below; reading any of them has effects inside its
        // device only, never on memory.
        unsafe { T::read_from_port(self.number) }
    }
}

impl<T: PortWrite> Port<T> {
    /// Writes the port.
    pub(crate) fn write(self, value: T) {
        // SAFETY: the port is one of those listed below; none of these devices writes to memory, except
        // PCI functions, and `pci` lets a function do so only for the owner of its queues.
        unsafe { T::write_to_port(self.number, value) }
    }
}

/// Channel 2 of the interval timer: its 16-bit counter, low byte first.
pub(crate) const PIT_CHANNEL_2: Port<u8> = Port::new(0x42);
/// The interval timer's command register.
pub(crate) const PIT_COMMAND: Port<u8> = Port::new(0x43);
/// System control port B: gate (bit 0), speaker (bit 1) and output (bit 5) of the timer's channel 2.
pub(crate) const SYSTEM_CONTROL_B: Port<u8> = Port::new(0x61);

/// QEMU's fw_cfg: selects an item.
pub(crate) const FW_CFG_SELECT: Port<u16> = Port::new(0x510);
/// QEMU's fw_cfg: the next byte of the selected item.
pub(crate) const FW_CFG_DATA: Port<u8> = Port::new(0x511);

/// QEMU's debugcon: the control channel to the runner.
pub(crate) const CONTROL_CHANNEL: Port<u8> = Port::new(0xe9);
/// QEMU's isa-debug-exit: any write ends QEMU.
pub(crate) const DEBUG_EXIT: Port<u32> = Port::new(0xf4);
/// The ACPI power management control register where SeaBIOS puts it on QEMU's `pc` machine, and where OVMF does.
pub(crate) const ACPI_CONTROL: [Port<u16>; 2] = [Port::new(0x604), Port::new(0xb004)];

/// One of the two serial ports that every PC has at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Com {
    /// COM1, at 0x3f8.
    One,
    /// COM2, at 0x2f8.
    Two,
}

impl Com {
    /// The ISA interrupt line (edge-triggered, active high).
    pub const fn irq(self) -> u8 {
        match self {
            Self::One => 4,
            Self::Two => 3,
        }
    }

    /// The port's register at an offset of 0..8.
    fn register(self, offset: usize) -> Port<u8> {
        let base = match self {
            Self::One => 0x3f8,
            Self::Two => 0x2f8,
        };
        // Offsets wrap inside the device, so that no other device can be reached.
        Port::new(base + (offset as u16 & 7))
    }
}

impl crate::serial::Registers for Com {
    fn read(&self, offset: usize) -> u8 {
        self.register(offset).read()
    }
    fn write(&self, offset: usize, value: u8) {
        self.register(offset).write(value);
    }
}

/// The keyboard controller (i8042): data from and to the devices behind it.
pub(crate) const I8042_DATA: Port<u8> = Port::new(0x60);
/// The keyboard controller: status when read, command when written.
pub(crate) const I8042_COMMAND: Port<u8> = Port::new(0x64);

/// PCI configuration space: which function's register the data port shows.
pub(crate) const PCI_ADDRESS: Port<u32> = Port::new(0xcf8);
/// PCI configuration space: that register.
pub(crate) const PCI_DATA: Port<u32> = Port::new(0xcfc);
