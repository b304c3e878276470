//! Objects: pages by index, and a pager behind them.

use alloc::sync::Arc;
use core::ops::Range;

use crate::{Memory, PageError, PageIndex, Pager};

/// Pages by index, and a pager behind them.
pub struct VmObject {}

impl VmObject {
    /// An object of `pages` pages that `pager` loads.
    pub fn new(memory: &'static Memory, pager: Arc<dyn Pager>, pages: u64) -> Arc<Self> {
        let _ = (memory, pager, pages);
        todo!()
    }

    /// An object of `pages` pages that are zero until they are written.
    pub fn zero(memory: &'static Memory, pages: u64) -> Arc<Self> {
        let _ = (memory, pages);
        todo!()
    }

    /// How many pages the object has.
    pub fn pages(&self) -> u64 {
        todo!()
    }

    /// Drops pages with their contents.
    pub fn release(&self, pages: Range<PageIndex>) {
        let _ = pages;
        todo!()
    }

    /// Reads bytes at `offset`, waiting for pages that are not there.
    pub async fn read(self: &Arc<Self>, offset: u64, to: &mut [u8]) -> Result<(), PageError> {
        let _ = (offset, to);
        todo!()
    }

    /// Writes bytes at `offset`.
    pub async fn write(self: &Arc<Self>, offset: u64, from: &[u8]) -> Result<(), PageError> {
        let _ = (offset, from);
        todo!()
    }
}
