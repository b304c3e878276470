//! What all virtio devices over PCI have in common: from a PCI function to a device that is negotiated with, and back to one
//! that is stopped.
//!
//! The order is the specification's (Virtual I/O Device 1.2, 3.1.1): reset, acknowledge, features, interrupt vectors,
//! queues, ready. Every number that a device gives is checked here, so that nothing later depends on it being sane.
//!
//! [`Filler`] is a whole device of the simplest kind. For one with more to it, see [`crate::virtio_blk`].

use core::fmt;
use core::mem::ManuallyDrop;

use virtio_drivers::transport::pci::bus::ConfigurationAccess;
use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG, VirtioPciError, virtio_device_type,
};
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::dma::Machine;
use crate::mmio::Window;
use crate::pci::{self, ConfigurationPorts, Function, InterruptTarget, MAX_CAPABILITIES, PciError};

mod filler;

pub use filler::{Filler, Gone};
pub use virtio_drivers::transport::DeviceType;

/// Offsets in virtio's common configuration structure, and its size.
const MSI_X_CONFIG: u64 = 16;
const QUEUE_SELECT: u64 = 22;
const QUEUE_MSI_X_VECTOR: u64 = 26;
const QUEUE_NOTIFY_OFFSET: u64 = 30;
const COMMON_BYTES: u32 = 56;
/// The entry of the MSI-X table that both the queue and changes of configuration use.
const MSI_X_ENTRY: u16 = 0;

/// The feature of devices that speak virtio 1.
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Looks at the status of a device that is being reset before it is cut off without its consent.
const RESET_PATIENCE: u32 = 100_000;

/// Why a function cannot be used as the virtio device that it was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// It is no virtio device of this type.
    OtherType,
    /// Its PCI side cannot be used.
    Pci(PciError),
    /// Its virtio structures cannot be used.
    Transport(VirtioPciError),
    /// It has none of these structures, or one that does not hold what it must.
    BadCapability,
    /// It does not speak virtio 1, or refused what it had offered.
    Features,
    /// Its queue is smaller than the driver needs, or there is no memory for it.
    Queue(virtio_drivers::Error),
    /// It refused the interrupt vector.
    Vector,
    /// There is no memory for its headers.
    NoMemory,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherType => formatter.write_str("it is no virtio device of this type"),
            Self::Pci(error) => error.fmt(formatter),
            Self::Transport(error) => error.fmt(formatter),
            Self::BadCapability => formatter.write_str("a virtio structure is missing or too small"),
            Self::Features => formatter.write_str("it does not accept virtio 1"),
            Self::Queue(error) => write!(formatter, "its queue cannot be set up: {error}"),
            Self::Vector => formatter.write_str("it refused its interrupt vector"),
            Self::NoMemory => formatter.write_str("there is no memory for its headers"),
        }
    }
}

impl core::error::Error for ProbeError {}

impl From<PciError> for ProbeError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

/// A device that has been negotiated with. Dropping it stops it.
pub(crate) struct Device {
    /// Not dropped by itself: that would wait for the device's consent without a bound.
    pub(crate) transport: ManuallyDrop<PciTransport>,
    function: Function,
    stopped: bool,
}

impl Device {
    /// Resets a device, and agrees with it on those of `features` that it offers; these are returned. Spins for as long as
    /// the device takes to answer.
    pub(crate) fn negotiate(
        function: &Function,
        kind: DeviceType,
        features: u64,
    ) -> Result<(Self, u64), ProbeError> {
        if virtio_device_type(&function.info) != Some(kind) {
            return Err(ProbeError::OtherType);
        }
        function.enable();
        let transport = function.map_bars().map_err(ProbeError::Pci).and_then(|()| {
            let transport = PciTransport::new::<Machine, _>(&mut pci::root(), function.address);
            transport.map_err(ProbeError::Transport)
        });
        // There is no way to reset a device whose registers cannot be found: the bus keeps it from memory.
        let transport = ManuallyDrop::new(transport.inspect_err(|_| function.cut_off())?);
        let mut device = Self { transport, function: function.clone(), stopped: false };
        let agreed = device.transport.begin_init(Features::from_bits_retain(features | VERSION_1)).bits();
        let accepted = device.transport.get_status().contains(DeviceStatus::FEATURES_OK);
        if !accepted || agreed & VERSION_1 == 0 {
            return Err(ProbeError::Features);
        }
        Ok((device, agreed))
    }

    /// Sends the interrupts of one queue, and those for a device in trouble, to a CPU; finds the register by which the device
    /// is told of new requests in it. Before the queue is enabled, as the specification has it.
    pub(crate) fn direct(&self, queue: u16, interrupt: InterruptTarget) -> Result<Doorbell, ProbeError> {
        self.function.enable_msi_x(interrupt)?;
        let (common, _) = self.structure(VIRTIO_PCI_CAP_COMMON_CFG, COMMON_BYTES)?;
        common.write_u16(MSI_X_CONFIG, MSI_X_ENTRY);
        common.write_u16(QUEUE_SELECT, queue);
        common.write_u16(QUEUE_MSI_X_VECTOR, MSI_X_ENTRY);
        // A device that has no resources for the vector says so by reading back another one.
        if common.read_u16(QUEUE_MSI_X_VECTOR) != MSI_X_ENTRY {
            return Err(ProbeError::Vector);
        }
        let (region, place) = self.structure(VIRTIO_PCI_CAP_NOTIFY_CFG, 2)?;
        let multiplier = ConfigurationPorts.read_word(self.function.address, place.capability + 16);
        let offset = u64::from(common.read_u16(QUEUE_NOTIFY_OFFSET)) * u64::from(multiplier);
        let inside = offset + 2 <= u64::from(place.bytes) && offset % 2 == 0;
        if inside { Ok(Doorbell { region, offset, queue }) } else { Err(ProbeError::BadCapability) }
    }

    /// Finds and maps one of the device's virtio structures.
    fn structure(&self, kind: u8, least_bytes: u32) -> Result<(Window, Place), ProbeError> {
        const VENDOR_SPECIFIC: u8 = 9;
        let (root, address) = (pci::root(), self.function.address);
        let mut capabilities = root.capabilities(address).take(MAX_CAPABILITIES);
        let capability = capabilities
            .find(|found| found.id == VENDOR_SPECIFIC && (found.private_header >> 8) as u8 == kind)
            // The longest of these structures is 20 bytes.
            .filter(|found| found.offset <= u8::MAX - 20)
            .ok_or(ProbeError::BadCapability)?
            .offset;
        let read = |offset| ConfigurationPorts.read_word(address, capability + offset);
        let (bar, offset, bytes) = (read(4) as u8, read(8), read(12));
        if bytes < least_bytes {
            return Err(ProbeError::BadCapability);
        }
        Ok((self.function.map(bar, offset, bytes)?, Place { capability, bytes }))
    }

    /// Whether the device has given up.
    pub(crate) fn needs_reset(&self) -> bool {
        let status = self.transport.get_status();
        let trouble = DeviceStatus::DEVICE_NEEDS_RESET | DeviceStatus::FAILED;
        status.intersects(trouble) || !status.contains(DeviceStatus::DRIVER_OK)
    }

    /// From here on the device reaches no memory.
    pub(crate) fn stop(&mut self) {
        if core::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.transport.set_status(DeviceStatus::empty());
        for _ in 0..RESET_PATIENCE {
            if self.transport.get_status() == DeviceStatus::empty() {
                break;
            }
            core::hint::spin_loop();
        }
        // A device that does not answer is kept from memory by the bus all the same.
        self.function.cut_off();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}

bitflags::bitflags! {
    /// Features as the library takes them: all bits have a meaning for the device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Features: u64 {
        const _ = !0;
    }
}

/// Where a virtio structure stands.
struct Place {
    /// Offset of its capability in configuration space.
    capability: u8,
    bytes: u32,
}

/// The register by which a device is told of new requests in a queue, found once and not at each notification.
pub(crate) struct Doorbell {
    region: Window,
    offset: u64,
    queue: u16,
}

impl Doorbell {
    pub(crate) fn ring(&self) {
        self.region.write_u16(self.offset, self.queue);
    }
}
