//! PCI: which functions there are, their windows, and message-signalled interrupts (MSI-X).
//!
//! Configuration space is reached through the two ports of the first PCs; one lock keeps the pair of
//! accesses together. Nothing here is for interrupt handlers.
#![allow(unsafe_code, reason = "the library's trait has one unsafe method")]

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use executor::lock::SpinLock;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};

use crate::dma;
use crate::mmio::Window;
use crate::port::{PCI_ADDRESS, PCI_DATA};

/// Keeps the choice of a register and the access to it together.
static PORTS: SpinLock<()> = SpinLock::new("pci", ());

/// Configuration space through the ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigurationPorts;

impl ConfigurationPorts {
    fn address(function: DeviceFunction, register: u8) -> u32 {
        let place = u32::from(function.bus) << 16
            | u32::from(function.device & 31) << 11
            | u32::from(function.function & 7) << 8;
        1 << 31 | place | u32::from(register & 0xfc)
    }
}

impl ConfigurationAccess for ConfigurationPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        let _together = PORTS.lock();
        PCI_ADDRESS.write(Self::address(function, register));
        PCI_DATA.read()
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        let _together = PORTS.lock();
        PCI_ADDRESS.write(Self::address(function, register));
        PCI_DATA.write(data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

/// The root of the PCI tree.
pub(crate) fn root() -> PciRoot<ConfigurationPorts> {
    PciRoot::new(ConfigurationPorts)
}

/// One function of a PCI device.
#[derive(Clone, Debug)]
pub struct Function {
    /// Where it is: bus, device, function. The order of these is the order of [`enumerate`].
    pub address: DeviceFunction,
    /// What it says of itself.
    pub info: DeviceFunctionInfo,
}

impl fmt::Display for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.address, self.info)
    }
}

/// All functions, bus by bus, in ascending order on each. For boot; some thousand port accesses.
pub fn enumerate() -> Vec<Function> {
    let mut found = Vec::new();
    // Buses still to be looked at. Firmware numbers them upwards, so a bridge to a bus that is not higher
    // than its own is not followed, and the walk ends.
    let mut buses = Vec::from([0]);
    while let Some(bus) = buses.pop() {
        for (address, info) in root().enumerate_bus(bus) {
            if info.header_type == HeaderType::PciPciBridge {
                let behind = (ConfigurationPorts.read_word(address, 0x18) >> 8) as u8;
                if behind > bus {
                    buses.push(behind);
                }
            }
            found.push(Function { address, info });
        }
    }
    found.sort_by_key(|function| function.address);
    found
}

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// One of its windows cannot be mapped, or firmware gave it no address.
    Window(u8),
    /// It has no usable MSI-X capability.
    NoMsiX,
}

impl fmt::Display for PciError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(bar) => write!(formatter, "its window {bar} cannot be mapped"),
            Self::NoMsiX => formatter.write_str("it has no usable MSI-X capability"),
        }
    }
}

/// Where a message-signalled interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptTarget {
    /// The vector, 32..=255.
    pub vector: u8,
    /// The local APIC of the CPU that takes it.
    pub apic_id: u8,
}

impl Function {
    /// Maps a piece of one of the function's windows.
    pub(crate) fn map(&self, bar: u8, offset: u32, bytes: u32) -> Result<Window, PciError> {
        let window = (bar < 6).then(|| root().bar_info(self.address, bar));
        let Some(Ok(Some(BarInfo::Memory { address, size, .. }))) = window else {
            return Err(PciError::Window(bar));
        };
        let fits = u64::from(offset) + u64::from(bytes) <= size;
        // An address of 0 means that firmware has placed it nowhere.
        if address == 0 || !fits {
            return Err(PciError::Window(bar));
        }
        Window::map(address + u64::from(offset), u64::from(bytes)).ok_or(PciError::Window(bar))
    }

    /// Maps all of one of the function's windows, which is memory; its address and its length in bytes.
    pub(crate) fn map_memory(&self, bar: u8) -> Result<(NonNull<u8>, u64), PciError> {
        let window = root().bar_info(self.address, bar);
        let Ok(Some(BarInfo::Memory { address: address @ 1.., size, .. })) = window else {
            return Err(PciError::Window(bar));
        };
        dma::map_memory(address, size).map(|start| (start, size)).ok_or(PciError::Window(bar))
    }

    /// Maps all of the function's memory windows, so that a driver that takes them for granted may.
    pub(crate) fn map_bars(&self) -> Result<(), PciError> {
        let bars = root().bars(self.address).map_err(|_| PciError::Window(0))?;
        for (bar, info) in (0..).zip(bars) {
            if let Some(BarInfo::Memory { address, size, .. }) = info {
                Window::map(address, size).ok_or(PciError::Window(bar))?;
            }
        }
        Ok(())
    }

    /// Lets the function answer in memory space and reach memory itself; its interrupt line is cut off,
    /// as its interrupts are messages.
    pub(crate) fn enable(&self) {
        let (_, command) = root().get_status_command(self.address);
        let on = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
        root().set_command(self.address, command | on);
    }

    /// Takes the function's access to memory away: from here on it writes nothing.
    pub(crate) fn cut_off(&self) {
        let (_, command) = root().get_status_command(self.address);
        root().set_command(self.address, command - Command::BUS_MASTER);
    }

    /// Directs entry 0 of the function's MSI-X table to a CPU and turns MSI-X on; all its other entries
    /// stay masked.
    pub(crate) fn enable_msi_x(&self, target: InterruptTarget) -> Result<(), PciError> {
        let capability = root()
            .capabilities(self.address)
            .take(MAX_CAPABILITIES)
            .find(|capability| capability.id == MSI_X)
            .ok_or(PciError::NoMsiX)?;
        let table = ConfigurationPorts.read_word(self.address, capability.offset + 4);
        let entry = self.map((table & 7) as u8, table & !7, ENTRY_BYTES)?;
        entry.write_u32(ENTRY_ADDRESS, MESSAGE_ADDRESS | u32::from(target.apic_id) << 12);
        entry.write_u32(ENTRY_ADDRESS_HIGH, 0);
        // Fixed delivery, edge-triggered: the data is just the vector.
        entry.write_u32(ENTRY_DATA, u32::from(target.vector));
        entry.write_u32(ENTRY_CONTROL, 0);
        let control = u32::from(capability.private_header & !FUNCTION_MASK | MSI_X_ENABLE);
        // The lower half of this word (identifier and next pointer) is read-only.
        ConfigurationPorts.write_word(self.address, capability.offset, control << 16);
        Ok(())
    }
}

/// The capability list has at most this many entries; a longer one is a circle.
pub(crate) const MAX_CAPABILITIES: usize = 48;
const MSI_X: u8 = 0x11;
/// Bits of MSI-X's control word.
const MSI_X_ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// Writes to this address are interrupt messages; bits 12..20 name the local APIC.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
/// A table entry.
const ENTRY_BYTES: u32 = 16;
const ENTRY_ADDRESS: u64 = 0;
const ENTRY_ADDRESS_HIGH: u64 = 4;
const ENTRY_DATA: u64 = 8;
const ENTRY_CONTROL: u64 = 12;
