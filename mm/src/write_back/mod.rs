//! Write-back: dirty pages are stored before anybody has to wait for that, the oldest first, and with those beside them.
//!
//! Above the *dirty limit*, writes that would make one more page dirty are parked in order of their arrival, until pages have
//! become clean. A background task, the [`writer`], begins at half the limit. [`clean_oldest`] is for who needs frames at
//! any time.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | write to a clean page, limit | the write waits with nothing held, and looks again at everything then |
//! | write to a dirty page, limit | goes on: it makes no more pages dirty |
//! | writes that wait, page that becomes clean | as many are resumed as there is room for, those that wait longest first; who comes at that moment may be faster, and who is resumed for room that another was resumed for and has not taken yet goes behind the others |
//! | store, write | the page stays dirty and is the youngest of all |
//! | store by write-back, store or flush by somebody else | as for any two stores: the second waits for the first |
//! | store that fails | the page stays dirty and is the youngest, so others are next; the error is kept for the next flush of its object |
//! | nothing can be stored | nobody is parked any more: what is dirty takes frames until there are none, and that is waited for as ever. The writer tries again after a pause, which doubles from 10 ms to 1 s; when something becomes clean, the limit holds again |
//! | CPUs that are long in coming | a turn goes on until a page is clean or with its pager, or there is none, for up to a second |
//! | store that was begun by one who waits for memory before the pager has it | the same: after a second somebody is ended for memory, and both go on |
//! | page that is written all the time | is stored twice in a turn at most, and believed to become clean three times by the reclaimer; where its disk is slow, that waits for it for five seconds |
//! | store that ends, turn that waits for it | the page is marked in that turn; the reclaimer looks again before it ends anybody |
//! | device that takes longer than a turn, or does not answer | a turn ends after 50 ms and leaves its stores to themselves; the next begins with marking what was stored, and stores others |
//! | full heap | requests come from the heap's reserve ([`Hardware::with_reserve`](crate::Hardware::with_reserve)) |
//! | the turn of a task, which is dropped | stores go on; pages that were stored count as clean at the next turn |
//! | last user of an object goes | its dirty pages go with it, stored or not: who wants them flushes before |
//!
//! Where there is no writer, there is no limit.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use core::time::Duration;

use executor::{WaitQueue, WaitReason};

use crate::Memory;
use crate::frame::PageList;

/// Pages that are stored together.
const CLUSTER: u64 = 32;
/// The longest turn of one who waits for stores.
const TURN: Duration = Duration::from_millis(50);
/// As many turns are waited for CPUs that are long in coming, and for what was begun but is not with its pager yet.
const TURNS: usize = 20;
/// The writer's pauses when nothing could be stored.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// What write-back knows of one memory.
pub(crate) struct WriteBack {
    /// The dirty limit, in pages.
    limit: AtomicUsize,
    /// Somebody stores what is above the limit.
    is_written: AtomicBool,
    /// Nothing can be stored now, so nobody waits for that.
    is_stuck: AtomicBool,
    /// Pages that pagers are storing.
    writing: AtomicUsize,
    /// Stores that pagers have ended so far, well or not.
    ended: AtomicU64,
    /// Stores that pagers have ended well so far.
    stored: AtomicU64,
    /// Pages that have become clean so far, whoever has marked them.
    marked: AtomicU64,
    /// Pages that write-back has made clean so far.
    cleaned: AtomicU64,
    parked: WaitQueue,
    /// The writer waits here.
    wanted: WaitQueue,
    /// For who waits for stores that others have begun.
    store_ended: WaitQueue,
}

/// Numbers of write-back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteBackStats {
    /// Dirty pages of objects with a pager, those that are being stored among them.
    pub dirty: usize,
    /// Pages that pagers are storing.
    pub writing: usize,
    /// The dirty limit, in pages.
    pub limit: usize,
    /// Writes that wait for pages to become clean.
    pub parked: usize,
    /// Pages that pagers have stored so far, whoever asked for that.
    pub stored: u64,
    /// Pages that write-back has made clean so far.
    pub cleaned: u64,
}

impl WriteBack {
    /// A quarter of so many frames is the limit at first.
    pub(crate) fn new(frames: usize) -> Self {
        Self {
            limit: AtomicUsize::new((frames / 4).max(1)),
            is_written: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            writing: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            parked: WaitQueue::new(WaitReason::Memory),
            wanted: WaitQueue::new(WaitReason::Channel),
            store_ended: WaitQueue::new(WaitReason::Page),
        }
    }

    /// A page is handed over to its pager.
    pub(crate) fn begin_store(&self) {
        self.writing.fetch_add(1, AcqRel);
    }

    /// How many stores have ended so far.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Pages have become clean.
    pub(crate) fn note_marked(&self, pages: usize) {
        self.marked.fetch_add(pages as u64, Relaxed);
    }

    /// How many pages have become clean so far.
    pub(crate) fn marked(&self) -> u64 {
        self.marked.load(Relaxed)
    }

    /// A pager has ended a store.
    pub(crate) fn end_store(&self, well: bool) {
        self.stored.fetch_add(u64::from(well), Release);
        self.writing.fetch_sub(1, AcqRel);
        self.ended.fetch_add(1, Release);
        self.store_ended.wake_all();
    }
}

impl Memory {
    /// What write-back does now. The numbers are not taken at one instant.
    pub fn write_back_stats(&self) -> WriteBackStats {
        let WriteBack { limit, writing, cleaned, parked, .. } = &self.write_back;
        WriteBackStats {
            dirty: self.dirty(),
            writing: writing.load(Relaxed),
            limit: limit.load(Relaxed),
            parked: parked.len(),
            stored: self.stored(),
            cleaned: cleaned.load(Relaxed),
        }
    }

    /// Chooses the dirty limit, in pages; at least 1. Who waits looks again.
    pub fn set_dirty_limit(&self, pages: usize) {
        self.write_back.limit.store(pages.max(1), Relaxed);
        self.write_back.wanted.wake_one();
        self.resume_writes();
    }

    /// Pages that write-back has made clean so far.
    pub(crate) fn cleaned(&self) -> u64 {
        self.write_back.cleaned.load(Relaxed)
    }

    /// Pages that pagers have stored so far.
    pub(crate) fn stored(&self) -> u64 {
        self.write_back.stored.load(Acquire)
    }

    /// Whether pagers are storing pages.
    pub(crate) fn is_storing(&self) -> bool {
        self.write_back.writing.load(Acquire) > 0
    }

    fn dirty(&self) -> usize {
        self.pool().dirty()
    }

    /// Whether one more page may become dirty now. Called with locks of objects held.
    #[inline]
    pub(crate) fn may_dirty(&self) -> bool {
        let write_back = &self.write_back;
        if !write_back.is_written.load(Relaxed) {
            return true;
        }
        let (dirty, limit) = (self.dirty(), write_back.limit.load(Relaxed));
        if dirty >= limit / 2 {
            write_back.wanted.wake_one();
        }
        dirty < limit || write_back.is_stuck.load(Acquire)
    }

    /// Waits until one more page may become dirty. Who does not make one so, because it is dirty by now, resumes the next
    /// ([`resume_writes`](Self::resume_writes)).
    ///
    /// # Cancellation
    /// Leaves the queue; a turn that was given goes to the next.
    pub(crate) async fn wait_to_dirty(&self) {
        self.write_back.parked.wait_for(|| self.may_dirty().then_some(())).await;
    }

    /// Resumes as many parked writes as there is room for. For whoever made pages clean, or dropped them, or was resumed.
    pub(crate) fn resume_writes(&self) {
        let room = self.write_back.limit.load(Relaxed).saturating_sub(self.dirty());
        for _ in 0..room {
            if !self.write_back.parked.wake_one() {
                return;
            }
        }
    }
}

/// The background task that stores dirty pages when there are more than half the limit: spawned once for each [`Memory`].
///
/// # Cancellation
/// May be dropped at any time; writes above the limit may then wait until somebody marks, flushes or drops pages.
pub async fn writer(memory: &'static Memory) -> ! {
    let write_back = &memory.write_back;
    write_back.is_written.store(true, Relaxed);
    let mut pause = PAUSES[0];
    loop {
        let is_wanted = || (memory.dirty() > write_back.limit.load(Relaxed) / 2).then_some(());
        write_back.wanted.wait_for(is_wanted).await;
        if clean_oldest(memory, CLUSTER as usize).await > 0 {
            write_back.is_stuck.store(false, Release);
            pause = PAUSES[0];
            continue;
        }
        write_back.is_stuck.store(true, Release);
        write_back.parked.wake_all();
        executor::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// Stores dirty pages, the oldest first, until `target` of them became clean or each was looked at once, at most for a
/// turn of 50 ms; where no page is clean or with a pager by then, because CPUs are long in coming, until one is, for up to 20
/// turns. Returns how many became clean, or are with pagers. 0 means that nothing can be stored at present. For tasks, as
/// [`reclaim`](crate::reclaim()) is.
///
/// # Cancellation
/// What is with pagers goes on.
pub async fn clean_oldest(memory: &'static Memory, target: usize) -> usize {
    let write_back = &memory.write_back;
    let before = write_back.cleaned.load(Relaxed);
    let done = || (write_back.cleaned.load(Relaxed) - before) as usize + write_back.writing.load(Acquire);
    let mut turn = core::pin::pin!(turn(memory, target));
    for _ in 0..TURNS {
        if executor::time::timeout(TURN, &mut turn).await.is_ok() || done() > 0 {
            break;
        }
    }
    if !write_back.parked.is_empty() {
        // What others made clean, or dropped, is room, too. Those that the turn has resumed take up theirs first: who
        // is resumed in vain goes behind the others.
        executor::yield_now().await;
        memory.resume_writes();
    }
    done()
}

async fn turn(memory: &'static Memory, target: usize) {
    let write_back = &memory.write_back;
    let mut again = true;
    loop {
        let stored = memory.stored();
        if store_oldest(memory, target).await > 0 {
            return;
        }
        let ended = write_back.ended.load(Acquire);
        if again && memory.stored() != stored {
            // It only needs to be marked. What was stored twice in a row and is not clean is being written all the time.
            again = false;
        } else if memory.is_storing() {
            // Others have begun what there is to do. What has failed meanwhile was tried.
            let another = || (write_back.ended.load(Acquire) != ended).then_some(());
            write_back.store_ended.wait_for(another).await;
            again = true;
        } else {
            return;
        }
    }
}

/// Marks what pagers have stored, whoever has asked them to. Where it was written since, it waits for its turn to be stored
/// again. Returns how many became clean.
async fn mark_stored(memory: &'static Memory) -> usize {
    let mut cleaned = 0;
    for _ in 0..memory.frames().listed(PageList::Stored) {
        let Some(stored) = memory.frames().oldest(PageList::Stored) else { break };
        let Some(object) = memory.object(stored.object) else { continue };
        let Some(pages) = object.stored_around(stored.page, stored.frame, CLUSTER) else { continue };
        cleaned += count(memory, object.mark_stored(pages).await);
    }
    cleaned
}

/// Returns how many became clean.
async fn store_oldest(memory: &'static Memory, target: usize) -> usize {
    let mut cleaned = mark_stored(memory).await;
    let mut looks = memory.frames().listed(PageList::Dirty);
    while looks > 0 && cleaned < target {
        looks -= 1;
        let Some(oldest) = memory.frames().oldest(PageList::Dirty) else { break };
        let Some(object) = memory.object(oldest.object) else { continue };
        let Some(pages) = object.dirty_around(oldest.page, oldest.frame, CLUSTER) else { continue };
        looks = looks.saturating_sub((pages.end.as_u64() - pages.start.as_u64()) as usize - 1);
        // A mark that was cut short, with its turn, may need no more than that.
        cleaned += count(memory, object.mark_stored(pages.clone()).await);
        // An error is kept for the flush that covers it; pages that could be stored count as clean all the same.
        let _kept = object.store_by_reserve(pages.clone()).await;
        cleaned += count(memory, object.mark_stored(pages).await);
    }
    cleaned
}

fn count(memory: &Memory, pages: usize) -> usize {
    memory.write_back.cleaned.fetch_add(pages as u64, Relaxed);
    memory.resume_writes();
    pages
}
