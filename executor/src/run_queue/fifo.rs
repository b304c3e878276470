//! A queue of tasks that belongs to who holds its lock, or to one run loop alone.
#![allow(unsafe_code, reason = "tasks are linked through their own headers")]

use crate::atomic::{AtomicPtr, Ordering};
use crate::cpu::CpuLocal;
use crate::hooks;
use crate::order::{Order, rank};
use crate::task::Header;

use super::tagged;

/// One theft moves no more tasks than this, and as many threads, and leaves no more than this at the front on purpose:
/// the victim's run loop may wait for the lock meanwhile. That is no bound on the time, as the thief also walks past the
/// pinned ones in between, and queues all that was woken on the victim.
pub(super) const MOST_STOLEN: usize = 128;

/// First in, first out, through the links.
pub(crate) struct Fifo {
    head: *mut Header,
    tail: *mut Header,
    len: usize,
    /// How many of them are pinned.
    pinned: usize,
}

impl Fifo {
    pub(crate) const fn new() -> Self {
        let none = core::ptr::null_mut();
        Fifo { head: none, tail: none, len: 0, pinned: 0 }
    }

    /// # Safety
    /// As for [`Stack::push`](super::Stack::push).
    #[inline]
    pub(crate) unsafe fn push_back(&mut self, task: *mut Header) {
        // SAFETY: the caller's task.
        unsafe {
            self.push_back_plain(task);
            self.pinned += usize::from((*task).state.is_pinned());
        }
    }

    /// As [`push_back`](Fifo::push_back), for a task that is not pinned.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn push_back_plain(&mut self, task: *mut Header) {
        // SAFETY: the caller owns the new task's link; the tail is in this queue, so its link is ours.
        unsafe {
            (*task).link.store(core::ptr::null_mut(), Ordering::Relaxed);
            if self.head.is_null() {
                self.head = task;
            } else {
                (*self.tail).link.store(task, Ordering::Relaxed);
            }
        }
        self.tail = task;
        self.len += 1;
    }

    /// # Safety
    /// The task is alive.
    #[inline]
    unsafe fn count_in(&mut self, task: *mut Header) {
        self.len += 1;
        // SAFETY: the caller's promise.
        self.pinned += usize::from(unsafe { (*task).state.is_pinned() });
    }

    /// # Safety
    /// As for [`Stack::push`](super::Stack::push).
    pub(super) unsafe fn push_front(&mut self, task: *mut Header) {
        // SAFETY: the caller owns the new task's link.
        unsafe { (*task).link.store(self.head, Ordering::Relaxed) };
        if self.head.is_null() {
            self.tail = task;
        }
        self.head = task;
        // SAFETY: the caller's task.
        unsafe { self.count_in(task) };
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<*mut Header> {
        let task = self.head;
        if task.is_null() {
            return None;
        }
        // SAFETY: a queued task lives (the executor's reference) and its link is the queue's.
        self.head = unsafe { (*task).link.load(Ordering::Relaxed) };
        self.len -= 1;
        if self.pinned > 0 {
            // SAFETY: as above.
            self.pinned -= usize::from(unsafe { (*task).state.is_pinned() });
        }
        Some(task)
    }

    /// Takes out the task that an order puts first.
    #[cold]
    pub(super) fn pop_lowest(&mut self, order: &dyn Order) -> Option<*mut Header> {
        let none = core::ptr::null_mut();
        let (mut before, mut task) = (none, self.head);
        let (mut before_first, mut lowest) = (none, None);
        while !task.is_null() {
            // SAFETY: a queued task lives (the executor's reference) and its link is the queue's.
            let (rank, next) = unsafe { (rank(order, task), (*task).link.load(Ordering::Relaxed)) };
            if lowest.is_none_or(|lowest| rank < lowest) {
                (before_first, lowest) = (before, Some(rank));
            }
            (before, task) = (task, next);
        }
        if before_first.is_null() {
            return self.pop();
        }
        // SAFETY: as above; behind the task before the first there is one.
        unsafe {
            let first = (*before_first).link.load(Ordering::Relaxed);
            let next = (*first).link.load(Ordering::Relaxed);
            (*before_first).link.store(next, Ordering::Relaxed);
            if next.is_null() {
                self.tail = before_first;
            }
            self.len -= 1;
            self.pinned -= usize::from((*first).state.is_pinned());
            Some(first)
        }
    }

    /// Appends what was taken from a stack, in the order in which it was pushed.
    ///
    /// # Safety
    /// `chain` comes from [`Stack::take`](super::Stack::take) and is given away here.
    #[inline]
    pub(super) unsafe fn append_taken(&mut self, mut chain: *mut Header) {
        if chain.is_null() {
            return;
        }
        let last = chain;
        let mut first = core::ptr::null_mut();
        while !chain.is_null() {
            // SAFETY: the tasks of the chain live and their links belong to who took the chain.
            let next = unsafe { (*chain).link.load(Ordering::Relaxed) };
            // SAFETY: as above.
            unsafe {
                (*chain).link.store(first, Ordering::Relaxed);
                self.count_in(chain);
            }
            first = chain;
            chain = next;
        }
        if self.head.is_null() {
            self.head = first;
        } else {
            // SAFETY: the tail is in this queue.
            unsafe { (*self.tail).link.store(first, Ordering::Relaxed) };
        }
        self.tail = last;
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Takes out as many tasks as there are slots, and puts them there.
    #[inline]
    pub(super) fn fill(&mut self, slots: &[AtomicPtr<Header>]) {
        let mut task = self.head;
        if self.pinned == 0 {
            for slot in slots {
                slot.store(task, Ordering::Release);
                // SAFETY: queued tasks live, and their links are the queue's.
                task = unsafe { (*task).link.load(Ordering::Relaxed) };
            }
        } else {
            for slot in slots {
                // SAFETY: as above.
                let (next, pinned) =
                    unsafe { ((*task).link.load(Ordering::Relaxed), (*task).state.is_pinned()) };
                slot.store(tagged(task, pinned), Ordering::Release);
                self.pinned -= usize::from(pinned);
                task = next;
            }
        }
        self.head = task;
        self.len -= slots.len();
    }

    /// How many may be stolen.
    #[inline]
    pub(super) fn movable(&self) -> usize {
        self.len - self.pinned
    }

    /// Takes out half of the tasks that are not pinned, but not more than `most`, the first of those that stand behind
    /// the first `behind`. At least one, if there is one.
    pub(super) fn take_half(&mut self, most: usize, behind: usize) -> Fifo {
        let (mut taken, mut kept) = (Fifo::new(), Fifo::new());
        let wanted = self.movable().div_ceil(2).min(most.min(MOST_STOLEN));
        let behind = behind.min(MOST_STOLEN);
        while taken.len < wanted
            && let Some(task) = self.pop()
        {
            // SAFETY: a queued task lives, and is now in no queue.
            unsafe {
                let stays = kept.len < behind || (*task).state.is_pinned();
                let to = if stays { &mut kept } else { &mut taken };
                to.push_back(task);
            }
        }
        if kept.len > 0 {
            kept.append(core::mem::replace(self, Fifo::new()));
            *self = kept;
        }
        taken
    }

    /// Makes another CPU the home of all.
    pub(super) fn move_to(&mut self, home: &'static CpuLocal) {
        let mut task = self.head;
        while !task.is_null() {
            // SAFETY: queued tasks live, and their homes and links are the queue's.
            unsafe {
                if (*task).state.is_hooked() {
                    hooks::stolen(task);
                }
                (*task).home.store(core::ptr::from_ref(home).cast_mut(), Ordering::Relaxed);
                task = (*task).link.load(Ordering::Relaxed);
            }
        }
    }

    /// Appends another queue.
    pub(super) fn append(&mut self, other: Fifo) {
        if other.head.is_null() {
            return;
        }
        if self.head.is_null() {
            self.head = other.head;
        } else {
            // SAFETY: the tail is in this queue.
            unsafe { (*self.tail).link.store(other.head, Ordering::Relaxed) };
        }
        self.tail = other.tail;
        self.len += other.len;
        self.pinned += other.pinned;
    }
}
