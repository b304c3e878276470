//! Joins `mm` to a disk: pages of an object are sectors of a block device.
//!
//! ```text
//! fault ─► load ─┐
//!       store ─► queue ─► [ pager task: room at the device, a frame to load into ] ─► submit
//!                                               page state ◄─ complete ◄─ device's task ◄─ interrupt
//! ```
//!
//! A load gets its frame when the device has room for it, so any number of them may wait here for
//! little memory. A page is stored when the device has it; a flush makes that durable.
#![allow(unsafe_code, reason = "hands frames to a device")]

use alloc::{boxed::Box, collections::VecDeque, string::String, sync::Arc};

use drivers::{
    block::{BlockClient, BlockError, BlockRequest, Operation, SECTOR_BYTES, Segment},
    virtio_blk::VirtioBlk,
};
use executor::{WaitQueue, WaitReason, lock::SpinLock};
use mm::{PAGE_SIZE, PageError, PageRequest, Pager, StoreRequest};

use crate::{
    heap, memory,
    trace::{self, Event},
};

/// A range of a block device, as a pager.
pub struct BlockPager {
    name: String,
    device: Arc<VirtioBlk>,
    /// The sector where page 0 begins.
    first_sector: u64,
    /// The sector after the last one.
    end_sector: u64,
    waiting: SpinLock<VecDeque<Request>>,
    arrived: WaitQueue,
}

impl BlockPager {
    /// The sectors from `first_sector` to `end_sector` of `device`, both within its capacity. Starts the
    /// task that serves it.
    pub fn start(name: String, device: Arc<VirtioBlk>, first_sector: u64, end_sector: u64) -> Arc<Self> {
        let pager = Arc::new(Self {
            name,
            device,
            first_sector,
            end_sector,
            waiting: SpinLock::new("block pager", VecDeque::new()),
            arrived: WaitQueue::new(WaitReason::Channel),
        });
        drop(executor::Builder::new().name("block-pager").spawn(serve(pager.clone())));
        pager
    }

    /// How many requests wait for the device to have room.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// First sector and number of sectors of a page; fewer than eight at the end, `None` beyond it.
    fn sectors(&self, page: u64) -> Option<(u64, u64)> {
        let first = self.first_sector + page.checked_mul(PAGE_SIZE as u64 / SECTOR_BYTES)?;
        let count = self.end_sector.checked_sub(first).filter(|&left| left > 0)?;
        Some((first, count.min(PAGE_SIZE as u64 / SECTOR_BYTES)))
    }
}

/// What is wanted of the device.
enum Request {
    Load(PageRequest),
    Store(StoreRequest),
}

impl Request {
    fn index(&self) -> u64 {
        match self {
            Request::Load(load) => load.index().as_u64(),
            Request::Store(store) => store.index().as_u64(),
        }
    }

    fn complete(self, result: Result<(), PageError>) {
        match self {
            Request::Load(load) => load.complete(result),
            Request::Store(store) => store.complete(result),
        }
    }

    /// Where the device reads or writes the page's first `bytes` bytes. A load gets its frame here.
    async fn address(&mut self, bytes: usize) -> Result<u64, PageError> {
        match self {
            Request::Load(load) => {
                let mut frame =
                    memory::memory().frames().alloc().await.map_err(|_| PageError::OutOfMemory)?;
                frame.as_bytes_mut()[bytes..].fill(0);
                let address = frame.address();
                load.attach(frame);
                Ok(address.as_u64())
            }
            Request::Store(store) => Ok(store.frame_address().as_u64()),
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Request::Load(_) => Operation::Read,
            Request::Store(_) => Operation::Write,
        }
    }
}

impl BlockPager {
    fn enter(&self, request: Request) {
        let refused = {
            let mut waiting = self.waiting.lock();
            match waiting.try_reserve(1) {
                Ok(()) => {
                    waiting.push_back(request);
                    None
                }
                Err(_) => Some(request),
            }
        };
        if let Some(request) = refused {
            return request.complete(Err(PageError::OutOfMemory));
        }
        self.arrived.wake_one();
    }
}

impl Pager for BlockPager {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self, request: PageRequest) {
        self.enter(Request::Load(request));
    }

    fn store(&self, request: StoreRequest) {
        self.enter(Request::Store(request));
    }
}

/// Hands requests to the device, first come, first served.
async fn serve(pager: Arc<BlockPager>) {
    loop {
        let mut request = pager.arrived.wait_for(|| pager.waiting.lock().pop_front()).await;
        let slot = pager.device.reserve().await;
        let Some((sector, sectors)) = pager.sectors(request.index()) else {
            request.complete(Err(PageError::OutOfRange));
            continue;
        };
        let bytes = (sectors * SECTOR_BYTES) as usize;
        let address = match request.address(bytes).await {
            Ok(address) => address,
            Err(error) => {
                request.complete(Err(error));
                continue;
            }
        };
        trace::page(Event::Request, request.index());
        // SAFETY: the frame belongs to the request or to the page that it stores, which keeps it, until the client is
        // told that the device is done.
        let segment = unsafe { Segment::new(address, bytes as u32) };
        let segments = [segment].into_iter().collect();
        let op = request.operation();
        // Others wait for it, perhaps to give memory back.
        heap::with_reserve(|| {
            let client = Box::new(Submitted(request));
            slot.submit(BlockRequest { op, sector, segments, client });
        });
    }
}

/// A request that the device works on.
struct Submitted(Request);

impl BlockClient for Submitted {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        trace::page(Event::Complete, self.0.index());
        self.0.complete(result.map_err(|error| match error {
            BlockError::DeviceGone => PageError::DeviceGone,
            BlockError::OutOfRange => PageError::OutOfRange,
            BlockError::ReadOnly => PageError::ReadOnly,
            _ => PageError::Io,
        }));
    }
}
