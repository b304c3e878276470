//! From a PCI function to a device that is ready to take requests.
//!
//! The order is the specification's: reset, acknowledge, features, interrupt vectors, queue, ready. Every
//! number that the device gives is checked here, so that nothing later depends on it being sane.

use core::fmt;

use bitflags::bitflags;
use virtio_drivers::transport::pci::bus::ConfigurationAccess;
use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG, VirtioPciError, virtio_device_type,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::ring::{Doorbell, MAX_SEGMENTS, QUEUE, Ring};
use crate::block::Geometry;
use crate::dma::Machine;
use crate::mmio::Window;
use crate::pci::{self, ConfigurationPorts, Function, InterruptTarget, MAX_CAPABILITIES, PciError};

bitflags! {
    /// What is negotiated with the device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Features: u64 {
        /// It says how many segments a request may have.
        const SEGMENTS_MAX = 1 << 2;
        /// It is read-only.
        const READ_ONLY = 1 << 5;
        /// It has a cache and can be told to write it out.
        const FLUSH = 1 << 9;
        /// It speaks virtio 1.
        const VERSION_1 = 1 << 32;
    }
}

/// Offsets in the device's configuration.
const CONFIG_CAPACITY: usize = 0;
const CONFIG_SEGMENTS_MAX: usize = 12;

/// Offsets in virtio's common configuration structure, and its size.
const MSI_X_CONFIG: u64 = 16;
const QUEUE_SELECT: u64 = 22;
const QUEUE_MSI_X_VECTOR: u64 = 26;
const QUEUE_NOTIFY_OFFSET: u64 = 30;
const COMMON_BYTES: u32 = 56;
/// The entry of the MSI-X table that both the queue and changes of configuration use.
const MSI_X_ENTRY: u16 = 0;

/// Why a function cannot be used as a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// It is no virtio block device.
    NotBlock,
    /// Its PCI side cannot be used.
    Pci(PciError),
    /// Its virtio structures cannot be used.
    Transport(VirtioPciError),
    /// It has none of these structures, or one that does not hold what it must.
    BadCapability,
    /// It does not speak virtio 1, or refused what it had offered.
    Features,
    /// Its queue is smaller than 256 descriptors, or there is no memory for it.
    Queue(virtio_drivers::Error),
    /// It refused the interrupt vector.
    Vector,
    /// There is no memory for its headers.
    NoMemory,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBlock => formatter.write_str("it is no virtio block device"),
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

/// A device that is ready.
pub(super) struct Probed {
    pub(super) ring: Ring,
    pub(super) geometry: Geometry,
    pub(super) max_segments: usize,
}

/// See [`VirtioBlk::probe`](super::VirtioBlk::probe).
pub(super) fn probe(function: &Function, interrupt: InterruptTarget) -> Result<Probed, ProbeError> {
    if virtio_device_type(&function.info) != Some(DeviceType::Block) {
        return Err(ProbeError::NotBlock);
    }
    function.enable();
    function.map_bars()?;
    let transport = PciTransport::new::<Machine, _>(&mut pci::root(), function.address);
    let mut transport = transport.map_err(ProbeError::Transport)?;

    let features = transport.begin_init(Features::all());
    let accepted = transport.get_status().contains(DeviceStatus::FEATURES_OK);
    if !accepted || !features.contains(Features::VERSION_1) {
        return Err(ProbeError::Features);
    }
    let sectors = transport.read_consistent(|| {
        let low = transport.read_config_space::<u32>(CONFIG_CAPACITY)?;
        let high = transport.read_config_space::<u32>(CONFIG_CAPACITY + 4)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    });
    let sectors = sectors.map_err(ProbeError::Queue)?;
    let mut max_segments = MAX_SEGMENTS;
    if features.contains(Features::SEGMENTS_MAX) {
        let most = transport.read_config_space::<u32>(CONFIG_SEGMENTS_MAX).map_err(ProbeError::Queue)?;
        max_segments = max_segments.min(most as usize).max(1);
    }

    function.enable_msi_x(interrupt)?;
    let (common, _) = structure(function, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_BYTES)?;
    direct_interrupts(&common)?;
    let doorbell = doorbell(function, &common)?;

    let ring = Ring::start(transport, function.clone(), doorbell)?;
    let geometry = Geometry {
        sectors,
        read_only: features.contains(Features::READ_ONLY),
        can_flush: features.contains(Features::FLUSH),
    };
    Ok(Probed { ring, geometry, max_segments })
}

/// Sends the queue's interrupts, and those for a device in trouble, to the one table entry. Before the
/// queue is enabled, as the specification has it.
fn direct_interrupts(common: &Window) -> Result<(), ProbeError> {
    common.write_u16(MSI_X_CONFIG, MSI_X_ENTRY);
    common.write_u16(QUEUE_SELECT, QUEUE);
    common.write_u16(QUEUE_MSI_X_VECTOR, MSI_X_ENTRY);
    // A device that has no resources for the vector says so by reading back another one.
    let taken = common.read_u16(QUEUE_MSI_X_VECTOR) == MSI_X_ENTRY;
    if taken { Ok(()) } else { Err(ProbeError::Vector) }
}

/// The register that tells the device about new requests, found once and not at each notification.
fn doorbell(function: &Function, common: &Window) -> Result<Doorbell, ProbeError> {
    let (region, place) = structure(function, VIRTIO_PCI_CAP_NOTIFY_CFG, 2)?;
    let multiplier = ConfigurationPorts.read_word(function.address, place.capability + 16);
    common.write_u16(QUEUE_SELECT, QUEUE);
    let offset = u64::from(common.read_u16(QUEUE_NOTIFY_OFFSET)) * u64::from(multiplier);
    let inside = offset + 2 <= u64::from(place.bytes) && offset % 2 == 0;
    if inside { Ok(Doorbell::new(region, offset)) } else { Err(ProbeError::BadCapability) }
}

/// Where a virtio structure stands.
struct Place {
    /// Offset of its capability in configuration space.
    capability: u8,
    bytes: u32,
}

/// Finds and maps one of the device's virtio structures.
fn structure(function: &Function, kind: u8, least_bytes: u32) -> Result<(Window, Place), ProbeError> {
    const VENDOR_SPECIFIC: u8 = 9;
    let root = pci::root();
    let mut capabilities = root.capabilities(function.address).take(MAX_CAPABILITIES);
    let capability = capabilities
        .find(|found| found.id == VENDOR_SPECIFIC && (found.private_header >> 8) as u8 == kind)
        // The longest of these structures is 20 bytes.
        .filter(|found| found.offset <= u8::MAX - 20)
        .ok_or(ProbeError::BadCapability)?
        .offset;
    let read = |offset| ConfigurationPorts.read_word(function.address, capability + offset);
    let (bar, offset, bytes) = (read(4) as u8, read(8), read(12));
    if bytes < least_bytes {
        return Err(ProbeError::BadCapability);
    }
    Ok((function.map(bar, offset, bytes)?, Place { capability, bytes }))
}
