//! Registers in memory: a device's window, read and written word by word.
#![allow(unsafe_code, reason = "device registers are reached through raw pointers")]

use core::mem::size_of;
use core::ptr::NonNull;

use crate::dma;

/// A mapped piece of a device's registers.
#[derive(Debug)]
pub(crate) struct Window {
    start: NonNull<u8>,
    bytes: u64,
}

// SAFETY: it is an address of registers, which every CPU may access; who does is up to the driver.
unsafe impl Send for Window {}

impl Window {
    /// Maps registers at a physical address; `None` if the kernel cannot.
    ///
    /// The address comes from a PCI function's base address register and is part of its window, as `pci`
    /// has checked; so what is read and written here is that function's own.
    pub(crate) fn map(phys: u64, bytes: u64) -> Option<Self> {
        Some(Self { start: dma::map_device(phys, bytes)?, bytes })
    }

    fn at<T>(&self, offset: u64) -> *mut T {
        assert!(offset + size_of::<T>() as u64 <= self.bytes, "a register inside the window");
        let pointer = self.start.as_ptr().wrapping_add(offset as usize).cast::<T>();
        assert!(pointer.is_aligned(), "an aligned register");
        pointer
    }

    pub(crate) fn read_u16(&self, offset: u64) -> u16 {
        // SAFETY: `at` has checked that the register lies in the window, which is mapped for good.
        unsafe { self.at::<u16>(offset).read_volatile() }
    }

    pub(crate) fn write_u16(&self, offset: u64, value: u16) {
        // SAFETY: as above; what the register makes the device do is the driver's concern.
        unsafe { self.at::<u16>(offset).write_volatile(value) }
    }

    pub(crate) fn write_u32(&self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }
}
