//! The pool that frames come from.
//!
//! Marks on the number of free frames (see `marks`): below `low` the reclaimer is woken, and it works until `high`
//! are free. Whoever finds no frame may wait, first come, first served (see `waiting`). When nothing can be freed,
//! the reclaimer names the first in the queue as the victim, who gets [`OutOfMemory`](crate::OutOfMemory): so every
//! wait for memory ends.
//!
//! While there is plenty, single frames come from and go to caches of the CPUs (see `caches`), which empty
//! themselves before anybody is refused or waits.
//!
//! Nothing here may be called from an interrupt handler.

use core::ops::Range;
use core::sync::atomic::AtomicU64;

use executor::WaitReason;
use executor::lock::{SpinLock, Within};
use executor::sync::{Notify, Semaphore};

use super::caches::Caches;
use super::checks::{self, Checks};
use super::lists::{FrameLists, MAX_ORDER, PageList, Record};
use super::marks::{Claim, SharedMarks};
use super::quarantine::Waits;
use super::regions::merged;
use super::waiting::Applicants;
use super::{Frame, FrameRun, Marks, address_of};
use crate::{PAGE_SIZE, PhysAddr, PhysWindow};

/// All frames of the machine, or a part of them.
pub struct FramePool {
    window: PhysWindow,
    total: usize,
    pub(super) marks: SharedMarks,
    pub(super) caches: Caches,
    pub(super) checks: Checks,
    pub(super) lists: SpinLock<Guarded>,
    /// The latest wait for all CPUs that is over; those before it count as over, too. Written under the lists' lock.
    pub(super) waits_over: AtomicU64,
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
    /// Those who look for a block that is not on the lists: caches stay closed for them.
    pub(super) gathering: usize,
    /// The fewest free frames there ever were.
    least_free: usize,
}

/// Numbers of a pool, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameStats {
    /// Frames that can be allocated at all; the pool's own records are not among them.
    pub total: usize,
    /// Free now, wherever they are.
    pub free: usize,
    /// Of these, frames that CPUs keep at hand.
    pub cached: usize,
    /// Of these, frames that are full of zeros already.
    pub zeroed: usize,
    /// The fewest that were ever free. While CPUs keep frames at hand, which they do only above the high mark, it
    /// follows them when they visit the lists and when it is read.
    pub least_free: usize,
    /// Frames that hold clean pages, which can be given back.
    pub clean: usize,
    /// Frames that hold dirty pages of objects with a pager, on their list.
    pub dirty: usize,
    /// Frames that hold pages which no pager has, on their list.
    pub anonymous: usize,
    /// Frames that nobody owns any more but a CPU may still see, so they are not free yet.
    pub quarantined: usize,
    /// Those who wait for a frame now.
    pub waiting: usize,
    /// The last free frames, for those who write pages out.
    pub reserve: usize,
    /// Below this many free frames, pages are given back.
    pub low: usize,
    /// Giving back stops at this many free frames.
    pub high: usize,
}

impl FramePool {
    /// A pool over the usable memory in `regions` (physical byte ranges, in any order, touching or
    /// overlapping as they like). It takes its records from the end of the highest region that holds
    /// them: 24 bytes a frame, and one more in debug builds. Frame 0 is never handed out. Needs no heap.
    ///
    /// # Panics
    /// When no region has room for the records.
    pub fn new(window: PhysWindow, regions: &[Range<u64>]) -> Self {
        let base = merged(regions).map(|frames| frames.start).min().expect("there is usable memory");
        let end = merged(regions).map(|frames| frames.end).max().unwrap_or(base);
        let count = (end - base) as usize;
        let (of_records, of_checks) = Self::records(count);
        let needed = of_records + of_checks;
        let home = merged(regions)
            .filter(|frames| frames.end - frames.start >= needed)
            .last()
            .expect("some region has room for the frame records");
        let own = home.end - needed..home.end;
        let records = window.take_for_good(address_of(own.start), count, || Record::HOLE);
        let checked = if of_checks > 0 { count } else { 0 };
        let states = window.take_for_good(address_of(own.start + of_records), checked, Checks::fresh);
        let mut lists = FrameLists::new(records, base);
        for frames in merged(regions) {
            let frames = if frames == home { frames.start..own.start } else { frames };
            lists.add(frames.start, frames.end - frames.start);
        }
        let total = lists.free_frames;
        let pool = Self {
            window,
            total,
            marks: SharedMarks::new(Marks::of(total).without_reserve()),
            caches: Caches::new(),
            checks: Checks::new(window, base, states),
            lists: SpinLock::new(
                "frame lists",
                Guarded {
                    lists,
                    applicants: Applicants::default(),
                    waits: Waits::default(),
                    gathering: 0,
                    least_free: total,
                },
            ),
            waits_over: AtomicU64::new(0),
            answers: Semaphore::with_reason(0, WaitReason::Memory),
            short: Notify::new(),
        };
        pool.decide(&pool.lists.lock());
        pool
    }

    /// How many frames a region must have, so that a pool over it alone has at least `frames` to hand out.
    pub const fn room_for(frames: usize) -> usize {
        // The records are there also for none.
        let frames = if frames == 0 { 1 } else { frames };
        let (of_records, of_checks) = Self::records(frames);
        // The records of these have records, too.
        let (more_records, more_checks) = Self::records((of_records + of_checks) as usize);
        frames + (of_records + of_checks + more_records + more_checks) as usize
    }

    /// The frames that are taken for the records of `count` frames, and for what debug builds keep beside them.
    const fn records(count: usize) -> (u64, u64) {
        let of_records = (count * size_of::<Record>()).div_ceil(PAGE_SIZE);
        let of_checks = (count * checks::BYTES).div_ceil(PAGE_SIZE);
        (of_records as u64, of_checks as u64)
    }

    /// A free frame with whatever bytes were in it, or `None` at once. For what cannot wait: it does not stop at the
    /// low mark, and overtakes those who wait there, but takes nothing of the reserve.
    #[inline]
    pub fn try_alloc(&'static self) -> Option<Frame> {
        self.take_frame(Claim::Now, None).map(|number| self.hand_out(number))
    }

    /// A free frame for what could as well be left, or `None` at once: only while more than the high mark are free and
    /// nobody waits for one, so that nothing is given back for it.
    pub fn try_alloc_spare(&'static self) -> Option<Frame> {
        if self.has_spare() { self.try_alloc() } else { None }
    }

    /// Whether there seem to be frames to spare now.
    pub(crate) fn has_spare(&self) -> bool {
        self.caches.are_open()
    }

    /// Whether there seems to be a frame that is free and that nobody waits for.
    pub(crate) fn has_unclaimed(&self) -> bool {
        let guarded = self.lists.lock();
        let free = guarded.lists.free_frames + self.caches.count_all();
        guarded.applicants.all() == 0 && free > self.marks.reserve()
    }

    /// A free frame full of zeros, or `None` at once. One of those that were prepared, if there are any: see
    /// [`FramePool::prepare_zeroed`].
    pub fn try_alloc_zeroed(&'static self) -> Option<Frame> {
        if let Some(number) = self.take_zeroed() {
            return Some(self.hand_out(number));
        }
        let mut frame = self.try_alloc()?;
        frame.zero();
        Some(frame)
    }

    /// The spare frame, cleared, if there is one; else as [`try_alloc_zeroed`](Self::try_alloc_zeroed).
    #[inline]
    pub(crate) fn zeroed(&'static self, spare: &mut Option<Frame>) -> Option<Frame> {
        let Some(mut frame) = spare.take() else { return self.try_alloc_zeroed() };
        frame.zero();
        Some(frame)
    }

    /// The same for a page, which waits where there are few.
    #[inline]
    pub(crate) fn zeroed_page(
        &'static self,
        spare: &mut Option<Frame>,
        within: Option<Within<'_>>,
    ) -> Option<Frame> {
        // The stock is there only while there is plenty.
        if spare.is_none()
            && let Some(number) = self.take_zeroed()
        {
            return Some(self.hand_out(number));
        }
        let mut frame = spare.take().or_else(|| self.try_alloc_page(within))?;
        frame.zero();
        Some(frame)
    }

    /// One large page, or `None` at once: 2 MiB at a multiple of that.
    pub fn try_alloc_large(&'static self) -> Option<FrameRun> {
        self.try_alloc_contiguous(FrameRun::LARGE, FrameRun::LARGE)
    }

    /// The same for what could as well be left: only while more than the high mark are free beside it, and what CPUs keep
    /// at hand is not looked through for it.
    pub(crate) fn try_alloc_large_spare(&'static self) -> Option<FrameRun> {
        let first = {
            let mut guarded = self.lists.lock();
            if guarded.lists.free_frames < self.marks.high() + FrameRun::LARGE {
                return None;
            }
            let first = guarded.take(FrameRun::LARGE.trailing_zeros() as usize, Claim::Page, self)?;
            let after = self.after_taking(&guarded);
            drop(guarded);
            self.follow(after);
            first
        };
        self.checks.hands_out(first, FrameRun::LARGE as u64);
        Some(FrameRun::new(self, first, FrameRun::LARGE))
    }

    /// `frames` frames in a row, up to 1 GiB, whose first is at a multiple of `align_frames` frames, or `None` at once:
    /// also for no frames, and where `align_frames` is no power of two.
    pub fn try_alloc_contiguous(&'static self, frames: usize, align_frames: usize) -> Option<FrameRun> {
        if frames == 0 || !align_frames.is_power_of_two() {
            return None;
        }
        let size = frames.checked_next_power_of_two()?.max(align_frames);
        let order = size.trailing_zeros() as usize;
        if order > MAX_ORDER {
            return None;
        }
        let first = self.take_block(order, Claim::Now)?;
        if size > frames {
            self.give_block(first + frames as u64, (size - frames) as u64);
        }
        self.checks.hands_out(first, frames as u64);
        Some(FrameRun::new(self, first, frames))
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
        FrameRun::new(self, address.as_u64() / PAGE_SIZE as u64, frames)
    }

    /// The pool's numbers now.
    pub fn stats(&self) -> FrameStats {
        let mut guarded = self.lists.lock();
        let (cached, zeroed) = (self.caches.count(), self.caches.zeroed.count());
        let free = guarded.lists.free_frames + cached + zeroed;
        guarded.least_free = guarded.least_free.min(free);
        FrameStats {
            total: self.total,
            free,
            cached,
            zeroed,
            least_free: guarded.least_free,
            clean: guarded.lists.listed[PageList::Clean as usize],
            dirty: guarded.lists.dirty(),
            anonymous: guarded.lists.listed[PageList::Anonymous as usize],
            quarantined: guarded.lists.quarantined,
            waiting: guarded.applicants.all(),
            reserve: self.marks.reserve(),
            low: self.marks.low(),
            high: self.marks.high(),
        }
    }

    /// The frames that somebody owns, or that are in quarantine, lowest first. For whoever looks for a leak; in release
    /// builds, which do not know, there are none.
    pub fn owned(&self) -> impl Iterator<Item = PhysAddr> {
        self.checks.owned().map(address_of)
    }

    /// The numbers of the frames that there may be.
    pub(crate) fn numbers(&self) -> Range<u64> {
        self.lists.lock().lists.numbers()
    }

    pub(crate) fn window(&self) -> PhysWindow {
        self.window
    }

    /// A frame that was free becomes the caller's.
    pub(super) fn hand_out(&'static self, number: u64) -> Frame {
        self.checks.hands_out(number, 1);
        Frame::from_number(self, number)
    }

    pub(super) fn free_frame(&self, number: u64) {
        self.checks.takes_back(number, 1);
        self.give_frame(number);
    }

    pub(super) fn free_run(&self, first: u64, frames: u64) {
        self.checks.takes_back(first, frames);
        self.give_block(first, frames);
    }

    /// A block that is not promised to anyone.
    pub(super) fn take_block(&self, order: usize, claim: Claim) -> Option<u64> {
        let (number, after) = {
            let mut guarded = self.lists.lock();
            let number = guarded.take(order, claim, self);
            (number, self.after_taking(&guarded))
        };
        self.follow(after);
        number.or_else(|| self.take_gathered(order, claim))
    }

    /// Puts frames on the lists.
    pub(super) fn give_block(&self, first: u64, frames: u64) {
        let promised = {
            let mut guarded = self.lists.lock();
            guarded.lists.free(first, frames);
            let promised = guarded.promise(frames as usize, &self.marks);
            // More free frames close nothing.
            self.decide(&guarded);
            promised
        };
        self.answer_promised(promised);
    }

    /// Tells those who wait of frames that were promised.
    pub(super) fn answer_promised(&self, promised: usize) {
        if promised > 0 {
            self.answers.add_permits(promised);
        }
    }

    /// Wakes the reclaimer when somebody waits for a frame.
    pub(crate) fn look_if_waiting(&self) {
        if self.lists.lock().applicants.unanswered > 0 {
            self.short.notify_one();
        }
    }

    /// Waits until frames are short.
    pub(crate) async fn wait_until_short(&self) {
        self.marks.begin_to_reclaim();
        self.short.notified().await;
    }
}

impl Guarded {
    /// Takes a block that is not promised to anyone, if enough free frames are left. A page overtakes nobody.
    pub(super) fn take(&mut self, order: usize, claim: Claim, pool: &FramePool) -> Option<u64> {
        if claim == Claim::Page && self.applicants.unanswered > 0 {
            return None;
        }
        let left = pool.marks.left_by(claim);
        if self.lists.free_frames < self.applicants.promised + left + (1 << order) {
            return None;
        }
        let number = self.lists.allocate(order);
        let free = self.lists.free_frames;
        if free < self.least_free {
            self.least_free = self.least_free.min(free + pool.caches.count_all());
        }
        number
    }
}
