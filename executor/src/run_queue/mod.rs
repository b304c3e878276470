//! Where ready tasks stand: stacks that anybody may push to, and queues that run loops take from: their own CPU's,
//! or another's, to steal half of it.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | push, push (other CPU, or interrupt in the middle of a push) | compare-and-swap on the head, tried again |
//! | push, take | the whole chain goes at once: there is no pop, so no head can come back unnoticed (ABA) |
//! | take, take | who swaps gets the chain, the other one nothing |
//! | run loop, thief | a lock of the queue's own, which only run loops take, between polls: no interrupt handler and no thread, so interrupts may stay on, and the holder is never preempted |
//! | run loop, thief, at the hand | who swaps a slot's task out has it; nobody follows a pointer that it does not have |
//! | thief, thief of the thief | nobody holds two of these locks: what is stolen is out of one queue before it is put into the other |
//! | steal, a look of the victim that goes idle or is interrupted in a thread | what was woken may be in the thief's hands at that moment: the thief kicks it for what it leaves |
//! | steal, wake | a task in a queue is SCHEDULED, so a wake pushes nothing; its home is changed before the next poll, which publishes it |
//!
//! A task that is woken while no other is ready goes from the stack to its poll. Else a run loop takes the queue's
//! lock for up to 16 tasks at a time: the first it polls at once, the others lie in its *hand* meanwhile, where thieves
//! find them when nothing stands in the queue.
//!
//! A task is in at most one stack, queue or hand: its state bits decide who pushes it (see `task::state`), so one link
//! in its header is enough.
#![allow(unsafe_code, reason = "tasks are linked through their own headers")]

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use crate::atomic::{AtomicBool, AtomicPtr, Ordering, const_unless_loom};
use crate::order;
use crate::task::Header;

mod fifo;
mod round;
mod stack;
mod theft;

pub(crate) use fifo::Fifo;
pub(crate) use round::Round;
pub(crate) use stack::Stack;

/// How many tasks lie in a hand at most.
#[cfg(not(loom))]
pub(crate) const HAND: usize = 15;
#[cfg(loom)]
pub(crate) const HAND: usize = 1;

/// What a run loop finds.
pub(crate) enum Ready {
    Nothing,
    /// One task. It was taken out.
    One(*mut Header),
    /// Several, or a thread. The chain, which may be null, was taken out, and is to be dealt.
    More(*mut Header),
}

/// A CPU's queues.
pub(crate) struct RunQueue {
    hand: [AtomicPtr<Header>; HAND],
    locked: AtomicBool,
    inner: UnsafeCell<Queues>,
    /// How many tasks and threads stand in the queues, and how many threads, for who may not look into them.
    queued: core::sync::atomic::AtomicUsize,
    threads: core::sync::atomic::AtomicUsize,
    /// How many of both are not pinned.
    movable: core::sync::atomic::AtomicUsize,
}

// SAFETY: the queues are reached through the lock only; the counters are atomic.
unsafe impl Sync for RunQueue {}
// SAFETY: the queues hold tasks, which may be polled on any CPU.
unsafe impl Send for RunQueue {}

#[cfg(not(loom))]
const fn empty_hand() -> [AtomicPtr<Header>; HAND] {
    [const { AtomicPtr::new(core::ptr::null_mut()) }; HAND]
}

#[cfg(loom)]
fn empty_hand() -> [AtomicPtr<Header>; HAND] {
    core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut()))
}

/// Tasks before threads, round by round: a round is the tasks that were ready at its start, then one thread.
struct Queues {
    tasks: Fifo,
    threads: Fifo,
    /// The thread that was taken out last, and how many slots in a row it has had.
    last: *mut Header,
    slots: u8,
    /// Tasks left of this round.
    left: usize,
    /// One thread is due at the end of this round.
    thread_due: bool,
}

impl RunQueue {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            RunQueue {
                hand: empty_hand(),
                locked: AtomicBool::new(false),
                inner: UnsafeCell::new(Queues {
                    tasks: Fifo::new(),
                    threads: Fifo::new(),
                    last: core::ptr::null_mut(),
                    slots: 0,
                    left: 0,
                    thread_due: false,
                }),
                queued: core::sync::atomic::AtomicUsize::new(0),
                threads: core::sync::atomic::AtomicUsize::new(0),
                movable: core::sync::atomic::AtomicUsize::new(0),
            }
        }
    }

    /// Whether a task (not a thread) is queued here. Any context.
    pub(crate) fn has_tasks(&self) -> bool {
        self.queued.load(Ordering::Relaxed) != self.threads.load(Ordering::Relaxed)
    }

    /// Whether a thread is queued here. Any context.
    pub(crate) fn has_threads(&self) -> bool {
        self.threads.load(Ordering::Relaxed) != 0
    }

    /// Whether there is something to steal, as a hint. Any context.
    #[inline]
    pub(crate) fn has_movable(&self) -> bool {
        self.movable.load(Ordering::Relaxed) != 0
    }

    /// Calls `f` with the queues, and notes how long they are then.
    ///
    /// # Safety
    /// Only for run loops, between polls, and not inside another call.
    #[inline]
    unsafe fn with<R>(&self, f: impl FnOnce(&mut Queues) -> R) -> R {
        if !crate::lock::take(&self.locked) {
            crate::lock::spin(&self.locked);
        }
        // SAFETY: the lock is ours, and the caller in no other call.
        let queues = unsafe { &mut *self.inner.get() };
        let result = f(queues);
        self.queued.store(queues.tasks.len() + queues.threads.len(), Ordering::Relaxed);
        self.threads.store(queues.threads.len(), Ordering::Relaxed);
        let movable = queues.tasks.movable() + queues.threads.movable();
        self.movable.store(movable, Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        result
    }

    /// What is ready. A task that is the only one needs no lock.
    ///
    /// # Safety
    /// Only for the run loop of the CPU that owns the queue and the stacks, between polls, with an empty hand.
    #[inline(always)]
    pub(crate) unsafe fn look(&self, woken_tasks: &Stack, woken_threads: &Stack) -> Ready {
        // A thief who has taken the stack but not yet filled the queue rouses us should we sleep by then.
        if self.queued.load(Ordering::Relaxed) != 0 || !woken_threads.is_empty() {
            return Ready::More(core::ptr::null_mut());
        }
        let chain = woken_tasks.take_likely();
        if chain.is_null() {
            return Ready::Nothing;
        }
        // SAFETY: the tasks of the chain live, and their links are ours.
        let is_alone = unsafe { (*chain).link.load(Ordering::Relaxed) }.is_null();
        if is_alone { Ready::One(chain) } else { Ready::More(chain) }
    }

    /// Whether there is something ready, for a run loop that has taken a task out by [`look`](RunQueue::look).
    #[inline(always)]
    pub(crate) fn has_others(&self, woken_tasks: &Stack, woken_threads: &Stack) -> bool {
        self.queued.load(Ordering::Relaxed) != 0 || !woken_threads.is_empty() || !woken_tasks.is_empty()
    }

    /// Takes what was woken, then the next of the round: either up to [`HAND`] + 1 tasks, or one thread. The first
    /// is returned, with the number of the others, which lie in the hand. `chain` was taken from the tasks' stack
    /// before, and may be null.
    ///
    /// # Safety
    /// As for [`look`](RunQueue::look).
    pub(crate) unsafe fn deal(
        &self,
        chain: *mut Header,
        woken_tasks: &Stack,
        woken_threads: &Stack,
        most: usize,
    ) -> Option<(*mut Header, usize)> {
        // SAFETY: the caller is this CPU's run loop; the chain was taken by it.
        unsafe {
            self.with(|queues| {
                queues.tasks.append_taken(chain);
                queues.take_woken(woken_tasks, woken_threads);
                queues.deal(&self.hand, most)
            })
        }
    }

    /// Takes out what lies in the first slots of the hand, one after another, but for what thieves were quicker with.
    #[inline]
    pub(crate) fn hand(&self, slots: usize) -> impl Iterator<Item = NonNull<Header>> {
        let taken = |slot: &AtomicPtr<Header>| slot.swap(core::ptr::null_mut(), Ordering::Acquire);
        self.hand[..slots].iter().filter_map(move |slot| NonNull::new(untagged(taken(slot))))
    }

    /// Whether a thief would find something in the hand.
    pub(crate) fn has_movable_in_hand(&self) -> bool {
        self.hand.iter().any(|slot| is_movable(slot.load(Ordering::Relaxed)))
    }

    /// Queues what was woken, then tasks whose wake came during their poll. `chain` as for [`deal`](RunQueue::deal).
    ///
    /// # Safety
    /// As for [`look`](RunQueue::look), but for the hand.
    pub(crate) unsafe fn append(
        &self,
        chain: *mut Header,
        woken_tasks: &Stack,
        woken_threads: &Stack,
        tasks: &mut Fifo,
    ) {
        // SAFETY: the caller is this CPU's run loop; the chain was taken by it.
        unsafe {
            self.with(|queues| {
                queues.tasks.append_taken(chain);
                queues.take_woken(woken_tasks, woken_threads);
                queues.tasks.append(core::mem::replace(tasks, Fifo::new()));
            });
        }
    }

    /// Queues tasks whose turn was next.
    ///
    /// # Safety
    /// As for [`append`](RunQueue::append).
    pub(crate) unsafe fn prepend(&self, mut tasks: Fifo) {
        // SAFETY: the caller is this CPU's run loop.
        unsafe {
            self.with(|queues| {
                queues.left += tasks.len();
                tasks.append(core::mem::replace(&mut queues.tasks, Fifo::new()));
                queues.tasks = tasks;
            });
        }
    }

    /// Queues a thread again whose wake came during its poll: at the front while it has slots left of the *n* in
    /// a row that its nice factor gives it, else at the end.
    ///
    /// # Safety
    /// As for [`append`](RunQueue::append), and the thread is in no queue.
    pub(crate) unsafe fn push_thread_again(&self, thread: *mut Header, nice: u8) {
        // SAFETY: the caller is this CPU's run loop, and the thread is free.
        unsafe { self.with(|queues| queues.push_thread_again(thread, nice)) };
    }

    /// How many tasks and threads are ready here beside the one that is polled, as a hint. Any context.
    pub(crate) fn len(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.len_of_hand()
    }

    fn len_of_hand(&self) -> usize {
        self.hand.iter().filter(|slot| !slot.load(Ordering::Relaxed).is_null()).count()
    }
}

/// In a hand, bit 0 of a pointer says that the task is pinned: thieves may not look into a task to find out.
const PINNED_TAG: usize = 1;

fn tagged(task: *mut Header, pinned: bool) -> *mut Header {
    task.map_addr(|address| address | if pinned { PINNED_TAG } else { 0 })
}

#[inline]
fn untagged(task: *mut Header) -> *mut Header {
    task.map_addr(|address| address & !PINNED_TAG)
}

fn is_movable(task: *mut Header) -> bool {
    !task.is_null() && task.addr() & PINNED_TAG == 0
}

impl Queues {
    #[inline]
    fn take_woken(&mut self, tasks: &Stack, threads: &Stack) {
        // SAFETY: the chains were just taken.
        unsafe {
            self.tasks.append_taken(tasks.take());
            self.threads.append_taken(threads.take());
        }
    }

    /// Takes out the first thread, and counts its slots.
    fn pop_thread(&mut self) -> Option<*mut Header> {
        let thread = self.threads.pop()?;
        self.slots = if self.last == thread { self.slots.saturating_add(1) } else { 1 };
        self.last = thread;
        Some(thread)
    }

    /// Puts a thread back: to the front while it has slots left, else to the end.
    ///
    /// # Safety
    /// As for [`Stack::push`].
    unsafe fn push_thread_again(&mut self, thread: *mut Header, nice: u8) {
        // SAFETY: the caller's thread.
        unsafe {
            if self.last == thread && self.slots < nice {
                self.threads.push_front(thread);
            } else {
                self.threads.push_back(thread);
            }
        }
    }

    /// See [`RunQueue::deal`].
    fn deal(&mut self, hand: &[AtomicPtr<Header>; HAND], most: usize) -> Option<(*mut Header, usize)> {
        if self.left == 0 {
            if core::mem::take(&mut self.thread_due)
                && let Some(thread) = self.pop_thread()
            {
                return Some((thread, 0));
            }
            self.left = self.tasks.len();
            self.thread_due = true;
        }
        let order = order::order();
        let first = match order {
            None => self.tasks.pop(),
            Some(order) => self.tasks.pop_lowest(order),
        };
        let Some(first) = first else {
            self.left = 0;
            self.thread_due = false;
            return self.pop_thread().map(|thread| (thread, 0));
        };
        self.left -= 1;
        if order.is_some() {
            // What is woken in this poll may come before all others.
            return Some((first, 0));
        }
        let dealt = self.left.min(most - 1).min(HAND).min(self.tasks.len());
        self.tasks.fill(&hand[..dealt]);
        self.left -= dealt;
        Some((first, dealt))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
