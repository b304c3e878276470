//! Swapping out: pages are taken out of page tables in batches, all CPUs are waited for once, and what is still unused
//! is written in clusters, several at a time.

use core::sync::atomic::{AtomicU64, Ordering};

use executor::time::{self, Instant};

use super::write::{Cluster, SwapWrite};
use super::{Before, SwapArea, count};
use crate::Memory;
use crate::frame::{Candidate, ListedPage, Outcome, PageList};

/// Pages that leave with one wait for all CPUs.
const BATCH: usize = 64;

/// Pages that leave together.
struct Batch {
    pages: [ListedPage; BATCH],
    count: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { pages: [ListedPage::default(); BATCH], count: 0 }
    }
}

impl Batch {
    /// As many of them as there is room for.
    fn add_all(&mut self, candidates: &[Candidate]) {
        for (place, candidate) in self.pages[self.count..].iter_mut().zip(candidates) {
            *place = candidate.page;
            self.count += 1;
        }
    }

    fn add(&mut self, candidates: &[Candidate]) {
        let leaving = candidates.iter().filter(|candidate| candidate.outcome == Outcome::Leaving);
        for candidate in leaving {
            self.pages[self.count] = candidate.page;
            self.count += 1;
        }
    }
}

/// Puts those first that are wanted, and answers how many they are.
fn bring_forward(candidates: &mut [Candidate], is_wanted: impl Fn(&Candidate) -> bool) -> usize {
    let mut wanted = 0;
    for number in 0..candidates.len() {
        if is_wanted(&candidates[number]) {
            candidates.swap(number, wanted);
            wanted += 1;
        }
    }
    wanted
}

/// Puts the pages first that are not the same as the one before, in order, and answers how many they are.
fn unique(pages: &mut [ListedPage]) -> usize {
    let mut count = 0;
    for number in 0..pages.len() {
        if count == 0 || pages[number] != pages[count - 1] {
            pages[count] = pages[number];
            count += 1;
        }
    }
    count
}

/// Frees up to `target` frames of private memory by writing their pages to swap, or a few more, those unused for longest
/// first. Pages that are zeros, or that their slots still hold, are not written. Returns how many frames were freed since
/// the call began, by whomever; 0 when nothing can be freed: then there is no swap, or it is full, or fails, or all pages
/// are in use. Waits for the disk only where nothing is free yet. Looks at each page as often as the policy has it at most.
/// For tasks, as [`reclaim`](crate::reclaim()) is.
///
/// # Cancellation
/// Pages that are being written leave all the same; those that were about to stay until they are touched or this is
/// called again.
pub async fn swap_out(memory: &'static Memory, target: usize) -> usize {
    swap_out_some(memory, target, &mut None, None).await
}

/// The same in pieces, each of which goes on until some have left, or `until` is over and some were looked at. `looks` is how
/// many looks at pages are left: `None` before that is known, and 0 when all were looked at as often as the policy has
/// it. Given to the next call, that one goes on.
pub(crate) async fn swap_out_some(
    memory: &'static Memory,
    target: usize,
    looks: &mut Option<usize>,
    until: Option<Instant>,
) -> usize {
    let Some(area) = memory.swap() else { return 0 };
    area.list_those_before().await;
    let before = area.freed.load(Ordering::Acquire);
    let freed = || area.freed.load(Ordering::Acquire).wrapping_sub(before);
    let all = || memory.frames().stats().anonymous * memory.policy().looks();
    let looks = looks.get_or_insert_with(all);
    let is_over = || until.is_some_and(|until| time::now() >= until);
    loop {
        while *looks > 0 && area.writing.load(Ordering::Acquire) + freed() < target {
            if !area.has_clusters() {
                break;
            }
            area.begin(looks).await;
            if is_over() {
                break;
            }
            executor::yield_now().await;
        }
        let seen = freed();
        if seen > 0 {
            return seen;
        }
        let ended = || (area.writing.load(Ordering::Acquire) == 0 || freed() > 0).then_some(());
        let wait = area.ends.wait_for(ended);
        match until {
            None => wait.await,
            // What is being written goes on.
            Some(until) => {
                if time::timeout_at(until, wait).await.is_err() {
                    return freed();
                }
            }
        }
        if freed() == 0 && (*looks == 0 || is_over()) {
            return 0;
        }
    }
}

/// Writes of swap.
#[derive(Default)]
pub(crate) struct SwapWrites {
    pub(crate) are_under_way: bool,
    /// Pages that have left so far.
    pub(crate) left: u64,
    /// Pages whose writes have ended so far, well or not.
    pub(crate) ended: u64,
}

impl SwapArea {
    /// Lists the pages of private memory that was there before swap was: once, in pieces. Who drops this leaves the rest to
    /// the next.
    async fn list_those_before(&'static self) {
        if self.has_listed.load(Ordering::Acquire) {
            return;
        }
        let mut next = self.before.lock().await;
        while let Some((number, object)) = self.memory.private_object_from(next.object)
            && number < self.end_of_before.load(Ordering::Acquire)
        {
            let from = if number == next.object { next.page } else { 0 };
            *next = match object.begin_to_swap(number, self, from) {
                Some(page) => Before { object: number, page },
                None => Before { object: number + 1, page: 0 },
            };
            drop(object);
            executor::yield_now().await;
        }
        self.has_listed.store(true, Ordering::Release);
    }

    /// What is being written, and has been.
    pub(crate) fn writes(&self) -> SwapWrites {
        let ended = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SwapWrites {
            are_under_way: self.writing.load(Ordering::Acquire) > 0,
            left: self.freed.load(Ordering::Acquire) as u64,
            ended: ended(&self.counters.pages_out).wrapping_add(ended(&self.counters.failed_out)),
        }
    }

    /// Whether there is no slot for another page.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.lock().counts().0 == 0
    }

    /// The most slots of one request.
    pub(crate) fn slots_at_once(&self) -> u64 {
        self.store.slots_at_once().max(1) as u64
    }

    fn has_clusters(&self) -> bool {
        self.clusters.lock().len() >= BATCH.div_ceil(Cluster::PAGES)
    }

    /// Takes the oldest pages out of page tables, and writes those out that nobody touches until all CPUs know.
    async fn begin(&self, looks: &mut usize) {
        let memory = self.memory;
        let _turn = memory.two_steps.lock().await;
        let mut batch = self.take_out(looks);
        if batch.count > 0 {
            memory.forgotten(memory.frames().moment()).await;
            self.write_out(&mut batch);
        }
    }

    /// Looks at the oldest pages until enough leave.
    fn take_out(&self, looks: &mut usize) -> Batch {
        let memory = self.memory;
        let mut batch = Batch::default();
        let mut staying = Batch::default();
        let mut candidates = [Candidate::default(); BATCH];
        // Without a slot to write to, only those leave that have theirs; where none does, those that stay give it up.
        let full = self.is_full();
        let most = (*looks).min(4 * BATCH);
        let mut looked = 0;
        while looked < most && batch.count < BATCH {
            let places = &mut candidates[..(most - looked).min(BATCH - batch.count)];
            let found = memory.frames().next_to_look_at(PageList::Anonymous, memory.policy(), places);
            if found == 0 {
                *looks = 0;
                break;
            }
            looked += found;
            let mut found = &mut candidates[..found];
            if full {
                let leavers = bring_forward(found, |candidate| self.kept.has_slot(candidate.page.frame));
                found = &mut found[..leavers];
            }
            for of_object in found.chunk_by_mut(|one, next| one.page.object == next.page.object) {
                let object = memory.private_object(of_object[0].page.object);
                if object.is_some_and(|object| object.begin_swap_outs(self, of_object) > 0) {
                    batch.add(of_object);
                } else if full {
                    staying.add_all(of_object);
                }
            }
        }
        // Looks that have brought slots do not count: others are to be looked at once more.
        if batch.count > 0 || !self.take_slots(&staying) {
            *looks = looks.saturating_sub(looked);
        }
        batch
    }

    /// Takes the slots of pages that are in use and were only read since they came in. Whether there were any.
    fn take_slots(&self, pages: &Batch) -> bool {
        let gives = |page: &&ListedPage| {
            let object = self.memory.private_object(page.object);
            object.is_some_and(|object| object.give_slot_up(self, page.page, page.frame))
        };
        pages.pages[..pages.count].iter().filter(gives).count() > 0
    }

    /// What nobody has touched leaves: at once, or when it is written. Neighbours in memory become neighbours on disk.
    fn write_out(&self, batch: &mut Batch) {
        let pages = &mut batch.pages[..batch.count];
        let (mut from, mut dirty) = (0, 0);
        while let Some(ListedPage { object, .. }) = pages.get(from).copied() {
            let more = pages[from..].iter().take_while(|page| page.object == object).count();
            let object = self.memory.private_object(object);
            let left = object.map_or(0, |object| object.leave(self, &mut pages[from..from + more]));
            pages.copy_within(from..from + left, dirty);
            dirty += left;
            from += more;
        }
        let pages = &mut pages[..dirty];
        pages.sort_unstable_by_key(|page| (page.object, page.page, page.frame));
        // A short list may have been looked through twice.
        let dirty = unique(pages);
        let mut rest = &pages[..dirty];
        while !rest.is_empty() {
            let begun = self.write_some(rest);
            if begun == 0 {
                break;
            }
            rest = &rest[begun..];
        }
        for page in rest {
            if let Some(object) = self.memory.private_object(page.object) {
                object.stay(page.page, page.frame);
            }
        }
    }

    /// Begins to write the first of some pages to slots in a row. Answers how many are done with: 0 when there is no
    /// room.
    fn write_some(&self, pages: &[ListedPage]) -> usize {
        let most = self.store.slots_at_once().clamp(1, Cluster::PAGES).min(pages.len());
        let Some(mut cluster) = self.clusters.lock().pop() else { return 0 };
        let run = self.slots.lock().take(most);
        let Some((first, slots)) = run else {
            self.clusters.lock().push(cluster);
            return 0;
        };
        let (mut used, mut looked) = (0, 0);
        while used < slots && looked < pages.len() {
            let page = pages[looked];
            looked += 1;
            let object = self.memory.private_object(page.object);
            let slot = (first + used) as u64;
            if object.is_some_and(|object| object.begin_write(self, page.page, page.frame, slot)) {
                cluster.push(page);
                used += 1;
            }
        }
        (first + used..first + slots).for_each(|unused| self.give_back(unused as u64));
        if used == 0 {
            self.clusters.lock().push(cluster);
            return looked;
        }
        self.writing.fetch_add(used, Ordering::AcqRel);
        self.store.write(SwapWrite::new(self.memory, first as u64, cluster));
        looked
    }

    /// Pages have been written, or could not be.
    pub(super) fn end_writes(
        &self,
        first: u64,
        mut cluster: alloc::boxed::Box<Cluster>,
        is_written: impl Fn(usize) -> bool,
    ) {
        let mut left = 0;
        for (number, page) in cluster.pages().iter().enumerate() {
            let (slot, written) = (first + number as u64, is_written(number));
            count(if written { &self.counters.pages_out } else { &self.counters.failed_out });
            let object = self.memory.private_object(page.object);
            let ended =
                object.and_then(|object| object.end_swap_out(self, page.page, page.frame, slot, written));
            left += usize::from(ended.unwrap_or_else(|| self.end_unseen(page.frame, slot, written)));
        }
        let pages = cluster.pages().len();
        cluster.clear();
        self.clusters.lock().push(cluster);
        self.freed.fetch_add(left, Ordering::AcqRel);
        let were_last = self.writing.fetch_sub(pages, Ordering::AcqRel) == pages;
        self.ends.wake_all();
        if were_last {
            // Those who wait for memory may have nothing left to hope for.
            self.memory.frames().look_if_waiting();
        }
    }

    /// The write of a page ends that its object does not have any more. True if its frame goes.
    fn end_unseen(&self, frame: u64, slot: u64, written: bool) -> bool {
        let is_ours = self.kept.end_write_unseen(frame, written.then_some(slot));
        if is_ours || !written {
            self.give_back(slot);
        }
        if is_ours {
            let frame = crate::Frame::from_number(self.memory.frames(), frame);
            let until = self.memory.frames().quarantine(frame);
            self.memory.forget_soon(until);
        }
        is_ours
    }
}
