//! Advice: what a program says of its future use of a range.

use alloc::sync::Arc;
use core::ops::Range;

use super::AddressSpace;
use super::mappings::distance;
use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::frame::Candidate;
use crate::{Advice, MapError, VirtAddr, VmObject};

/// Pages that leave together, and that are looked at before others get a turn.
const BATCH: usize = 32;

/// A page of an object that is about to leave.
type Leaving = (Arc<VmObject>, Candidate);

impl AddressSpace {
    /// Takes advice for a range, all of which is mapped. It changes no byte that anybody sees.
    ///
    /// - `Normal`, `Sequential`, `Random` are noted for the range, moved with it and forked, for who reads ahead.
    /// - `Huge` is noted like these: private memory over zeros has pages of 2 MiB there, where a free block is to
    ///   spare when a piece of 2 MiB is written for the first time. Which other mappings have some,
    ///   [`LargePages`](crate::LargePages) says; those with `Random` have none.
    /// - `WillNeed` begins to load the pages that a pager has or that are on the swap disk, and waits for none of them: as
    ///   reading ahead does, only while there are frames to spare, and at most 256 pages of an object at a time, and of the
    ///   disk. What is left is left.
    /// - `Cold` makes the pages that are in memory the first that reclaim looks at, as not used lately. Nothing is stored or
    ///   given back now.
    /// - `DoNotNeed` drops the clean pages that a pager has, wherever they are shown. Changed pages and private ones stay.
    ///
    /// For tasks, which poll it until it is done or drop it: reclaim waits for the turns of `DoNotNeed`. See the
    /// crate's head.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `NotMapped`, and `NoMemory` where a mapping has to be
    /// split; nothing is changed then.
    ///
    /// # Cancellation
    /// What was begun goes on or stays. Of what was about to be dropped, each page is dropped or not.
    pub async fn advise(&self, range: Range<VirtAddr>, advice: Advice) -> Result<(), MapError> {
        {
            let mut mappings = self.mappings.lock();
            mappings.check_mapped(&range)?;
            if matches!(advice, Advice::Normal | Advice::Sequential | Advice::Random | Advice::Huge) {
                mappings.split(range.start, self.memory.number_mapping())?;
                mappings.split(range.end, self.memory.number_mapping())?;
                mappings.change_within(&range, |mapping| mapping.advice = advice);
                return Ok(());
            }
        }
        let mut rest = range;
        loop {
            match advice {
                Advice::WillNeed => self.begin_loads(&mut rest),
                Advice::Cold => self.cool(&mut rest),
                _ => self.drop_clean(&mut rest).await,
            }
            if rest.is_empty() {
                return Ok(());
            }
            executor::yield_now().await;
        }
    }

    /// Begins the loads of the next pages, as many as others can wait for; those that follow each other together.
    fn begin_loads(&self, rest: &mut Range<VirtAddr>) {
        let from = rest.start;
        let mut run: Option<(Arc<VmObject>, Range<u64>)> = None;
        for _ in 0..BATCH {
            let Some((object, index)) = self.next_of_object(rest) else { break };
            match &mut run {
                Some((of, pages)) if Arc::ptr_eq(of, &object) && pages.end == index => pages.end += 1,
                _ => {
                    if let Some((of, pages)) = run.replace((object, index..index + 1)) {
                        of.begin_to_load(pages);
                    }
                }
            }
        }
        if let Some((of, pages)) = run {
            of.begin_to_load(pages);
        }
        self.begin_to_bring_back(from..rest.start);
    }

    /// Begins to read what of these pages is on the swap disk.
    fn begin_to_bring_back(&self, mut pages: Range<VirtAddr>) {
        if self.memory.swap().is_none() {
            return;
        }
        while !pages.is_empty() {
            let shown = {
                let mappings = self.mappings.lock();
                let mapping = mappings.at(pages.start).filter(|mapping| mapping.going.is_none());
                mapping.map(|mapping| {
                    let first = mapping.first + distance(mapping.start, pages.start);
                    let count = distance(pages.start, mapping.end().min(pages.end));
                    (mapping.shows.clone(), first..first + count)
                })
            };
            let count = shown.as_ref().map_or(1, |(_, indexes)| indexes.end - indexes.start);
            pages.start = pages.start.page_add(count);
            if let Some((Backing::Private(object, version), indexes)) = shown {
                object.begin_to_bring_back(version, indexes);
            }
        }
    }

    /// Makes the next pages the first that go, the last of the range first.
    fn cool(&self, rest: &mut Range<VirtAddr>) {
        for _ in 0..BATCH {
            if rest.is_empty() {
                return;
            }
            let page = VirtAddr::truncated(rest.end.as_u64() - PAGE_BYTES);
            rest.end = page;
            let shown = {
                let mappings = self.mappings.lock();
                let mapping = mappings.at(page).filter(|mapping| mapping.going.is_none());
                mapping.map(|mapping| (mapping.shows.clone(), mapping.first + distance(mapping.start, page)))
            };
            if let Some((shows, index)) = shown {
                shows.cool(index);
            }
        }
    }

    /// Drops the next clean pages, at most a batch.
    async fn drop_clean(&self, rest: &mut Range<VirtAddr>) {
        let _turn = self.memory.two_steps.lock().await;
        let mut leaving: [Option<Leaving>; BATCH] = [const { None }; BATCH];
        for place in &mut leaving {
            let Some((object, index)) = self.next_of_object(rest) else { break };
            *place = object.begin_to_drop(index).map(|leaving| (object, leaving));
        }
        if leaving.iter().any(Option::is_some) {
            self.memory.settle().await;
            for (object, leaving) in leaving.into_iter().flatten() {
                object.end_evictions(&mut [leaving]);
            }
        }
    }

    /// The next page in a range that shows an object's page, which may have no frame now; it and what is before it is taken
    /// off the front. `None` when there is none, or so many were looked at that others should get a turn.
    fn next_of_object(&self, rest: &mut Range<VirtAddr>) -> Option<(Arc<VmObject>, u64)> {
        for _ in 0..BATCH {
            if rest.is_empty() {
                return None;
            }
            let page = rest.start;
            rest.start = page.page_add(1);
            let shown = {
                let mappings = self.mappings.lock();
                let mapping = mappings.at(page).filter(|mapping| mapping.going.is_none());
                mapping.map(|mapping| (mapping.shows.clone(), mapping.first + distance(mapping.start, page)))
            };
            if let Some(found) = shown.and_then(|(shows, index)| shows.object_page(index)) {
                return Some(found);
            }
        }
        None
    }
}
