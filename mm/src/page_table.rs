//! Page tables.

use crate::{ExistingRoot, Memory, OutOfMemory, PhysAddr};

/// Page tables in the hardware's format.
pub struct PageTable {}

impl PageTable {
    /// Takes over the tables in use, and makes all 256 entries of the upper half.
    pub fn new_kernel(memory: &'static Memory, root: ExistingRoot) -> Result<Self, OutOfMemory> {
        let _ = (memory, root);
        todo!()
    }

    /// Fresh tables whose upper half is that of the kernel's tables at `kernel`.
    pub fn new_user(memory: &'static Memory, kernel: PhysAddr) -> Result<Self, OutOfMemory> {
        let _ = (memory, kernel);
        todo!()
    }

    /// The physical address of the level-4 table.
    pub fn root(&self) -> PhysAddr {
        todo!()
    }
}
