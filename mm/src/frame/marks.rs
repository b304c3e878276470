//! Marks: how many free frames are plenty, how many are few, and how many are kept for those who make others free.
//!
//! | free frames | a page, [`FramePool::alloc`] | what cannot wait, [`FramePool::try_alloc`] | who writes pages out, [`FramePool::try_alloc_reserved`] |
//! | --- | --- | --- | --- |
//! | `high` and more | takes one | takes one | takes one |
//! | `low` to `high` | takes one | takes one | takes one; reclaim, once begun, goes on |
//! | `reserve` to `low` | waits in order of arrival, and reclaim begins; served down to half way when nothing can be given back at once, and to the end when nobody gives way | takes one | takes one |
//! | less than `reserve` | waits; what comes back fills the reserve first | none | takes one |
//!
//! So between `reserve` and `low` are the frames of page tables, of the heap and of the kernel's own stacks, whose
//! users hold locks or have nobody to wait for; and a page that is written out finds a frame when nobody else does.
//! Where nobody reclaims, nobody is woken at the low mark, so it holds nobody up either.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use executor::lock::Within;

use super::pool::Guarded;
use super::{Frame, FramePool};

/// The marks of a [`FramePool`], in frames. None is above the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The last free frames, which only those get who write pages out: see [`FramePool::try_alloc_reserved`].
    pub reserve: usize,
    /// Below this many, pages wait and reclaim begins.
    pub low: usize,
    /// With this many, reclaim ends. CPUs keep frames at hand, and pages are read ahead, only above it.
    pub high: usize,
}

impl Marks {
    /// Nothing is kept and nobody reclaims: every frame is for whoever comes first.
    pub const NONE: Self = Self { reserve: 0, low: 0, high: 0 };

    /// The marks that suit a pool of so many frames: reclaim begins at a 64th of them (4 to 1,024), ends at twice
    /// that, and half of it is the reserve.
    ///
    /// | pool | reserve | low | high |
    /// | --- | --- | --- | --- |
    /// | 1 MiB and less | 2 | 4 | 8 |
    /// | 64 MiB | 128 | 256 | 512 |
    /// | 256 MiB and more | 512 | 1,024 | 2,048 |
    pub const fn of(frames: usize) -> Self {
        let low = match frames / 64 {
            ..4 => 4,
            1024.. => 1024,
            share => share,
        };
        Self { reserve: low / 2, low, high: low * 2 }
    }

    /// The same without a reserve: for a pool whose pages nobody writes out.
    pub const fn without_reserve(self) -> Self {
        Self { reserve: 0, ..self }
    }
}

/// Marks that are read without a lock, and written under the pool's.
pub(super) struct SharedMarks {
    reserve: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    /// Whether somebody reclaims, so that it is of use to wait at the low mark.
    reclaimed: AtomicBool,
}

/// For whom a frame is taken, which says how many are left to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// A page, whose user can wait.
    Page,
    /// What cannot wait.
    Now,
    /// Writing out a page, or what was promised: nothing is left.
    Any,
}

impl SharedMarks {
    pub(super) fn new(marks: Marks) -> Self {
        Self {
            reserve: AtomicUsize::new(marks.reserve),
            low: AtomicUsize::new(marks.low),
            high: AtomicUsize::new(marks.high),
            reclaimed: AtomicBool::new(false),
        }
    }

    pub(super) fn reserve(&self) -> usize {
        self.reserve.load(Relaxed)
    }

    pub(super) fn low(&self) -> usize {
        self.low.load(Relaxed)
    }

    pub(super) fn high(&self) -> usize {
        self.high.load(Relaxed)
    }

    /// Somebody reclaims from here on.
    pub(super) fn begin_to_reclaim(&self) {
        self.reclaimed.store(true, Relaxed);
    }

    /// How many free frames are left by who claims one.
    pub(super) fn left_by(&self, claim: Claim) -> usize {
        match claim {
            Claim::Page if self.reclaimed.load(Relaxed) => self.low(),
            Claim::Page | Claim::Now => self.reserve(),
            Claim::Any => 0,
        }
    }
}

impl Guarded {
    /// Promises up to `frames` free frames to those who wait, but none of the reserve. Returns how many.
    pub(super) fn promise(&mut self, frames: usize, marks: &SharedMarks) -> usize {
        self.promise_down_to(marks.reserve(), frames)
    }

    fn promise_down_to(&mut self, left: usize, frames: usize) -> usize {
        let kept = self.applicants.promised + left;
        self.applicants.promise(frames.min(self.lists.free_frames.saturating_sub(kept)))
    }
}

impl FramePool {
    /// The marks now.
    pub fn marks(&self) -> Marks {
        Marks { reserve: self.marks.reserve(), low: self.marks.low(), high: self.marks.high() }
    }

    /// Chooses other marks. A pool begins with those of [`Marks::of`] without a reserve: who writes pages out asks for
    /// one. Who waits for a frame that is not kept any more gets it.
    ///
    /// # Panics
    /// When one of the marks is above the next.
    pub fn set_marks(&self, marks: Marks) {
        assert!(marks.reserve <= marks.low && marks.low <= marks.high, "marks in order");
        let (closed, promised) = {
            let mut guarded = self.lists.lock();
            self.marks.reserve.store(marks.reserve, Relaxed);
            self.marks.low.store(marks.low, Relaxed);
            self.marks.high.store(marks.high, Relaxed);
            (self.decide(&guarded), guarded.promise(usize::MAX, &self.marks))
        };
        if closed {
            self.drain();
        }
        self.answer_promised(promised);
        self.short.notify_one();
    }

    /// A free frame for writing a page out, with whatever bytes were in it, or `None` at once: also one of the reserve,
    /// which is for those whose work gives frames back. Given back, it fills the reserve first.
    pub fn try_alloc_reserved(&'static self) -> Option<Frame> {
        self.take_frame(Claim::Any, None).map(|number| self.hand_out(number))
    }

    /// A free frame for a page, or `None` when it is to be waited for.
    #[inline]
    pub(crate) fn try_alloc_page(&'static self, within: Option<Within<'_>>) -> Option<Frame> {
        self.take_frame(Claim::Page, within).map(|number| self.hand_out(number))
    }

    /// Gives those who wait what is free down to half way between the low mark and the reserve: nothing is given back soon
    /// that they could wait for. The other half stays for what cannot wait: pages need tables, and the heap. Returns how
    /// many got one.
    pub(crate) fn serve_waiting(&self) -> usize {
        self.serve_down_to(usize::midpoint(self.marks.reserve(), self.marks.low()))
    }

    /// The same down to the reserve: nobody gives way for those who wait.
    pub(crate) fn serve_the_rest(&self) -> usize {
        self.serve_down_to(self.marks.reserve())
    }

    fn serve_down_to(&self, left: usize) -> usize {
        let promised = self.lists.lock().promise_down_to(left, usize::MAX);
        self.answer_promised(promised);
        promised
    }
}

#[cfg(test)]
mod tests {
    use super::Marks;

    #[test]
    fn marks_follow_the_size_of_the_pool() {
        let of = |mib: usize| Marks::of(mib * 256);
        assert_eq!(of(1), Marks { reserve: 2, low: 4, high: 8 });
        assert_eq!(of(64), Marks { reserve: 128, low: 256, high: 512 });
        assert_eq!(of(256), Marks { reserve: 512, low: 1024, high: 2048 });
        assert_eq!((Marks::of(0), of(1 << 14)), (of(1), of(256)));
    }
}
