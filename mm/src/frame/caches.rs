//! Free frames at hand: a few for each CPU, and a few that are full of zeros. Taking and giving back a frame
//! then takes the CPU's own lock only, and one visit to the lists serves a batch.
//!
//! A frame in a cache is free like any other, and is counted so. For the lists it is `Used`.
//!
//! Caches are *open* while there is plenty of memory and nobody waits or looks for a block: all of these are
//! decided under the pool's lock. Whoever closes them empties them. So below the high mark the lists have all
//! free frames, and every count is exact as it is without caches; above it the fast path changes only what a
//! cache says of itself.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | give back, close | under the cache's lock: the frame is in before the cache is emptied, or the flag says closed |
//! | take, close | whoever has the cache's lock first has the frame; who comes later finds the lists |
//! | wait for a frame, give back | who waits registers, closes, and empties all caches: what they hold is promised |
//! | block that is not there, caches | caches stay closed until all are emptied and the lists were looked at again |
//! | victim, caches | one is named only when no cache holds anything |
//! | zeros being written, close | under the stock's lock, so the frame is found when it is ready |
//!
//! The order of locks is: one cache, the lists. Nobody holds two caches.

use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use executor::current_cpu;
use executor::lock::{SpinGuard, SpinLock, Within};

use super::marks::Claim;
use super::pool::Guarded;
use super::{FramePool, address_of};

/// CPUs whose numbers are so far apart share a cache.
const CACHES: usize = 16;
/// Most frames in a cache.
pub(super) const ROOM: usize = 32;
/// Frames that go to or come from the lists together.
pub(super) const BATCH: usize = 16;
/// Caches open when so many frames are free beyond the high mark, so that they do not open and close all the time.
pub(super) const AMPLE: usize = 4 * BATCH;

pub(super) struct Caches {
    of_cpus: [Cache; CACHES],
    /// Frames full of zeros.
    pub(super) zeroed: Cache,
    /// Written under the pool's lock.
    open: AtomicBool,
}

impl Caches {
    pub(super) fn new() -> Self {
        Self {
            of_cpus: core::array::from_fn(|_| Cache::new()),
            zeroed: Cache::new(),
            open: AtomicBool::new(false),
        }
    }

    /// Whether frames may be put into a cache: under the cache's lock an order, elsewhere a hint.
    #[inline]
    pub(super) fn are_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// The cache of this CPU. A thread may be on another one by now, which costs it nothing but time.
    #[inline]
    fn own(&self) -> &Cache {
        &self.of_cpus[current_cpu() as usize % CACHES]
    }

    /// Frames in the CPUs' caches. Exact under the pool's lock, but for what CPUs take and give back meanwhile.
    pub(super) fn count(&self) -> usize {
        self.of_cpus.iter().map(Cache::count).sum()
    }

    /// The same with the zeroed ones.
    pub(super) fn count_all(&self) -> usize {
        self.count() + self.zeroed.count()
    }

    fn all(&self) -> impl Iterator<Item = &Cache> {
        self.of_cpus.iter().chain([&self.zeroed])
    }
}

/// A stack of free frames.
#[repr(align(64))]
pub(super) struct Cache {
    /// Written under the lock; and when frames go to or come from the lists, under the pool's lock, too.
    count: AtomicUsize,
    frames: SpinLock<[u64; ROOM]>,
}

impl Cache {
    fn new() -> Self {
        Self { count: AtomicUsize::new(0), frames: SpinLock::new("frame cache", [0; ROOM]) }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    #[inline]
    pub(super) fn lock(&self) -> LockedCache<'_> {
        LockedCache { frames: self.frames.lock(), count: &self.count }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<LockedCache<'_>> {
        Some(LockedCache { frames: self.frames.try_lock()?, count: &self.count })
    }

    /// Takes a frame out, if there is one at hand.
    #[inline]
    fn take(&self, within: Option<Within<'_>>) -> Option<u64> {
        match within {
            Some(within) => LockedCache { frames: self.frames.lock_within(within), count: &self.count }.pop(),
            None => self.try_lock()?.pop(),
        }
    }
}

/// Dropping it unlocks the cache.
pub(super) struct LockedCache<'a, G = SpinGuard<'a, [u64; ROOM]>> {
    frames: G,
    count: &'a AtomicUsize,
}

impl<G: DerefMut<Target = [u64; ROOM]>> LockedCache<'_, G> {
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u64> {
        let last = self.count().checked_sub(1)?;
        let frame = *self.frames.get(last)?;
        self.count.store(last, Relaxed);
        Some(frame)
    }

    /// False if there is no room.
    #[inline]
    pub(super) fn push(&mut self, frame: u64) -> bool {
        let count = self.count();
        let Some(place) = self.frames.get_mut(count) else { return false };
        *place = frame;
        self.count.store(count + 1, Relaxed);
        true
    }

    /// Takes out up to [`BATCH`] frames, those that were put in first: the others may still be in the processor's
    /// own cache.
    fn take_oldest(&mut self) -> ([u64; BATCH], usize) {
        let mut oldest = [0; BATCH];
        let taken = self.count().min(BATCH);
        oldest[..taken].copy_from_slice(&self.frames[..taken]);
        let rest = self.count() - taken;
        self.frames.copy_within(taken..taken + rest, 0);
        self.count.store(rest, Relaxed);
        (oldest, taken)
    }
}

/// What is to be done when the pool's lock is released.
#[must_use = "closed caches are to be emptied"]
pub(super) struct After {
    closed: bool,
    short: bool,
}

impl FramePool {
    /// A frame that is not promised to anyone. The fast path.
    #[inline]
    pub(super) fn take_frame(&self, claim: Claim, within: Option<Within<'_>>) -> Option<u64> {
        match self.caches.own().take(within) {
            Some(frame) => Some(frame),
            None => self.take_frame_slowly(claim),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_frame_slowly(&self, claim: Claim) -> Option<u64> {
        if !self.caches.are_open() {
            return self.take_block(0, claim);
        }
        let (number, after) = {
            let mut own = self.caches.own().lock();
            let mut guarded = self.lists.lock();
            let number = guarded.take(0, claim, self);
            let after = self.after_taking(&guarded);
            // Open caches leave the high mark to the lists. Nothing is promised then, and what is free stays the same.
            let (mut more, mut count) = ([0; BATCH], 0);
            while self.caches.are_open()
                && own.count() + count < BATCH
                && guarded.lists.free_frames > self.marks.high()
            {
                let Some(one) = guarded.lists.allocate(0) else { break };
                more[count] = one;
                count += 1;
            }
            // Frames that follow each other come out in order: a device then writes to several as to one.
            for &frame in more[..count].iter().rev() {
                own.push(frame);
            }
            (number, after)
        };
        self.follow(after);
        number.or_else(|| self.take_gathered(0, claim))
    }

    /// Gives back a frame. The fast path.
    #[inline]
    pub(super) fn give_frame(&self, number: u64) {
        let is_cached =
            self.caches.own().try_lock().is_some_and(|mut own| self.caches.are_open() && own.push(number));
        if !is_cached {
            self.give_frame_slowly(number);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_frame_slowly(&self, number: u64) {
        if self.caches.are_open() {
            let mut own = self.caches.own().lock();
            let mut guarded = self.lists.lock();
            if self.caches.are_open() {
                if own.count() == ROOM {
                    let (oldest, count) = own.take_oldest();
                    oldest[..count].iter().for_each(|&frame| guarded.lists.free(frame, 1));
                }
                own.push(number);
                return;
            }
        }
        self.give_block(number, 1);
    }

    /// A block, when the lists have none as they are: with all frames out of the caches.
    pub(super) fn take_gathered(&self, order: usize, claim: Claim) -> Option<u64> {
        {
            let mut guarded = self.lists.lock();
            guarded.gathering += 1;
            self.close(&guarded);
        }
        self.drain();
        let (number, after) = {
            let mut guarded = self.lists.lock();
            guarded.gathering -= 1;
            let number = guarded.take(order, claim, self);
            (number, self.after_taking(&guarded))
        };
        self.follow(after);
        number
    }

    /// Decides, after the counts have changed, whether caches are open. True if they were and are not: the caller drains
    /// them.
    pub(super) fn decide(&self, guarded: &Guarded) -> bool {
        let free = guarded.lists.free_frames;
        let were_open = self.caches.are_open();
        let high = self.marks.high();
        let enough = if were_open { high } else { high + AMPLE };
        let open = free >= enough && guarded.gathering == 0 && guarded.applicants.all() == 0;
        if open != were_open {
            self.caches.open.store(open, Relaxed);
        }
        were_open && !open
    }

    /// The same after frames were taken, with a look whether they are short.
    pub(super) fn after_taking(&self, guarded: &Guarded) -> After {
        let free = guarded.lists.free_frames;
        let low = self.marks.low();
        let short = free < low && free + self.caches.count_all() < low;
        After { closed: self.decide(guarded), short }
    }

    /// Closes the caches until [`FramePool::decide`] finds no reason against it. The caller drains them.
    pub(super) fn close(&self, _locked: &Guarded) {
        self.caches.open.store(false, Relaxed);
    }

    /// Does what was decided. With no lock held.
    pub(super) fn follow(&self, after: After) {
        if after.closed {
            self.drain();
        }
        if after.short {
            self.short.notify_one();
        }
    }

    /// Puts the frames of all caches on the lists, for those who wait first. If the caches are closed and stay so, they
    /// are empty after it.
    pub(super) fn drain(&self) {
        for cache in self.caches.all() {
            // Also if it seems to be empty: somebody may be about to put a frame in who has seen it open.
            let mut cache = cache.lock();
            if cache.count() == 0 {
                continue;
            }
            let promised = {
                let mut guarded = self.lists.lock();
                let frames = cache.count();
                while let Some(frame) = cache.pop() {
                    guarded.lists.free(frame, 1);
                }
                guarded.promise(frames, &self.marks)
            };
            drop(cache);
            self.answer_promised(promised);
        }
    }

    /// Clears one free frame ahead of time, for [`FramePool::try_alloc_zeroed`]. For a CPU that has nothing else to do,
    /// as often as it says true; it takes as long as clearing one frame does.
    ///
    /// False when there are enough of them, or when frames are short.
    pub fn prepare_zeroed(&'static self) -> bool {
        if !self.caches.are_open() || self.caches.zeroed.count() == ROOM {
            return false;
        }
        let Some(mut stock) = self.caches.zeroed.try_lock() else { return false };
        let number = {
            let mut guarded = self.lists.lock();
            if !self.caches.are_open()
                || stock.count() == ROOM
                || guarded.lists.free_frames <= self.marks.high()
            {
                return false;
            }
            let Some(number) = guarded.lists.allocate(0) else { return false };
            stock.push(number);
            number
        };
        // It counts as free already, and whoever empties the caches waits for the stock's lock.
        self.checks.clears(number);
        self.window().zero(address_of(number));
        true
    }

    /// A frame full of zeros that was prepared, if there is one at hand.
    pub(super) fn take_zeroed(&self) -> Option<u64> {
        if self.caches.zeroed.count() == 0 {
            return None;
        }
        // Who clears a frame just now takes as long as doing it oneself.
        self.caches.zeroed.try_lock()?.pop()
    }
}

#[cfg(test)]
mod tests;
