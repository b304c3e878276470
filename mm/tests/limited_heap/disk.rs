//! Disks whose memory is not that of the heap that is full.

use std::sync::Arc;

use mm::{
    FlushRequest, PageRequest, Pager, StoreRequest, SwapRead, SwapStore, SwapWrite, TestPager, TestStore,
};

use super::exempt;

/// A disk that has a heap of its own.
pub struct Disk<T>(pub Arc<T>);

impl Pager for Disk<TestPager> {
    fn name(&self) -> &str {
        "disk"
    }

    fn load(&self, request: PageRequest) {
        exempt(|| self.0.load(request));
    }

    fn store(&self, request: StoreRequest) {
        exempt(|| self.0.store(request));
    }

    fn flush(&self, request: FlushRequest) {
        exempt(|| self.0.flush(request));
    }
}

impl SwapStore for Disk<TestStore> {
    fn slots(&self) -> u64 {
        self.0.slots()
    }

    fn slots_at_once(&self) -> usize {
        self.0.slots_at_once()
    }

    fn read(&self, read: SwapRead) {
        exempt(|| self.0.read(read));
    }

    fn write(&self, write: SwapWrite) {
        exempt(|| self.0.write(write));
    }
}
