//! Loads: how one begins, and what becomes of the page when it ends; see `page_request`.

use core::sync::atomic::Ordering::Relaxed;

use super::{Inner, VmObject};
use crate::fallible::Shared;
use crate::frame::{ListedPage, PageList};
use crate::memory::Counters;
use crate::page_state::{PageEntry, PageState};
use crate::transfer::Transfer;
use crate::{Frame, Memory, OutOfMemory, PageError, PageEvent, PageRequest};

impl VmObject {
    /// What those wait for who wait for a page that is being loaded.
    pub(crate) fn load_under_way(&self, index: u64) -> Result<Shared<Transfer>, OutOfMemory> {
        self.inner.lock().load(self.memory, index)
    }

    /// Enters what a load brought; the answer is for those who wait, as is what they wait for. `ahead` says that nobody
    /// did when it began.
    pub(crate) fn finish_load(
        &self,
        index: u64,
        result: Result<Frame, PageError>,
        ahead: bool,
    ) -> (Result<(), PageError>, Option<Shared<Transfer>>) {
        let mut answer = Ok(());
        let mut result = result.map(Some);
        let load = self.inner.lock().end_load(index, |entry| match &mut result {
            Ok(frame) => self.enter_loaded(entry, index, frame, ahead),
            Err(error) => {
                let invalidated = entry.state() == PageState::LoadingInvalidated;
                self.memory.counters.loads_invalidated.fetch_add(u64::from(invalidated), Relaxed);
                if ahead || invalidated {
                    return (PageEvent::LoadFailed, PageEntry::ABSENT);
                }
                answer = Err(*error);
                (PageEvent::LoadFailed, PageEntry::new(PageState::Failed))
            }
        });
        // A frame that nobody wants any more, with no lock held.
        drop(result);
        (answer, load)
    }

    /// As `finish_load` for several that have their frames, in order of their pages, under one hold of the lock. One keeps
    /// its frame where nobody wants it any more. Each is given what those wait for who wait for its page.
    pub(crate) fn finish_loads(&self, loads: &mut [PageRequest]) {
        let mut inner = self.inner.lock();
        inner.end_loads(
            loads,
            |load| load.index().as_u64(),
            |load, entry, transfer| {
                let (index, ahead) = (load.index().as_u64(), load.wake_at_end(transfer));
                self.enter_loaded(entry, index, load.filled(), ahead)
            },
        );
    }

    /// What becomes of the entry of a page that has come. The frame is taken where it is still wanted.
    #[inline]
    fn enter_loaded(
        &self,
        entry: PageEntry,
        index: u64,
        frame: &mut Option<Frame>,
        ahead: bool,
    ) -> (PageEvent, PageEntry) {
        if entry == PageEntry::new(PageState::LoadingInvalidated) {
            Counters::count(&self.memory.counters.loads_invalidated);
            return (PageEvent::LoadDone, PageEntry::ABSENT);
        }
        let frame = frame.take().expect("it was filled").into_number();
        self.memory.frames().list(PageList::Clean, ListedPage { frame, object: self.number, page: index });
        let entry = PageEntry::new(PageState::Loaded { frame }).with_referenced(!ahead);
        (PageEvent::LoadDone, self.entered(index, entry))
    }
}

impl Inner {
    /// A page is being loaded from now on.
    pub(super) fn begin_load(
        &mut self,
        memory: &'static Memory,
        index: u64,
        event: PageEvent,
    ) -> Result<Shared<Transfer>, OutOfMemory> {
        let load = Transfer::new(memory, index)?;
        self.pages.begin_transfer(load.clone(), event, PageEntry::new(PageState::Loading))?;
        Ok(load)
    }

    /// A page is not being loaded any more; `change` says what its entry becomes. Answers what those wait for who do.
    #[inline]
    fn end_load(
        &mut self,
        index: u64,
        change: impl FnOnce(PageEntry) -> (PageEvent, PageEntry),
    ) -> Option<Shared<Transfer>> {
        let (mut change, mut load) = (Some(change), None);
        self.end_loads(
            &mut [index],
            |&index| index,
            |_, entry, transfer| {
                load = transfer;
                change.take().expect("there is one page")(entry)
            },
        );
        load
    }

    /// The same for several pages. `change` is told what those wait for who do.
    #[inline]
    fn end_loads<T>(
        &mut self,
        loads: &mut [T],
        index: impl Fn(&T) -> u64,
        mut change: impl FnMut(&mut T, PageEntry, Option<Shared<Transfer>>) -> (PageEvent, PageEntry),
    ) {
        let Self { pages, ahead, resident, .. } = self;
        pages.end_transfers(loads, index, |load, entry, transfer| {
            *ahead -= usize::from(transfer.is_none());
            let (event, entry) = change(load, entry, transfer);
            *resident += u64::from(entry.frame().is_some());
            (event, entry)
        });
    }

    /// What a page that is being loaded is waited for by. When it is read ahead, there is nothing of the kind before the
    /// first who waits.
    pub(super) fn load(
        &mut self,
        memory: &'static Memory,
        index: u64,
    ) -> Result<Shared<Transfer>, OutOfMemory> {
        if let Some(load) = self.pages.transfer(index) {
            return Ok(load.clone());
        }
        let load = Transfer::new(memory, index)?;
        let entry = self.pages.get(index);
        self.pages.begin_transfer(load.clone(), PageEvent::Read, entry)?;
        self.ahead -= 1;
        Ok(load)
    }
}
