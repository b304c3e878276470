//! Joins `mm`'s swap to a disk: slot n is the n-th page of the disk that is called `swap`.
//!
//! ```text
//! SwapRead, SwapWrite ─► room at the device? ─────────────────────────► submit
//!                          └ no ─► queue ─► [ swap task: waits for it ] ──┘
//!                                        frames and slots ◄─ complete ◄─ device's task ◄─ interrupt
//! ```
//!
//! Reads and writes have a queue and a task each, so a read does not wait for writes that wait for room; the device has
//! many of both at the same time. A request that fails is done again slot by slot, so each slot has an error of its own.
//!
//! The queue of writes has room for all there can be, and the rest of what they take comes from the heap's reserve: pages
//! are written out with the heap exhausted.
#![allow(unsafe_code, reason = "hands frames to a device")]

use alloc::{
    boxed::Box,
    collections::VecDeque,
    sync::{Arc, Weak},
};

use drivers::{
    block::{BlockClient, BlockError, BlockRequest, Operation, SECTOR_BYTES, Segment, Segments},
    virtio_blk::{Slot, VirtioBlk},
};
use executor::{WaitQueue, WaitReason, lock::SpinLock};
use mm::{OutOfMemory, PAGE_SIZE, PageError, PhysAddr, SwapRead, SwapStore, SwapWrite};

use crate::{
    heap::{self, Draw},
    memory,
};

/// The name of the disk, which the runner gives it.
pub(crate) const NAME: &str = "swap";

/// Writes that `mm` has under way at most.
const WRITES: usize = 16;
/// Pages of one request at most: a bit each says what has failed.
const MOST_PAGES: usize = 32;
const PAGE_SECTORS: u64 = PAGE_SIZE as u64 / SECTOR_BYTES;

/// A disk for swap.
struct SwapDisk {
    this: Weak<Self>,
    device: Arc<VirtioBlk>,
    reads: Queue,
    writes: Queue,
}

struct Queue {
    waiting: SpinLock<VecDeque<Work>>,
    arrived: WaitQueue,
}

impl Queue {
    fn new(room: usize) -> Self {
        let waiting = SpinLock::new("swap queue", VecDeque::with_capacity(room));
        Self { waiting, arrived: WaitQueue::new(WaitReason::Channel) }
    }
}

/// Uses a disk for swap from now on, also for memory that is mapped already. Once.
pub(crate) fn start(device: Arc<VirtioBlk>) {
    if device.read_only() {
        return log::warn!("the disk for swap cannot be written: there is no swap");
    }
    let disk = Arc::new_cyclic(|this| {
        let (reads, writes) = (Queue::new(MOST_PAGES), Queue::new(WRITES));
        SwapDisk { this: this.clone(), device, reads, writes }
    });
    match memory::memory().swap_on(disk.clone()) {
        Ok(()) => {
            drop(executor::Builder::new().name("swap-in").spawn(serve(disk.clone(), |disk| &disk.reads)));
            drop(executor::Builder::new().name("swap-out").spawn(serve(disk, |disk| &disk.writes)));
        }
        Err(OutOfMemory) => log::warn!("there is no memory for swap"),
    }
}

impl SwapStore for SwapDisk {
    fn slots(&self) -> u64 {
        self.device.capacity_sectors() / PAGE_SECTORS
    }

    fn slots_at_once(&self) -> usize {
        MOST_PAGES.min(self.device.max_segments())
    }

    fn read(&self, read: SwapRead) {
        self.begin(Work::new(Request::Read(read)));
    }

    fn write(&self, write: SwapWrite) {
        self.begin(Work::new(Request::Write(write)));
    }
}

enum Request {
    Read(SwapRead),
    Write(SwapWrite),
}

impl Request {
    fn first(&self) -> u64 {
        match self {
            Request::Read(read) => read.first(),
            Request::Write(write) => write.first(),
        }
    }

    fn slots(&self) -> usize {
        match self {
            Request::Read(read) => read.len(),
            Request::Write(write) => write.len(),
        }
    }

    fn address(&self, number: usize) -> PhysAddr {
        match self {
            Request::Read(read) => read.frame_address(number),
            Request::Write(write) => write.frame_address(number),
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Request::Read(_) => Operation::Read,
            Request::Write(_) => Operation::Write,
        }
    }
}

/// A request, and what is done of it.
struct Work {
    request: Request,
    /// The slot that is done by itself now, after all together have failed.
    alone: Option<usize>,
    /// A bit for each slot that has failed by itself.
    failed: u32,
}

impl Work {
    fn new(request: Request) -> Self {
        Self { request, alone: None, failed: 0 }
    }

    /// The slots that are done now: the first, and how many.
    fn now(&self) -> (usize, usize) {
        self.alone.map_or((0, self.request.slots()), |number| (number, 1))
    }

    fn fail(self, error: PageError) {
        self.end(error, u32::MAX);
    }

    /// Ends the request: the slots with these bits have failed.
    fn end(self, error: PageError, failed: u32) {
        let result = |number: usize| if failed >> number & 1 == 0 { Ok(()) } else { Err(error) };
        match self.request {
            Request::Read(read) => read.complete(result),
            Request::Write(write) => write.complete(result),
        }
    }

    /// Where the device reads or writes now.
    fn segments(&self) -> Result<Segments, OutOfMemory> {
        let (first, slots) = self.now();
        let mut segments = Segments::new();
        segments.try_reserve(slots).map_err(|_| OutOfMemory)?;
        for number in first..first + slots {
            // SAFETY: the request owns its frames until it is completed, which the client does when the device is done.
            // Of a page that is written, the bytes may change, and are nobody's then.
            segments.push(unsafe { Segment::new(self.request.address(number).as_u64(), PAGE_SIZE as u32) });
        }
        Ok(segments)
    }

    /// What the device was asked for last has ended. Answers the work if there is more of it.
    fn step(mut self, result: Result<(), BlockError>) -> Option<Self> {
        let error = match result {
            Ok(()) if self.alone.is_none() => {
                self.end(PageError::Io, 0);
                return None;
            }
            Err(BlockError::DeviceGone) => {
                self.fail(PageError::DeviceGone);
                return None;
            }
            Ok(()) => false,
            Err(_) => true,
        };
        let next = match self.alone {
            None if self.request.slots() == 1 => {
                self.fail(PageError::Io);
                return None;
            }
            None => 0,
            Some(number) => {
                self.failed |= u32::from(error) << number;
                number + 1
            }
        };
        if next < self.request.slots() {
            self.alone = Some(next);
            return Some(self);
        }
        let failed = self.failed;
        self.end(PageError::Io, failed);
        None
    }
}

impl SwapDisk {
    /// Hands a request to the device at once where it has room, else to the task that waits for that.
    fn begin(&self, work: Work) {
        let slot = self.device.try_reserve_for(work.now().1);
        match (slot, self.this.upgrade()) {
            (Some(slot), Some(this)) => submit(&this, slot, work),
            _ => self.enter(work),
        }
    }

    fn enter(&self, work: Work) {
        let queue = match work.request {
            Request::Read(_) => &self.reads,
            Request::Write(_) => &self.writes,
        };
        let refused = {
            let mut waiting = queue.waiting.lock();
            match waiting.try_reserve(1) {
                Ok(()) => {
                    waiting.push_back(work);
                    None
                }
                Err(_) => Some(work),
            }
        };
        match refused {
            Some(work) => work.fail(PageError::OutOfMemory),
            None => drop(queue.arrived.wake_one()),
        }
    }
}

/// Hands requests to the device, first come, first served.
async fn serve(disk: Arc<SwapDisk>, queue: fn(&SwapDisk) -> &Queue) {
    loop {
        let queue = queue(&disk);
        let work = queue.arrived.wait_for(|| queue.waiting.lock().pop_front()).await;
        match disk.device.reserve_for(work.now().1).await {
            Ok(slot) => submit(&disk, slot, work),
            Err(_) => work.fail(PageError::Io),
        }
    }
}

fn submit(disk: &Arc<SwapDisk>, slot: Slot, work: Work) {
    let op = work.request.operation();
    heap::drawing(Draw::of(op), || match work.segments() {
        Ok(segments) => {
            let sector = (work.request.first() + work.now().0 as u64) * PAGE_SECTORS;
            let client = Box::new(Submitted { disk: disk.clone(), work });
            slot.submit(BlockRequest { op, sector, segments, client });
        }
        Err(OutOfMemory) => work.fail(PageError::OutOfMemory),
    });
}

/// A request that the device works on.
struct Submitted {
    disk: Arc<SwapDisk>,
    work: Work,
}

impl BlockClient for Submitted {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        let Self { disk, work } = *self;
        if let Some(work) = work.step(result) {
            disk.enter(work);
        }
    }
}
