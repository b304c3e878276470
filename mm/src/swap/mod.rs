//! Swap: a disk for pages that no pager has. `private/swap` has the states of such a page, and what they meet.
//!
//! ```text
//! list of anonymous pages ─► taken out of page tables ─► all CPUs waited for ─► written in a cluster ─► frame freed
//!          (out)               (private/swap)               (shootdown)          (SwapWrite, store)
//! touch ─► a frame, a load (private/swap) ─► read with its neighbours (SwapRead, store) ─► listed again, its slot kept
//! ```
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | write of a frame, touch of its page | the page is shown again at once; what the write leaves counts if nobody has written to the page until it ends |
//! | write of a frame, end of its page | the write owns frame and slot then, and frees them (`kept`) |
//! | read of a slot, end of its page | the read owns the slot too, and gives it back (`slots`) |
//! | read, read of one slot | the second finds the first one's transfer, by the slot: entries move between versions, slots do not change |
//! | start of swap, memory that was there before | the first who swaps out lists its pages, some at a time; see `out` |
//! | CPUs that are busy, a look at all pages | it takes several turns of the reclaimer, which believes that nothing can leave when it is over |
//! | full swap | only pages that have slots leave; where all of them are in use, they give their slots up for others; if there are none, the pages stay, and count as used; reclaim goes on to victims |
//! | full heap | all that a swap-out takes was allocated when swap began |
//!
//! The locks here are taken within those of objects, and nothing is taken within them.

mod kept;
mod out;
mod read;
mod slots;
mod test_store;
mod write;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use executor::lock::SpinLock;
use executor::sync::Mutex;
use executor::{WaitQueue, WaitReason};

use crate::fallible::{Shared, try_box};
use crate::numbered::{Numbered, NumberedRoom};
use crate::ordered_map::{OrderedMap, Room};
use crate::page_state::PageEntry;
use crate::private::PrivateObject;
use crate::transfer::Transfer;
use crate::{Memory, OutOfMemory};

use kept::{Kept, Left};
pub use out::swap_out;
pub(crate) use out::{SwapWrites, swap_out_some};
pub use read::SwapRead;
pub(crate) use read::{ReadPage, Reading};
use slots::Slots;
pub use test_store::{SwapTransfer, TestStore};
use write::Cluster;
pub use write::SwapWrite;

/// Writes that are under way at the same time.
const WRITES: usize = 16;
/// Pages that are being read when no others are read because of advice.
const READS: usize = 256;
/// Reads whose notes are kept for others when they have ended.
const KEPT_ROOMS: usize = 64;

/// Where pages without a pager are written to: a disk, cut into slots of a page each.
///
/// A store is called by tasks, with no lock held. It never waits: it keeps the request and completes it later, from
/// wherever it likes except an interrupt handler. A request that is dropped has failed.
pub trait SwapStore: Send + Sync {
    /// How many slots there are. The first is never used.
    fn slots(&self) -> u64;

    /// The most slots of one request.
    fn slots_at_once(&self) -> usize;

    /// Starts to read slots that follow each other into frames.
    fn read(&self, read: SwapRead);

    /// Starts to write frames to slots that follow each other. It must not need the heap: what it takes is there from
    /// the start, because memory may be given back by this alone.
    fn write(&self, write: SwapWrite);
}

/// A memory's swap: the slots of one store, and what is under way.
pub(crate) struct SwapArea {
    memory: &'static Memory,
    store: Arc<dyn SwapStore>,
    slots: SpinLock<Slots>,
    kept: Kept,
    reads: SpinLock<Reads>,
    /// Memory for writes that are not under way.
    #[expect(clippy::vec_box, reason = "a write takes its cluster with it, by its box")]
    clusters: SpinLock<Vec<Box<Cluster>>>,
    /// Pages that are being written.
    writing: AtomicUsize,
    /// Frames that swap-outs have freed so far.
    freed: AtomicUsize,
    /// Told when a write has ended.
    ends: WaitQueue,
    /// How far the private memory has got that was there before swap was.
    before: Mutex<Before>,
    /// What was there before has smaller numbers than this.
    end_of_before: AtomicU32,
    /// All of it is listed.
    has_listed: AtomicBool,
    counters: Counters,
}

/// Private memory that was there before swap was: which one, and which of its pages, is to be listed next.
#[derive(Default)]
struct Before {
    object: u32,
    page: u64,
}

/// The reads under way.
struct Reads {
    /// What those wait for who want the pages, by their slots.
    transfers: OrderedMap<u64, Shared<Transfer>>,
    /// Memory to note others, of reads that have ended: at most as many as there is room for.
    rooms: Vec<ReadRoom>,
}

impl Reads {
    fn try_new() -> Result<Self, OutOfMemory> {
        let mut rooms = Vec::new();
        rooms.try_reserve_exact(KEPT_ROOMS).map_err(|_| OutOfMemory)?;
        Ok(Self { transfers: OrderedMap::default(), rooms })
    }

    /// A read is over. What is not kept of it is to be dropped after the lock.
    fn end(&mut self, slot: u64) -> Option<(Shared<Transfer>, Option<ReadRoom>)> {
        let (load, room) = self.transfers.take(&slot)?;
        if self.rooms.len() == self.rooms.capacity() {
            return Some((load, Some(room)));
        }
        self.rooms.push(room);
        Some((load, None))
    }
}

#[derive(Default)]
struct Counters {
    pages_in: AtomicU64,
    pages_ahead: AtomicU64,
    pages_out: AtomicU64,
    clean_out: AtomicU64,
    zeros_out: AtomicU64,
    failed_in: AtomicU64,
    failed_out: AtomicU64,
}

/// Numbers of swap. Counts of pages are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapStats {
    /// Slots that nobody has.
    pub free_slots: usize,
    /// Slots that somebody has.
    pub used_slots: usize,
    /// Pages read.
    pub pages_in: u64,
    /// Of these, pages that nobody had asked for.
    pub pages_ahead: u64,
    /// Pages written.
    pub pages_out: u64,
    /// Pages that left without being written, because their slot had them still.
    pub clean_out: u64,
    /// Pages that left without a slot, because they were zeros.
    pub zeros_out: u64,
    /// Pages that could not be read.
    pub failed_in: u64,
    /// Pages that could not be written, and stayed.
    pub failed_out: u64,
    /// Pages that are being written now.
    pub writing: usize,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Memory to note one load.
type ReadRoom = Room<u64, Shared<Transfer>>;

impl SwapArea {
    fn try_new(memory: &'static Memory, store: Arc<dyn SwapStore>) -> Result<Self, OutOfMemory> {
        let slots = store.slots().min(kept::MOST_SLOTS) as usize;
        let mut clusters = Vec::new();
        clusters.try_reserve_exact(WRITES).map_err(|_| OutOfMemory)?;
        for _ in 0..WRITES {
            clusters.push(try_box(Cluster::default())?);
        }
        Ok(Self {
            memory,
            store,
            slots: SpinLock::new("swap slots", Slots::try_new(slots)?),
            kept: Kept::try_new(memory.frames().numbers())?,
            reads: SpinLock::new("swap reads", Reads::try_new()?),
            clusters: SpinLock::new("swap clusters", clusters),
            writing: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
            ends: WaitQueue::new(WaitReason::BlockIo),
            before: Mutex::new(Before::default()),
            end_of_before: AtomicU32::new(u32::MAX),
            has_listed: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    fn stats(&self) -> SwapStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (free_slots, used_slots) = self.slots.lock().counts();
        SwapStats {
            free_slots,
            used_slots,
            pages_in: read(&self.counters.pages_in),
            pages_ahead: read(&self.counters.pages_ahead),
            pages_out: read(&self.counters.pages_out),
            clean_out: read(&self.counters.clean_out),
            zeros_out: read(&self.counters.zeros_out),
            failed_in: read(&self.counters.failed_in),
            failed_out: read(&self.counters.failed_out),
            writing: self.writing.load(Ordering::Relaxed),
        }
    }

    fn give_back(&self, slot: u64) {
        self.slots.lock().give_back(slot as usize);
    }

    /// Whether a slot has, or is about to have, what a frame holds.
    pub(crate) fn has_slot(&self, frame: u64) -> bool {
        self.kept.has_slot(frame)
    }

    /// Whether the disk reads a frame.
    pub(crate) fn is_writing(&self, frame: u64) -> bool {
        self.kept.is_writing(frame)
    }

    /// The slot that holds what a frame does becomes the caller's.
    pub(crate) fn take_kept(&self, frame: u64) -> Option<u64> {
        self.kept.take(frame)
    }

    /// The slot that held what a frame does is not its any more: it is written to, or others need the slot.
    pub(crate) fn written(&self, frame: u64) {
        if let Some(slot) = self.kept.take(frame) {
            self.give_back(slot);
        }
    }

    /// A frame is written to a slot from now on.
    pub(crate) fn begin_write(&self, frame: u64, slot: u64) {
        self.kept.begin_write(frame, slot);
    }

    /// The write of a frame has ended, which a page has: the slot is its, or nobody's.
    pub(crate) fn end_write(&self, frame: u64, slot: u64, keeps: bool) {
        self.kept.end_write(frame, keeps.then_some(slot));
        if !keeps {
            self.give_back(slot);
        }
    }

    /// Pages left without being written, so many of them because they had slots.
    pub(crate) fn left_unwritten(&self, pages: usize, with_slots: usize) {
        self.counters.clean_out.fetch_add(with_slots as u64, Ordering::Relaxed);
        self.counters.zeros_out.fetch_add((pages - with_slots) as u64, Ordering::Relaxed);
        self.freed.fetch_add(pages, Ordering::AcqRel);
    }

    /// What those wait for who want the page of a slot that is being read.
    pub(crate) fn read_of(&self, slot: u64) -> Option<Shared<Transfer>> {
        self.reads.lock().transfers.get(&slot).cloned()
    }

    /// Whether so many pages are being read that none is read that nobody has asked for.
    pub(crate) fn reads_much(&self) -> bool {
        self.reads.lock().transfers.len() >= READS
    }

    /// A slot is read from now on, and belongs to the read as well.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full; then nothing has changed.
    pub(crate) fn begin_read(&self, slot: u64, load: Shared<Transfer>) -> Result<(), OutOfMemory> {
        let kept = self.reads.lock().rooms.pop();
        let room = kept.map_or_else(ReadRoom::try_new, Ok)?;
        self.slots.lock().share(slot as usize);
        self.reads.lock().transfers.insert(room, slot, load);
        self.memory.filling.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// That is over. The slot is kept by a frame, or has an owner less.
    pub(crate) fn end_read(&self, slot: u64, kept_by: Option<u64>) {
        let noted = self.reads.lock().end(slot);
        drop(noted);
        if let Some(frame) = kept_by {
            // The entry's slot becomes the frame's.
            self.kept.keep(frame, slot);
        }
        self.give_back(slot);
    }
}

impl SwapArea {
    /// A page that nobody sees any more: its slot goes back. Answers its frame, which a CPU may still remember, if that
    /// is the caller's.
    pub(crate) fn give_up(&self, entry: PageEntry) -> Option<u64> {
        if let Some(slot) = entry.slot() {
            self.give_back(slot);
        }
        let frame = entry.frame()?;
        match self.kept.give_up(frame) {
            Left::Frame => Some(frame),
            Left::Both(slot) => {
                self.give_back(slot);
                Some(frame)
            }
            Left::Nothing => None,
        }
    }
}

/// Private memory by the numbers that frame records name it with, and its swap.
pub(crate) struct Swappable {
    area: SpinLock<Option<&'static SwapArea>>,
    objects: SpinLock<Numbered<PrivateObject>>,
}

/// Memory to note one private object.
pub(crate) type PrivateRoom = NumberedRoom<PrivateObject>;

impl Swappable {
    pub(crate) fn new() -> Self {
        Self {
            area: SpinLock::new("swap area", None),
            objects: SpinLock::new("private objects", Numbered::default()),
        }
    }
}

impl Memory {
    /// From now on private memory and shared memory are swapped to this store where frames are short, also what there was
    /// before. Once, for good.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full; then there is no swap.
    ///
    /// # Panics
    /// When there is swap already.
    pub fn swap_on(&'static self, store: Arc<dyn SwapStore>) -> Result<(), OutOfMemory> {
        let area: &'static SwapArea = Box::leak(try_box(SwapArea::try_new(self, store)?)?);
        let before = self.swappable.area.lock().replace(area);
        assert!(before.is_none(), "there is swap already");
        self.has_swap.store(true, Ordering::Release);
        // Whoever gets a number later finds swap.
        area.end_of_before.store(self.swappable.objects.lock().next(), Ordering::Release);
        Ok(())
    }

    /// The numbers of swap now; `None` where there is none.
    pub fn swap_stats(&self) -> Option<SwapStats> {
        Some(self.swap()?.stats())
    }

    /// A number that grows with each page that comes back, be it read or zeros, and with each that leaves as zeros: of such a
    /// page there may be no entry left, and then nobody notes that it comes back.
    pub(crate) fn went_round(&self) -> u64 {
        let zeros = self.counters.zeros_back.load(Ordering::Relaxed);
        let of = |area: &SwapArea| {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            read(&area.counters.pages_in).wrapping_add(read(&area.counters.zeros_out))
        };
        self.swap().map_or(0, of).wrapping_add(zeros)
    }

    /// The memory's swap, if it has any.
    #[inline]
    pub(crate) fn swap(&self) -> Option<&'static SwapArea> {
        if self.has_swap.load(Ordering::Acquire) { *self.swappable.area.lock() } else { None }
    }

    pub(crate) fn register_private(&self, room: PrivateRoom, object: &Weak<PrivateObject>) -> u32 {
        self.swappable.objects.lock().insert(room, object)
    }

    /// The first private memory from this number on that still lives.
    fn private_object_from(&self, number: u32) -> Option<(u32, Arc<PrivateObject>)> {
        self.swappable.objects.lock().first_from(number)
    }

    pub(crate) fn unregister_private(&self, number: u32) {
        let object = self.swappable.objects.lock().remove(number);
        drop(object);
    }

    /// The private memory with this number, if it still lives.
    pub(crate) fn private_object(&self, number: u32) -> Option<Arc<PrivateObject>> {
        self.swappable.objects.lock().get(number)
    }
}
