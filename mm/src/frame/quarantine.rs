//! The quarantine: frames that nobody owns any more, but that a CPU may still see through what it remembers of page
//! tables. They become free when all CPUs were waited for; see `shootdown` for the wait itself.
//!
//! Waits are numbered in the order in which they begin. What was taken away before a wait began is forgotten when
//! that wait is over, and so is everything before it; so a [`Moment`] is the number of the next wait, and it is
//! over when any wait with that number or a higher one is.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | frame enters, wait begins | both under the pool's lock: the wait is for the frame, or the frame is for the next wait |
//! | wait, wait | each frees what entered before it began; the later one finds less |
//! | wait that is over, many frames | they are freed some at each poll; moments before it are over from the first on. Whoever drops it frees the rest at once |
//! | wait that is dropped, its frames | they stay for the next wait. Whoever drops one tells the background task |
//! | allocation, quarantine | a frame in quarantine is on no free list; the lists assert it |

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::pool::Guarded;
use super::{Frame, FramePool};
use crate::page_state::COPIED_BITS;

/// Frames that are freed before the lock is given up for a moment.
const BATCH: usize = 64;

/// A moment that is over when all CPUs have forgotten what was taken out of page tables before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Moment(u64);

impl Moment {
    /// For the entry of a page. Below 2^52 for any machine's life.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Guarded by the pool's lock.
#[derive(Default)]
pub(super) struct Waits {
    /// Waits that have begun.
    begun: u64,
    /// The latest moment that somebody wanted to be over and did not wait for.
    owed: u64,
    /// The background task was told of that, and has not looked since.
    told: bool,
}

impl Waits {
    /// Notes that nobody waits for a moment that is not over. True if nobody knows yet.
    fn owe(&mut self, moment: Moment) -> bool {
        self.owed = self.owed.max(moment.0);
        !self.told
    }

    /// The background task looks: what is owed from here on it has to be told again. True if something is owed: all
    /// moments up to `over` are over.
    fn look(&mut self, over: u64) -> bool {
        self.told = false;
        self.owed > over
    }
}

impl FramePool {
    /// This moment. The caller has taken away before it what is to be forgotten.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.lists.lock().waits.begun + 1)
    }

    /// The latest moment so far whose low bits are these; see `PageEntry::copied`. Where it is not the one that was
    /// meant, it is a later one: then whoever asks waits without need.
    pub(crate) fn recent(&self, low: u64) -> Moment {
        let now = self.moment().0;
        let back = now.wrapping_sub(low) & ((1 << COPIED_BITS) - 1);
        Moment(now.saturating_sub(back))
    }

    /// How many waits there were.
    pub(crate) fn waits(&self) -> u64 {
        self.lists.lock().waits.begun
    }

    /// Whether all CPUs have forgotten what was taken away before a moment.
    pub(crate) fn is_over(&self, moment: Moment) -> bool {
        // Pairs with the release in `end_wait`: who sees the wait over sees what was done before it.
        self.waits_over.load(Acquire) >= moment.0
    }

    /// Gives up a frame that page tables showed or that was one of them. It is taken out of them already.
    pub(crate) fn quarantine(&self, frame: Frame) -> Moment {
        self.checks.quarantines(frame.number());
        let mut guarded = self.lists.lock();
        let until = guarded.waits.begun + 1;
        guarded.lists.quarantine(&[frame.into_number()], until);
        Moment(until)
    }

    /// The same for a frame of a pool that is waited for with another one, whose moments count.
    pub(crate) fn quarantine_with(&self, other: &FramePool, frame: Frame) {
        self.checks.quarantines(frame.number());
        let mut guarded = self.lists.lock();
        // Under the lock, as the moments of a list only grow.
        let until = other.moment();
        guarded.lists.quarantine(&[frame.into_number()], until.0);
    }

    /// A wait for all CPUs begins.
    pub(crate) fn begin_wait(&self) -> Moment {
        let mut guarded = self.lists.lock();
        guarded.waits.begun += 1;
        Moment(guarded.waits.begun)
    }

    /// A wait is over: frees some of what was in quarantine when it began. True if there may be more.
    pub(crate) fn end_wait(&self, wait: Moment) -> bool {
        let (freed, promised) = {
            let mut guarded = self.lists.lock();
            self.waits_over.fetch_max(wait.0, Release);
            let freed =
                guarded.lists.free_quarantined(wait.0, BATCH, |frame| self.checks.takes_back(frame, 1));
            (freed, guarded.promise(freed, &self.marks))
        };
        self.answer_promised(promised);
        freed == BATCH
    }

    /// Notes that nobody waits for a moment. True if it is not over, and nobody knows yet.
    pub(crate) fn owe(&self, moment: Moment) -> bool {
        let mut guarded = self.lists.lock();
        !self.is_over(moment) && guarded.waits.owe(moment)
    }

    /// Leaves it to the background task to wait for what is owed.
    pub(crate) fn leave_behind(&self) {
        self.lists.lock().waits.told = true;
        self.short.notify_one();
    }

    /// What the background task has to wait for, if there is anything.
    pub(crate) fn left_behind(&self) -> Option<Moment> {
        let Guarded { lists, waits, .. } = &mut *self.lists.lock();
        (waits.look(self.waits_over.load(Relaxed)) || lists.quarantined > 0)
            .then_some(Moment(waits.begun + 1))
    }
}

/// Frames that go into quarantine together, so that the pool's lock is not taken for each.
pub(crate) struct QuarantineBatch {
    pool: &'static FramePool,
    frames: [u64; BATCH],
    count: usize,
    last: Option<Moment>,
}

impl QuarantineBatch {
    pub(crate) fn new(pool: &'static FramePool) -> Self {
        Self { pool, frames: [0; BATCH], count: 0, last: None }
    }

    /// Adds a frame that nobody owns any more, by its number; as [`FramePool::quarantine`].
    pub(crate) fn add(&mut self, frame: u64) {
        if self.count == BATCH {
            self.flush();
        }
        self.frames[self.count] = frame;
        self.count += 1;
    }

    fn flush(&mut self) {
        let frames = &self.frames[..core::mem::take(&mut self.count)];
        if frames.is_empty() {
            return;
        }
        frames.iter().for_each(|&frame| self.pool.checks.quarantines(frame));
        let mut guarded = self.pool.lists.lock();
        let until = guarded.waits.begun + 1;
        guarded.lists.quarantine(frames, until);
        self.last = Some(Moment(until));
    }

    /// When the latest of them becomes free, if there was any.
    pub(crate) fn end(mut self) -> Option<Moment> {
        self.flush();
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::{Moment, Waits};

    #[cfg(debug_assertions)]
    #[test]
    fn what_a_cpu_writes_to_a_frame_in_quarantine_is_no_bug() {
        let frames = crate::window::arena::memory(64).frames();
        let frame = frames.try_alloc().expect("there are frames");
        let address = frame.address();
        let moment = frames.quarantine(frame);
        frames.window().write(address, 0, &[1]);
        assert_eq!(frames.owned().collect::<std::vec::Vec<_>>(), [address]);
        frames.begin_wait();
        assert!(!frames.end_wait(moment));
        let all: std::vec::Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
        assert!(all.iter().any(|frame| frame.address() == address));
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "was written to after it was freed: 0x1 at address")]
    fn what_it_writes_after_all_cpus_have_forgotten_the_frame_is_one() {
        let frames = crate::window::arena::memory(64).frames();
        let frame = frames.try_alloc().expect("there are frames");
        let address = frame.address();
        let moment = frames.quarantine(frame);
        frames.begin_wait();
        assert!(!frames.end_wait(moment));
        frames.window().write(address, 0, &[1]);
        let _all: std::vec::Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    }

    #[test]
    fn whoever_owes_after_a_look_tells_again() {
        let mut waits = Waits::default();
        assert!(waits.owe(Moment(1)));
        // Between the wait that is dropped and the word to the background task another wait begins and ends.
        waits.begun = 2;
        waits.told = true;
        assert!(!waits.look(2), "nothing is owed any more");
        assert!(waits.owe(Moment(3)), "the next one has to be told of");
        waits.told = true;
        assert!(!waits.owe(Moment(3)), "it has not looked since");
        assert!(waits.look(2));
    }
}
