//! Joins `mm` to a disk: pages of an object are sectors of a block device.
//!
//! ```text
//! fault ─► load ─► queue ─► [ task: room at the device, a frame to load into ] ─► submit
//!         store ─► queue ─► [ task: room at the device ] ─► submit
//!                                               page state ◄─ complete ◄─ device's task ◄─ interrupt
//! ```
//!
//! Pages that follow each other are one request of the device, with their frames as its scatter list. If that fails,
//! those that somebody wants are asked for again one by one, so each has an error of its own, and none has another's.
//!
//! A load gets its frames when the device has room for it, so any number of them may wait here for
//! little memory: one frame at most, where the first had to be waited for. A page is stored when the device has it. What
//! is stored is durable when the device has acknowledged a flush command that it was given later: flushes that wait for
//! one share it. A device that cannot flush holds nothing back.

mod request;

use alloc::{boxed::Box, collections::VecDeque, string::String, sync::Arc, vec::Vec};

use drivers::{
    block::{BlockClient, BlockError, BlockRequest, Operation, SECTOR_BYTES},
    virtio_blk::VirtioBlk,
};
use executor::{WaitQueue, WaitReason, lock::SpinLock};
use mm::{FlushRequest, OutOfMemory, PAGE_SIZE, PageError, PageRequest, Pager, Requests, StoreRequest};

use self::request::Request;
use crate::{
    heap::{self, Draw},
    trace,
};

/// A range of a block device, as a pager.
pub struct BlockPager {
    /// What records call the device by.
    number: u32,
    name: String,
    device: Arc<VirtioBlk>,
    /// The sector where page 0 begins.
    first_sector: u64,
    /// The sector after the last one.
    end_sector: u64,
    loads: Waiting,
    /// Apart from loads, which may wait for the memory that a store frees.
    stores: Waiting,
    /// Flushes for which no command was made yet.
    flushes: SpinLock<Vec<FlushRequest>>,
    flush_wanted: WaitQueue,
}

/// Requests that wait for the device to have room.
struct Waiting {
    requests: SpinLock<VecDeque<Request>>,
    arrived: WaitQueue,
}

impl Waiting {
    /// With room for some without the heap, so that a page can be written out when that is full.
    fn new() -> Self {
        Self {
            requests: SpinLock::new("block pager", VecDeque::with_capacity(MOST_PAGES)),
            arrived: WaitQueue::new(WaitReason::Channel),
        }
    }
}

/// Pages of one request at most, as segments of a request are.
const MOST_PAGES: usize = 64;
/// Flushes that may wait without the heap.
const FLUSHES: usize = 16;
const PAGE_SECTORS: u64 = PAGE_SIZE as u64 / SECTOR_BYTES;

impl BlockPager {
    /// The sectors from `first_sector` to `end_sector` of `device`, both within its capacity. Starts the three
    /// tasks that serve it: for loads, stores and flushes. They never end, and keep the pager and the device for
    /// good, also when nobody else has them any more: what is with the device is answered in any case, and a
    /// device whose queue has ended answers everything with an error.
    pub fn start(name: String, device: Arc<VirtioBlk>, first_sector: u64, end_sector: u64) -> Arc<Self> {
        let pager = Arc::new(Self {
            number: trace::device(&name),
            name,
            device,
            first_sector,
            end_sector,
            loads: Waiting::new(),
            stores: Waiting::new(),
            flushes: SpinLock::new("flushes", Vec::with_capacity(FLUSHES)),
            flush_wanted: WaitQueue::new(WaitReason::Channel),
        });
        drop(executor::Builder::new().name("block-loads").spawn(serve(pager.clone(), |pager| &pager.loads)));
        drop(
            executor::Builder::new().name("block-stores").spawn(serve(pager.clone(), |pager| &pager.stores)),
        );
        drop(executor::Builder::new().name("block-flush").spawn(serve_flushes(pager.clone())));
        pager
    }

    /// How many requests wait for the device to have room.
    pub fn waiting(&self) -> usize {
        self.loads.requests.lock().len() + self.stores.requests.lock().len()
    }

    /// The sectors of `pages` pages from one on, as far as there are any: the last page may have fewer than eight. `None`
    /// beyond the end.
    fn sectors(&self, page: u64, pages: usize) -> Option<(u64, u64)> {
        let first = self.first_sector.checked_add(page.checked_mul(PAGE_SECTORS)?)?;
        let left = self.end_sector.checked_sub(first).filter(|&left| left > 0)?;
        Some((first, left.min(pages as u64 * PAGE_SECTORS)))
    }
}

impl BlockPager {
    fn enter(&self, request: Request) {
        let to = match request {
            Request::Load(_) => &self.loads,
            Request::Store(_) => &self.stores,
        };
        let refused = {
            let mut waiting = to.requests.lock();
            match waiting.try_reserve(1) {
                Ok(()) => {
                    waiting.push_back(request);
                    None
                }
                Err(_) => Some(request),
            }
        };
        if let Some(request) = refused {
            return request.fail(PageError::OutOfMemory);
        }
        to.arrived.wake_one();
    }

    /// Some page of a request has failed. Those that somebody wants are asked for again, each alone.
    fn try_alone(&self, request: Request, error: PageError) {
        match request {
            Request::Load(loads) if loads.len() > 1 => {
                for load in loads {
                    match Requests::try_from_one(load) {
                        Ok(alone) if !alone.as_slice()[0].is_ahead() => self.enter(Request::Load(alone)),
                        Ok(ahead) => ahead.complete(0, error),
                        Err(load) => load.complete(Err(PageError::OutOfMemory)),
                    }
                }
            }
            Request::Store(stores) if stores.len() > 1 => {
                for store in stores {
                    match Requests::try_from_one(store) {
                        Ok(alone) => self.enter(Request::Store(alone)),
                        Err(store) => store.complete(Err(PageError::OutOfMemory)),
                    }
                }
            }
            alone => alone.fail(error),
        }
    }
}

impl Pager for BlockPager {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self, request: PageRequest) {
        match Requests::try_from_one(request) {
            Ok(one) => self.load_range(one),
            Err(request) => request.complete(Err(PageError::OutOfMemory)),
        }
    }

    fn load_range(&self, requests: Requests<PageRequest>) {
        self.enter(Request::Load(requests));
    }

    fn pages_at_once(&self) -> usize {
        MOST_PAGES.min(self.device.max_segments())
    }

    fn store(&self, request: StoreRequest) {
        match Requests::try_from_one(request) {
            Ok(one) => self.store_range(one),
            Err(request) => request.complete(Err(PageError::OutOfMemory)),
        }
    }

    fn store_range(&self, requests: Requests<StoreRequest>) {
        self.enter(Request::Store(requests));
    }

    fn flush(&self, request: FlushRequest) {
        if !self.device.can_flush() {
            return request.complete(Ok(()));
        }
        let refused = {
            let mut flushes = self.flushes.lock();
            match flushes.try_reserve(1) {
                Ok(()) => {
                    flushes.push(request);
                    None
                }
                Err(_) => Some(request),
            }
        };
        if let Some(request) = refused {
            return request.complete(Err(PageError::OutOfMemory));
        }
        self.flush_wanted.wake_one();
    }
}

/// Hands flush commands to the device, one at a time: those who ask during one share the next.
async fn serve_flushes(pager: Arc<BlockPager>) {
    // Two lists that change places: so asking again needs no memory that was not there before.
    let mut flushes = Vec::with_capacity(FLUSHES);
    loop {
        pager.flush_wanted.wait_for(|| (!pager.flushes.lock().is_empty()).then_some(())).await;
        let slot = pager.device.reserve().await;
        core::mem::swap(&mut flushes, &mut *pager.flushes.lock());
        // What is written out with a full heap is to be flushed with one, too.
        let result = heap::with_reserve(|| slot.flush()).await.map_err(error_of);
        flushes.drain(..).for_each(|flush: FlushRequest| flush.complete(result));
    }
}

/// Hands requests to the device, first come, first served.
async fn serve(pager: Arc<BlockPager>, of: fn(&BlockPager) -> &Waiting) {
    let waiting = of(&pager);
    loop {
        let request = waiting.arrived.wait_for(|| waiting.requests.lock().pop_front()).await;
        serve_one(&pager, request).await;
    }
}

async fn serve_one(pager: &Arc<BlockPager>, mut request: Request) {
    match request.split_off(pager.pages_at_once()) {
        Ok(Some(rest)) => pager.enter(rest),
        Ok(None) => {}
        Err(OutOfMemory) => return request.fail(PageError::OutOfMemory),
    }
    // Who waits for a frame has no room at the device: it may be a store that frees one.
    let slot = loop {
        let Ok(slot) = pager.device.reserve_for(request.pages()).await else {
            return request.fail(PageError::Io);
        };
        if request.take_first_frame() {
            break slot;
        }
        drop(slot);
        if request.wait_for_first_frame().await.is_err() {
            return request.fail(PageError::OutOfMemory);
        }
    };
    let Some((sector, sectors)) = pager.sectors(request.first(), request.pages()) else {
        return request.fail(PageError::OutOfRange);
    };
    // What lies beyond the end is nothing that the device has.
    let inside = (sectors as usize).div_ceil(PAGE_SECTORS as usize);
    match request.split_off(inside) {
        Ok(Some(beyond)) => beyond.fail(PageError::OutOfRange),
        Ok(None) => {}
        Err(OutOfMemory) => return request.fail(PageError::OutOfMemory),
    }
    match request.take_frames() {
        Ok(Some(rest)) => pager.enter(rest),
        Ok(None) => {}
        Err(OutOfMemory) => return request.fail(PageError::OutOfMemory),
    }
    let bytes = (sectors * SECTOR_BYTES) as usize;
    let bytes = bytes.min(request.pages() * PAGE_SIZE);
    let op = request.operation();
    trace::request(pager.number, op == Operation::Write, request.first(), request.pages() as u64);
    heap::drawing(Draw::of(op), || match request.segments(bytes) {
        Ok(segments) => {
            let client = Box::new(Submitted { pager: pager.clone(), request });
            slot.submit(BlockRequest { op, sector, segments, client });
        }
        Err(OutOfMemory) => {
            trace::complete(pager.number, true, request.first());
            request.fail(PageError::OutOfMemory);
        }
    });
}

/// A request that the device works on.
struct Submitted {
    pager: Arc<BlockPager>,
    request: Request,
}

impl BlockClient for Submitted {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        trace::complete(self.pager.number, result.is_err(), self.request.first());
        let Self { pager, request } = *self;
        match result.map_err(error_of) {
            Ok(()) => request.complete(usize::MAX, PageError::Io),
            Err(PageError::Io) => pager.try_alone(request, PageError::Io),
            Err(error) => request.fail(error),
        }
    }
}

fn error_of(error: BlockError) -> PageError {
    match error {
        BlockError::DeviceGone => PageError::DeviceGone,
        BlockError::OutOfRange => PageError::OutOfRange,
        BlockError::ReadOnly => PageError::ReadOnly,
        _ => PageError::Io,
    }
}
