//! Memory that the machine shares with its host: QEMU's `ivshmem-plain`.
#![allow(unsafe_code, reason = "makes words of a device's memory")]

use core::sync::atomic::AtomicU64;

use crate::pci::{Function, PciError};

/// What the device is known by.
const IDENTITY: (u16, u16) = (0x1af4, 0x1110);
/// The window that shows the memory.
const MEMORY: u8 = 2;

/// The memory of a function, mapped for good: the same words whenever it is asked for; `None` if the function is not
/// such a device. The host may read and write it at any time. At boot.
///
/// # Errors
/// When it cannot be mapped.
pub fn probe(function: &Function) -> Result<Option<&'static [AtomicU64]>, PciError> {
    if (function.info.vendor_id, function.info.device_id) != IDENTITY {
        return Ok(None);
    }
    function.enable();
    let (start, bytes) = function.map_memory(MEMORY)?;
    // SAFETY: the window is mapped for good, and begins a page; it is memory, which only is read and written as atomics,
    // here and by the host.
    Ok(Some(unsafe {
        core::slice::from_raw_parts(start.as_ptr().cast(), bytes as usize / size_of::<AtomicU64>())
    }))
}
