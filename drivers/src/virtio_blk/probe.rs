//! From a PCI function to a device that is ready to take requests: what is special about block devices.

use virtio_drivers::transport::{DeviceType, Transport};

use super::ring::{MAX_SEGMENTS, QUEUE, Ring};
use crate::block::Geometry;
use crate::pci::{Function, InterruptTarget};
use crate::virtio::{Device, ProbeError};

/// What is negotiated with the device (Virtual I/O Device 1.2, 5.2.3): it says how many segments a request may have,
const SEGMENTS_MAX: u64 = 1 << 2;
/// is read-only,
const READ_ONLY: u64 = 1 << 5;
/// has a cache and can be told to write it out.
const FLUSH: u64 = 1 << 9;

/// Offsets in the device's configuration.
const CONFIG_CAPACITY: usize = 0;
const CONFIG_SEGMENTS_MAX: usize = 12;

/// A device that is ready.
pub(super) struct Probed {
    pub(super) ring: Ring,
    pub(super) geometry: Geometry,
    pub(super) max_segments: usize,
}

/// See [`VirtioBlk::probe`](super::VirtioBlk::probe).
pub(super) fn probe(function: &Function, interrupt: InterruptTarget) -> Result<Probed, ProbeError> {
    let (device, features) =
        Device::negotiate(function, DeviceType::Block, SEGMENTS_MAX | READ_ONLY | FLUSH)?;
    let transport = &device.transport;
    let sectors = transport.read_consistent(|| {
        let low = transport.read_config_space::<u32>(CONFIG_CAPACITY)?;
        let high = transport.read_config_space::<u32>(CONFIG_CAPACITY + 4)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    });
    let sectors = sectors.map_err(ProbeError::Queue)?;
    let mut max_segments = MAX_SEGMENTS;
    if features & SEGMENTS_MAX != 0 {
        let most = transport.read_config_space::<u32>(CONFIG_SEGMENTS_MAX).map_err(ProbeError::Queue)?;
        max_segments = max_segments.min(most as usize).max(1);
    }
    let doorbell = device.direct(QUEUE, interrupt)?;
    let ring = Ring::start(device, doorbell)?;
    let geometry =
        Geometry { sectors, read_only: features & READ_ONLY != 0, can_flush: features & FLUSH != 0 };
    Ok(Probed { ring, geometry, max_segments })
}
