//! Where ready tasks stand: stacks that anybody may push to, and queues that only the run loop touches.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | push, push (other CPU, or interrupt in the middle of a push) | compare-and-swap on the head, tried again |
//! | push, take | the whole chain goes at once: there is no pop, so no head can come back unnoticed (ABA) |
//! | queue, anybody | the queues belong to the run loop alone, between polls |
//!
//! A task is in at most one stack or queue: its state bits decide who pushes it (see `task::state`), so one link
//! in its header is enough.
#![allow(unsafe_code, reason = "tasks are linked through their own headers")]

use core::cell::UnsafeCell;

use crate::atomic::{AtomicPtr, Ordering, const_unless_loom};
use crate::task::Header;

/// A push-only stack of tasks, taken as a whole. Safe from interrupt handlers and other CPUs.
pub(crate) struct Stack {
    head: AtomicPtr<Header>,
}

impl Stack {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Stack { head: AtomicPtr::new(core::ptr::null_mut()) }
        }
    }

    /// Pushes a task.
    ///
    /// # Safety
    /// The task is in no other stack or queue, and lives until it was taken out of this one.
    #[inline]
    pub(crate) unsafe fn push(&self, task: *mut Header) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller owns the link.
            unsafe { (*task).link.store(head, Ordering::Relaxed) };
            match self.head.compare_exchange_weak(head, task, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Takes all, newest first, as a chain through the links.
    #[inline]
    pub(crate) fn take(&self) -> *mut Header {
        if self.head.load(Ordering::Relaxed).is_null() {
            return core::ptr::null_mut();
        }
        self.head.swap(core::ptr::null_mut(), Ordering::Acquire)
    }
}

/// First in, first out, through the links.
pub(crate) struct Fifo {
    head: *mut Header,
    tail: *mut Header,
    len: usize,
    /// Who was taken out last, and how many slots in a row it has had.
    last: *mut Header,
    slots: u8,
}

impl Fifo {
    const fn new() -> Self {
        let none = core::ptr::null_mut();
        Fifo { head: none, tail: none, len: 0, last: none, slots: 0 }
    }

    /// # Safety
    /// As for [`Stack::push`].
    #[inline]
    pub(crate) unsafe fn push_back(&mut self, task: *mut Header) {
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

    /// Puts a task back: to the front while it has slots left, else to the end. True if to the front.
    ///
    /// # Safety
    /// As for [`Stack::push`].
    #[inline]
    unsafe fn push_again(&mut self, task: *mut Header, nice: u8) -> bool {
        let again = self.last == task && self.slots < nice;
        // SAFETY: the caller's task.
        unsafe {
            if again {
                self.push_front(task);
            } else {
                self.push_back(task);
            }
        }
        again
    }

    /// # Safety
    /// As for [`Stack::push`].
    unsafe fn push_front(&mut self, task: *mut Header) {
        // SAFETY: the caller owns the new task's link.
        unsafe { (*task).link.store(self.head, Ordering::Relaxed) };
        if self.head.is_null() {
            self.tail = task;
        }
        self.head = task;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<*mut Header> {
        let task = self.head;
        if task.is_null() {
            return None;
        }
        // SAFETY: a queued task lives (the executor's reference) and its link is the queue's.
        self.head = unsafe { (*task).link.load(Ordering::Relaxed) };
        self.len -= 1;
        self.slots = if self.last == task { self.slots.saturating_add(1) } else { 1 };
        self.last = task;
        Some(task)
    }

    /// Appends what was taken from a stack, in the order in which it was pushed.
    ///
    /// # Safety
    /// `chain` comes from [`Stack::take`] and is given away here.
    #[inline]
    unsafe fn append_taken(&mut self, mut chain: *mut Header) {
        if chain.is_null() {
            return;
        }
        let last = chain;
        let mut first = core::ptr::null_mut();
        while !chain.is_null() {
            // SAFETY: the tasks of the chain live and their links belong to who took the chain.
            let next = unsafe { (*chain).link.load(Ordering::Relaxed) };
            // SAFETY: as above.
            unsafe { (*chain).link.store(first, Ordering::Relaxed) };
            first = chain;
            chain = next;
            self.len += 1;
        }
        if self.head.is_null() {
            self.head = first;
        } else {
            // SAFETY: the tail is in this queue.
            unsafe { (*self.tail).link.store(first, Ordering::Relaxed) };
        }
        self.tail = last;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// The run loop's own queues.
pub(crate) struct RunQueue {
    inner: UnsafeCell<Queues>,
    /// How many tasks and threads stand in the queues, for who may not look into them.
    tasks: core::sync::atomic::AtomicUsize,
    threads: core::sync::atomic::AtomicUsize,
}

// SAFETY: only the CPU's run loop calls `with`, between polls; the counter is atomic.
unsafe impl Sync for RunQueue {}
// SAFETY: the queues hold tasks, which may be polled on any CPU.
unsafe impl Send for RunQueue {}

/// Tasks before threads, round by round: a round is the tasks that were ready at its start, then one thread.
pub(crate) struct Queues {
    pub(crate) tasks: Fifo,
    pub(crate) threads: Fifo,
    /// Tasks left of this round.
    left: usize,
    /// One thread is due at the end of this round.
    thread_due: bool,
}

impl RunQueue {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            RunQueue {
                inner: UnsafeCell::new(Queues {
                    tasks: Fifo::new(),
                    threads: Fifo::new(),
                    left: 0,
                    thread_due: false,
                }),
                tasks: core::sync::atomic::AtomicUsize::new(0),
                threads: core::sync::atomic::AtomicUsize::new(0),
            }
        }
    }

    /// Whether a task (not a thread) is queued here. Any context.
    pub(crate) fn has_tasks(&self) -> bool {
        self.tasks.load(Ordering::Relaxed) != 0
    }

    /// Whether a thread is queued here. Any context.
    pub(crate) fn has_threads(&self) -> bool {
        self.threads.load(Ordering::Relaxed) != 0
    }

    /// Takes what was woken, then says who is next.
    ///
    /// # Safety
    /// Only for the run loop of the CPU that owns the queue and the stacks, between polls.
    #[inline]
    pub(crate) unsafe fn next(&self, woken_tasks: &Stack, woken_threads: &Stack) -> Option<*mut Header> {
        // SAFETY: the caller is the only one here.
        let queues = unsafe { &mut *self.inner.get() };
        // SAFETY: the chains were just taken.
        unsafe {
            queues.tasks.append_taken(woken_tasks.take());
            queues.threads.append_taken(woken_threads.take());
        }
        let next = queues.next();
        self.tasks.store(queues.tasks.len(), Ordering::Relaxed);
        self.threads.store(queues.threads.len(), Ordering::Relaxed);
        next
    }

    /// Queues a task again whose wake came during its poll: at the front while it has slots left of the *n* in
    /// a row that its nice factor gives it in a round, else at the end.
    ///
    /// # Safety
    /// As for [`next`](RunQueue::next), and the task is in no queue.
    #[inline]
    pub(crate) unsafe fn push_again(&self, task: *mut Header, is_thread: bool, nice: u8) {
        // SAFETY: the caller is the only one here, and the task is free.
        unsafe {
            let queues = &mut *self.inner.get();
            if is_thread {
                queues.threads.push_again(task, nice);
                self.threads.store(queues.threads.len(), Ordering::Relaxed);
            } else {
                if queues.tasks.push_again(task, nice) {
                    queues.left += 1;
                }
                self.tasks.store(queues.tasks.len(), Ordering::Relaxed);
            }
        }
    }
}

impl Queues {
    #[inline]
    fn next(&mut self) -> Option<*mut Header> {
        if self.left == 0 {
            if core::mem::take(&mut self.thread_due)
                && let Some(thread) = self.threads.pop_front()
            {
                return Some(thread);
            }
            self.left = self.tasks.len();
            self.thread_due = true;
        }
        match self.tasks.pop_front() {
            Some(task) => {
                self.left -= 1;
                Some(task)
            }
            None => {
                self.left = 0;
                self.thread_due = false;
                self.threads.pop_front()
            }
        }
    }
}
