//! The pool that frames come from.
//!
//! Two marks on the number of free frames: below `low` the reclaimer is woken, and it works until `high`
//! are free. Whoever finds no frame may wait, first come, first served (see `waiting`). When nothing can be freed, the reclaimer names the first in the queue as the victim, who gets
//! [`OutOfMemory`]: so every wait for memory ends.
//!
//! Nothing here may be called from an interrupt handler.

use core::ops::Range;

use executor::WaitReason;
use executor::lock::SpinLock;
use executor::sync::{Notify, Semaphore};

use super::lists::{CleanPage, FrameLists, MAX_ORDER, Record};
use super::quarantine::Waits;
use super::regions::merged;
use super::waiting::Applicants;
use super::{Frame, FrameRun, address_of};
use crate::{PAGE_SIZE, PhysAddr, PhysWindow};

/// All frames of the machine, or a part of them.
pub struct FramePool {
    window: PhysWindow,
    total: usize,
    pub(super) low: usize,
    high: usize,
    pub(super) lists: SpinLock<Guarded>,
    /// A permit for each answer to those who wait; see `waiting`.
    pub(super) answers: Semaphore,
    /// Told when the free frames fall below `low`.
    pub(super) short: Notify,
}

/// What the pool's lock guards.
pub(super) struct Guarded {
    pub(super) lists: FrameLists,
    pub(super) applicants: Applicants,
    pub(super) waits: Waits,
    /// The fewest free frames there ever were.
    least_free: usize,
}

/// Numbers of a pool, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameStats {
    /// Frames that can be allocated at all; the pool's own records are not among them.
    pub total: usize,
    /// Free now.
    pub free: usize,
    /// The fewest that were ever free.
    pub least_free: usize,
    /// Frames that hold clean pages, which can be given back.
    pub clean: usize,
    /// Frames that nobody owns any more but a CPU may still see, so they are not free yet.
    pub quarantined: usize,
    /// Those who wait for a frame now.
    pub waiting: usize,
    /// Below this many free frames, clean pages are given back.
    pub low: usize,
    /// Giving back stops at this many free frames.
    pub high: usize,
}

impl FramePool {
    /// A pool over the usable memory in `regions` (physical byte ranges, in any order, touching or
    /// overlapping as they like). It takes its records from the end of the highest region that holds
    /// them: 24 bytes a frame. Frame 0 is never handed out. Needs no heap.
    ///
    /// # Panics
    /// When no region has room for the records.
    pub fn new(window: PhysWindow, regions: &[Range<u64>]) -> Self {
        let base = merged(regions).map(|frames| frames.start).min().expect("there is usable memory");
        let end = merged(regions).map(|frames| frames.end).max().unwrap_or(base);
        let count = (end - base) as usize;
        let needed = (count * size_of::<Record>()).div_ceil(PAGE_SIZE) as u64;
        let home = merged(regions)
            .filter(|frames| frames.end - frames.start >= needed)
            .last()
            .expect("some region has room for the frame records");
        let own = home.end - needed..home.end;
        let records = window.take_for_good(address_of(own.start), count, Record::HOLE);
        let mut lists = FrameLists::new(records, base);
        for frames in merged(regions) {
            let frames = if frames == home { frames.start..own.start } else { frames };
            lists.add(frames.start, frames.end - frames.start);
        }
        let total = lists.free_frames;
        let low = (total / 64).clamp(4, 1024);
        Self {
            window,
            total,
            low,
            high: low * 2,
            lists: SpinLock::new(
                "frame lists",
                Guarded {
                    lists,
                    applicants: Applicants::default(),
                    waits: Waits::default(),
                    least_free: total,
                },
            ),
            answers: Semaphore::with_reason(0, WaitReason::Memory),
            short: Notify::new(),
        }
    }

    /// A free frame with whatever bytes were in it, or `None` at once.
    pub fn try_alloc(&'static self) -> Option<Frame> {
        self.take_block(0).map(|number| Frame::from_number(self, number))
    }

    /// A free frame full of zeros, or `None` at once.
    pub fn try_alloc_zeroed(&'static self) -> Option<Frame> {
        let mut frame = self.try_alloc()?;
        frame.zero();
        Some(frame)
    }

    /// `frames` frames in a row whose first is at a multiple of `align_frames` frames, or `None` at once.
    /// `align_frames` is a power of two. At most 1 GiB in a row.
    pub fn try_alloc_contiguous(&'static self, frames: usize, align_frames: usize) -> Option<FrameRun> {
        assert!(frames > 0 && align_frames.is_power_of_two());
        let size = frames.checked_next_power_of_two()?.max(align_frames);
        let order = size.trailing_zeros() as usize;
        if order > MAX_ORDER {
            return None;
        }
        let first = self.take_block(order)?;
        if size > frames {
            self.free(first + frames as u64, (size - frames) as u64);
        }
        Some(FrameRun { pool: self, first, frames })
    }

    /// Takes back frames whose run was turned into an address by [`FrameRun::into_address`], all of them or
    /// a part.
    ///
    /// # Safety
    /// The frames are of such a run of this pool and were not taken back before, and no processor or device uses
    /// them any more, except through what is returned.
    #[expect(
        unsafe_code,
        reason = "the run lends out the bytes of frames that only the caller knows to be its"
    )]
    pub unsafe fn take_back(&'static self, address: PhysAddr, frames: usize) -> FrameRun {
        FrameRun { pool: self, first: address.as_u64() / PAGE_SIZE as u64, frames }
    }

    /// The pool's numbers now.
    pub fn stats(&self) -> FrameStats {
        let guarded = self.lists.lock();
        FrameStats {
            total: self.total,
            free: guarded.lists.free_frames,
            least_free: guarded.least_free,
            clean: guarded.lists.clean_pages,
            quarantined: guarded.lists.quarantined,
            waiting: guarded.applicants.all(),
            low: self.low,
            high: self.high,
        }
    }

    pub(crate) fn window(&self) -> PhysWindow {
        self.window
    }

    fn take_block(&self, order: usize) -> Option<u64> {
        let (number, free) = {
            let mut guarded = self.lists.lock();
            (guarded.take(order), guarded.lists.free_frames)
        };
        if free < self.low {
            self.short.notify_one();
        }
        number
    }

    pub(super) fn free(&self, first: u64, frames: u64) {
        let promised = {
            let mut guarded = self.lists.lock();
            guarded.lists.free(first, frames);
            guarded.applicants.promise(frames as usize)
        };
        if promised > 0 {
            self.answers.add_permits(promised);
        }
    }

    /// Notes that a frame holds a clean page that can be given back.
    pub(crate) fn list_clean(&self, clean: CleanPage) {
        let waiting = {
            let mut guarded = self.lists.lock();
            guarded.lists.list_clean(clean);
            guarded.applicants.unanswered > 0
        };
        if waiting {
            self.short.notify_one();
        }
    }

    /// Wakes the reclaimer when somebody waits for a frame.
    pub(crate) fn look_if_waiting(&self) {
        if self.lists.lock().applicants.unanswered > 0 {
            self.short.notify_one();
        }
    }

    /// Notes that it does not any more.
    pub(crate) fn unlist(&self, frame: u64) {
        self.lists.lock().lists.unlist(frame);
    }

    /// The clean page that was looked at longest ago, and how many there are.
    pub(crate) fn oldest_clean(&self) -> Option<CleanPage> {
        self.lists.lock().lists.oldest_clean()
    }

    /// Waits until frames are short.
    pub(crate) async fn wait_until_short(&self) {
        self.short.notified().await;
    }
}

impl Guarded {
    /// Takes a block that is not promised to anyone.
    pub(super) fn take(&mut self, order: usize) -> Option<u64> {
        if self.lists.free_frames < self.applicants.promised + (1 << order) {
            return None;
        }
        let number = self.lists.allocate(order);
        self.least_free = self.least_free.min(self.lists.free_frames);
        number
    }
}
