//! Lets drivers reach memory.
#![allow(unsafe_code, reason = "promises what drivers rely on")]

use drivers::dma::DmaMemory;

/// Tells `drivers` how memory is reached. Once at boot.
pub(crate) fn init(memory: DmaMemory) {
    // SAFETY: all physical memory is mapped at `boot::PHYSICAL_MEMORY` for ever, `alloc` takes frames from
    // the pool, and `map_device` answers only for what is mapped.
    unsafe { drivers::dma::init(memory) };
}
