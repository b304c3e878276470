//! What everything in `mm` hangs off: the frames, the hardware, the objects by number, and the counters.

mod counters;

use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use executor::lock::SpinLock;
use executor::sync::Mutex;

use crate::fallible::Counted;
use crate::frame::Moment;
use crate::numbered::{Numbered, NumberedRoom};
use crate::page_index_map::Nodes;
use crate::serving::Circles;
use crate::slab::Slab;
use crate::swap::Swappable;
use crate::transfer::Transfer;
use crate::write_back::WriteBack;
use crate::{FramePool, Hardware, PhysWindow, ReclaimPolicy, SecondChance, Victims, VmObject};

pub(crate) use counters::Counters;
pub use counters::FaultStats;

/// One machine's memory: the root of everything else. There may be many in one program (each test has its
/// own), so nothing in `mm` is global.
pub struct Memory {
    frames: FramePool,
    /// Where page tables and the page of zeros have their frames from, if they do not share the others' pool.
    table_frames: Option<FramePool>,
    hardware: &'static dyn Hardware,
    /// Where the nodes of the objects' indexes are.
    pub(crate) nodes: Nodes,
    /// Where transfers are.
    pub(crate) transfers: Slab<Counted<Transfer>>,
    /// The objects, by the numbers that frame records name them with.
    objects: SpinLock<Numbered<VmObject>>,
    /// Requests that have a frame and will free or fill it: while there are any, memory may yet be freed.
    pub(crate) filling: AtomicUsize,
    /// How often such requests have ended.
    filled: AtomicU64,
    /// What waits for what, among those who make pages.
    pub(crate) circles: Circles,
    pub(crate) counters: Counters,
    pub(crate) write_back: WriteBack,
    /// Held while a CPU forgets everything, to keep its interrupts off.
    pub(crate) forgetting: SpinLock<()>,
    /// Held by who changes a batch of pages in two steps, with a wait for all CPUs between them: so each page that is
    /// between the steps is waited for after its first. Held across that `await`, and nothing else: no frame, no device and
    /// nobody's answer is waited for with it. Reclaim needs it, so its holder is polled until it is done, or dropped, and is
    /// no thread that may fault on its own stack while it is polled.
    pub(crate) two_steps: Mutex<()>,
    /// The frame of zeros that is shown, read-only, wherever private memory was not written yet; 0 before the first
    /// such page.
    zeros: AtomicU64,
    /// The number of the latest mapping: mappings of all spaces meet in the objects' lists.
    mappings: AtomicU64,
    /// Swap, and the private memory that goes there.
    pub(crate) swappable: Swappable,
    /// Whether there is swap: most machines have none, and then a first write costs a look at this.
    pub(crate) has_swap: AtomicBool,
    /// Which pages are given back.
    policy: SpinLock<&'static dyn ReclaimPolicy>,
    /// Who may give way when memory is out.
    victims: SpinLock<Option<&'static dyn Victims>>,
    /// A `ReadAhead`.
    read_ahead: AtomicU8,
    /// A `LargePages`.
    large_pages: AtomicU8,
    /// What events name this memory by; 0: nothing is recorded.
    pub(crate) recorded_as: AtomicU16,
}

/// When pages are read ahead, and resident neighbours shown along, of objects whose pagers take several at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ReadAhead {
    /// While more frames are free than the high mark, so that nothing is given back for it: so it is at first.
    WhilePlenty,
    /// While any frame is free that nobody waits for: for memory in which nobody reclaims by marks.
    WhileFree,
    /// Never. Pages are loaded and stored one by one.
    Never,
}

/// Which mappings of private memory over zeros have pages of 2 MiB, where a block that large is to spare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LargePages {
    /// All that are large enough and were not advised to be touched in no order.
    Always,
    /// Those for which [`Advice::Huge`](crate::Advice::Huge) was given: so it is at first.
    Advised,
    /// None.
    Never,
}

impl Memory {
    /// Memory over the usable `regions` (see [`FramePool::new`]). The caller puts it where it stays for
    /// good; everything else asks for a `&'static Memory`. Needs no heap.
    pub fn new(window: PhysWindow, regions: &[Range<u64>], hardware: &'static dyn Hardware) -> Self {
        Self::over(FramePool::new(window, regions), None, hardware)
    }

    /// Memory over two ranges of usable memory, of which page tables and the page of zeros have one for themselves:
    /// so [`frames`](Self::frames) are for pages, and count nothing else. A fault that needs a table when there is no
    /// frame for one is denied.
    pub fn with_table_frames(
        window: PhysWindow,
        pages: Range<u64>,
        tables: Range<u64>,
        hardware: &'static dyn Hardware,
    ) -> Self {
        let tables = FramePool::new(window, &[tables]);
        Self::over(FramePool::new(window, &[pages]), Some(tables), hardware)
    }

    fn over(frames: FramePool, table_frames: Option<FramePool>, hardware: &'static dyn Hardware) -> Self {
        let write_back = WriteBack::new(frames.stats().total);
        Self {
            frames,
            table_frames,
            hardware,
            nodes: Nodes::new(),
            transfers: Slab::new(),
            objects: SpinLock::new("objects", Numbered::default()),
            filling: AtomicUsize::new(0),
            filled: AtomicU64::new(0),
            circles: Circles::new(),
            counters: Counters::default(),
            write_back,
            forgetting: SpinLock::new("forgetting", ()),
            two_steps: Mutex::new(()),
            zeros: AtomicU64::new(0),
            mappings: AtomicU64::new(0),
            swappable: Swappable::new(),
            has_swap: AtomicBool::new(false),
            policy: SpinLock::new("policy", &SecondChance),
            victims: SpinLock::new("victims", None),
            read_ahead: AtomicU8::new(ReadAhead::WhilePlenty as u8),
            large_pages: AtomicU8::new(LargePages::Advised as u8),
            recorded_as: AtomicU16::new(0),
        }
    }

    /// Says when pages are read ahead from now on. What is under way goes on.
    pub fn set_read_ahead(&self, when: ReadAhead) {
        self.read_ahead.store(when as u8, Ordering::Relaxed);
    }

    /// Says which mappings have large pages from now on. Those that are there stay.
    pub fn set_large_pages(&self, which: LargePages) {
        self.large_pages.store(which as u8, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn large_pages(&self) -> LargePages {
        match self.large_pages.load(Ordering::Relaxed) {
            0 => LargePages::Always,
            1 => LargePages::Advised,
            _ => LargePages::Never,
        }
    }

    /// Says which pages are given back from now on; [`SecondChance`] at first.
    pub fn set_policy(&self, policy: &'static dyn ReclaimPolicy) {
        *self.policy.lock() = policy;
    }

    /// Says who may give way from now on when memory is out; at first nobody: then who has waited longest for a frame
    /// is refused.
    pub fn set_victims(&self, victims: &'static dyn Victims) {
        *self.victims.lock() = Some(victims);
    }

    pub(crate) fn victims(&self) -> Option<&'static dyn Victims> {
        *self.victims.lock()
    }

    /// The policy by which pages are given back.
    pub fn policy(&self) -> &'static dyn ReclaimPolicy {
        *self.policy.lock()
    }

    /// Whether pages are read ahead at all.
    pub(crate) fn reads_ahead(&self) -> bool {
        self.read_ahead.load(Ordering::Relaxed) != ReadAhead::Never as u8
    }

    fn reads_ahead_while_free(&self) -> bool {
        self.read_ahead.load(Ordering::Relaxed) == ReadAhead::WhileFree as u8
    }

    /// Whether there seem to be frames for pages that nobody has asked for.
    pub(crate) fn has_frames_ahead(&'static self) -> bool {
        if self.reads_ahead_while_free() { self.frames.has_unclaimed() } else { self.frames.has_spare() }
    }

    /// A frame for a page that nobody has asked for.
    pub(crate) fn try_alloc_ahead(&'static self) -> Option<crate::Frame> {
        if !self.reads_ahead_while_free() {
            return self.frames.try_alloc_spare();
        }
        if self.frames.has_unclaimed() { self.frames.try_alloc() } else { None }
    }

    /// The frames.
    pub fn frames(&'static self) -> &'static FramePool {
        &self.frames
    }

    /// The frames, for who looks at their lists only.
    pub(crate) fn pool(&self) -> &FramePool {
        &self.frames
    }

    /// The frames that page tables and the page of zeros are made of.
    pub(crate) fn table_frames(&'static self) -> &'static FramePool {
        self.table_frames.as_ref().unwrap_or(&self.frames)
    }

    /// Whether a frame for a table may be waited for like any other.
    pub(crate) fn tables_share_frames(&self) -> bool {
        self.table_frames.is_none()
    }

    /// A wait for all CPUs is over: frees some of what waited. True if there may be more.
    pub(crate) fn end_wait(&self, wait: Moment) -> bool {
        self.table_frames.as_ref().is_some_and(|tables| tables.end_wait(wait)) | self.frames.end_wait(wait)
    }

    /// Whether what this CPU has been told to forget is forgotten by all.
    pub(crate) fn has_one_cpu(&self) -> bool {
        executor::is_only_cpu()
    }

    pub(crate) fn hardware(&self) -> &'static dyn Hardware {
        self.hardware
    }

    /// How often requests that had frames have ended, either way: a number that grows.
    pub(crate) fn fills_ended(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// Requests that had frames have ended. If they were the last, those who wait for memory may have nothing
    /// left to hope for, and the reclaimer looks.
    pub(crate) fn filling_ended(&'static self, requests: usize) {
        if requests > 0 {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        if requests > 0 && self.filling.fetch_sub(requests, Ordering::AcqRel) == requests {
            self.frames().look_if_waiting();
        }
    }

    /// The frame of zeros, which nobody writes; `None` when there is no frame for it yet.
    #[inline]
    pub(crate) fn zero_page(&'static self) -> Option<u64> {
        if let Some(zeros) = self.zero_page_if_any() {
            return Some(zeros);
        }
        let frame = self.table_frames().try_alloc_zeroed()?;
        match self.zeros.compare_exchange(0, frame.number(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(frame.into_number()),
            Err(first) => Some(first),
        }
    }

    /// The frame of zeros, if there is one.
    pub(crate) fn zero_page_if_any(&self) -> Option<u64> {
        Some(self.zeros.load(Ordering::Acquire)).filter(|&number| number != 0)
    }

    /// A number for a new mapping, or a fork.
    pub(crate) fn number_mapping(&self) -> u64 {
        self.mappings.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives a new object its number.
    pub(crate) fn register(&self, room: NumberedRoom<VmObject>, object: &Weak<VmObject>) -> u32 {
        self.objects.lock().insert(room, object)
    }

    pub(crate) fn unregister(&self, number: u32) {
        let object = self.objects.lock().remove(number);
        drop(object);
    }

    /// All objects that live, each when the iterator comes to it, in the order in which they were made.
    pub fn objects(&self) -> impl Iterator<Item = Arc<VmObject>> {
        let mut next = Some(0);
        core::iter::from_fn(move || {
            let (number, object) = self.object_from(next?)?;
            next = number.checked_add(1);
            Some(object)
        })
    }

    /// The first object from this number on that still lives.
    pub(crate) fn object_from(&self, number: u32) -> Option<(u32, Arc<VmObject>)> {
        self.objects.lock().first_from(number)
    }

    /// The object with this number, if it still lives.
    pub(crate) fn object(&self, number: u32) -> Option<Arc<VmObject>> {
        self.objects.lock().get(number)
    }
}
