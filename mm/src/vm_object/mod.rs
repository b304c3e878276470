//! Objects: pages by index, a pager behind them, and the mappings that show them.
//!
//! Everything that happens to a page happens under the object's lock, so two operations that meet on a page
//! come one after the other; the state table in `page_state` says what the second finds. What can meet and
//! is not on one page, or crosses a wait:
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | fault, fault on one page | the second finds `Loading` and waits for the same load, or finds the page |
//! | fault, load done | see `page_request` |
//! | fault's commit, eviction or release | both hold the object's lock: the page is shown or gone, never both |
//! | fault's commit, unmap or protect | the generation number, compared under the table's lock: the commit starts over, or the other clears after it |
//! | eviction, touch | the page keeps its frame until all CPUs were waited for; a touch meanwhile keeps it, see `page_state` |
//! | eviction, eviction | one batch at a time: whoever takes a page out has waited after it was marked |
//! | drop, touch | the touch waits until no CPU uses the old frame, then it makes or loads the page anew |
//! | eviction, unmap | both clear the page's entry under object and table lock; the second finds it empty. The mapping leaves the object's list only after its pages are cleared |
//! | eviction, load of the same page | a page being loaded is not listed; a listed page is compared with its frame again under the lock |
//! | release or invalidate, load | `LoadingInvalidated`: the data is thrown away when it comes |
//! | store, anything | see `store_request`; what was written since is what page tables and entry say together, see `page_state` |
//! | store, unmap or remap | what CPUs still write by a place that is gone, no page table tells: a store waits for them first |
//! | mark, write | the write takes the page out of its step between, or a page table says at the second step that it was written |
//! | mark, mark; mark, eviction | one batch at a time: whoever ends the second step has waited after the first |
//! | discard, mark or eviction | the second step finds another page, or none, and does nothing |
//! | flush, anything | see `flush` |
//! | overlay, base | see `overlay`, and `family` for their one pager |
//! | close, anything | see `close` |
//! | last user of the object goes, load | the request ends without the object, and frees its frame |

mod advised;
mod ahead;
mod close;
mod copy;
mod dropped;
mod eviction;
mod family;
mod flush;
mod mark;
mod neighbours;
mod overlay;
mod shown;
mod store;
mod stored;
mod touch;
mod written;

pub(crate) use ahead::{Streams, WINDOW};
pub(crate) use copy::piece;
pub(crate) use eviction::Judge;
pub use flush::FlushError;
pub(crate) use neighbours::Around;
pub(crate) use shown::ObjectRoom;
pub use store::StoreError;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::fallible::{Shared, room_for_arc};
use crate::frame::{ListedPage, Moment, PageList};
use crate::memory::Counters;
use crate::ordered_map::{OrderedMap, Room};
use crate::page_index_map::PageIndexMap;
use crate::page_state::{PageEntry, PageState};
use crate::reverse_map::ReverseMap;
use crate::trace::{Event, ObjectName, Owner, PagerName};
use crate::transfer::Transfer;
use crate::{Frame, Memory, OutOfMemory, PageError, PageEvent, PageIndex, PageRequest, Pager};
use executor::lock::SpinLock;
use executor::sync::Mutex;

/// Pages by index, and what fills them. Any number of address spaces may map any parts of it.
pub struct VmObject {
    memory: &'static Memory,
    /// What frame records call it.
    number: u32,
    pages: u64,
    /// `None`: pages are zero until they are written.
    pager: Option<Arc<dyn Pager>>,
    /// Whether the pager took several pages at once when the object was made: faults ask with locks held, so not it.
    is_in_ranges: bool,
    /// What an overlay lies over; see `overlay`.
    base: Option<Arc<VmObject>>,
    /// The moment since which the page that left last is in no page table; 0 before the first. Until that is over, a
    /// CPU may still read it by what it remembers.
    left: AtomicU64,
    /// Which pages were stored is known to the base, of its overlays' as well. After the locks of objects.
    stored: SpinLock<stored::StoredPages>,
    /// Of a base: held by who flushes it or an overlay of it, from the stores to the last mark. Nobody else waits for it.
    flushing: Mutex<()>,
    inner: SpinLock<Inner>,
}

/// What the object's lock guards.
struct Inner {
    pages: PageIndexMap,
    /// Frames that pages have.
    resident: u64,
    mappings: ReverseMap,
    /// Since when a written page is in a page table no more that had it last. Until that is over, a CPU may still write
    /// to it by what it remembers, and no page table says so.
    hidden: Option<Moment>,
    streams: ahead::Streams,
    /// Pages that are being read ahead, and that nobody waits for.
    ahead: usize,
    /// Those who close the object or have closed it. While there are any, touches are denied.
    closers: usize,
    /// Of a base: the numbers of its overlays.
    overlays: OrderedMap<u32, ()>,
    /// Of a base: stores of overlays' pages that are with the pager.
    above: Vec<Shared<Transfer>>,
}

/// Numbers of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectStats {
    /// Pages that have a frame.
    pub resident: u64,
    /// Loads and stores under way.
    pub transfers: usize,
    /// Mappings that show a part of the object.
    pub mappings: usize,
}

impl VmObject {
    /// An object of `pages` pages that `pager` loads. At most 2^51 pages.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    pub fn try_new(
        memory: &'static Memory,
        pager: Arc<dyn Pager>,
        pages: u64,
    ) -> Result<Arc<Self>, OutOfMemory> {
        Self::make(memory, Some(pager), pages, None)
    }

    /// An object of `pages` pages that are zero until they are written. Nothing can load them again, so
    /// they are never given back under pressure.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    pub fn try_zero(memory: &'static Memory, pages: u64) -> Result<Arc<Self>, OutOfMemory> {
        Self::make(memory, None, pages, None)
    }

    /// Like [`try_new`](Self::try_new), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full.
    pub fn new(memory: &'static Memory, pager: Arc<dyn Pager>, pages: u64) -> Arc<Self> {
        Self::try_new(memory, pager, pages).expect("there is memory for an object")
    }

    /// Like [`try_zero`](Self::try_zero), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full.
    pub fn zero(memory: &'static Memory, pages: u64) -> Arc<Self> {
        Self::try_zero(memory, pages).expect("there is memory for an object")
    }

    fn make(
        memory: &'static Memory,
        pager: Option<Arc<dyn Pager>>,
        pages: u64,
        base: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, OutOfMemory> {
        assert!(pages <= 1 << 51, "an object's byte offsets fit 63 bits");
        let room = Room::try_new()?;
        room_for_arc::<Self>()?;
        let is_in_ranges = pager.as_ref().is_some_and(|pager| pager.pages_at_once() > 1);
        Ok(Arc::new_cyclic(|object| {
            let number = memory.register(room, object);
            if let Some(pager) = pager.as_ref().filter(|_| memory.is_recorded()) {
                memory.tell(Event::Made(ObjectName::object(number), PagerName::new(pager.name())));
            }
            let owner = Owner { memory, name: ObjectName::object(number) };
            Self {
                memory,
                number,
                pages,
                pager,
                is_in_ranges,
                base,
                left: AtomicU64::new(0),
                stored: SpinLock::new("stored pages", stored::StoredPages::default()),
                flushing: Mutex::new(()),
                inner: SpinLock::new(
                    "object",
                    Inner {
                        pages: PageIndexMap::new(owner, pages),
                        resident: 0,
                        mappings: ReverseMap::default(),
                        hidden: None,
                        streams: ahead::Streams::default(),
                        ahead: 0,
                        closers: 0,
                        overlays: OrderedMap::default(),
                        above: Vec::new(),
                    },
                ),
            }
        }))
    }

    /// How many pages the object has, present or not.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether the object reads ahead and shows neighbours.
    #[inline]
    pub(crate) fn is_in_ranges(&self) -> bool {
        self.is_in_ranges
    }

    pub(crate) fn memory(&self) -> &'static Memory {
        self.memory
    }

    /// What frame records and events call it.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The pager's name, or `zero`.
    pub fn name(&self) -> &str {
        self.pager.as_deref().map_or("zero", Pager::name)
    }

    /// What is known about a page now. It may change at any time.
    pub fn state(&self, page: PageIndex) -> PageState {
        self.inner.lock().pages.get(page.as_u64()).state()
    }

    /// Whether a page has a frame that can be shown now.
    pub(crate) fn is_resident(&self, index: u64) -> bool {
        if let Some(base) = self.below(index) {
            return base.is_resident(index);
        }
        let state = self.state(PageIndex::new(index));
        state.frame().is_some() && !matches!(state, PageState::WritingBackDiscarded { .. })
    }

    /// The object's numbers now.
    pub fn stats(&self) -> ObjectStats {
        let inner = self.inner.lock();
        ObjectStats {
            resident: inner.resident,
            transfers: inner.pages.transfers() + inner.ahead,
            mappings: inner.mappings.len(),
        }
    }

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
    fn begin_load(
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
    fn load(&mut self, memory: &'static Memory, index: u64) -> Result<Shared<Transfer>, OutOfMemory> {
        if let Some(load) = self.pages.transfer(index) {
            return Ok(load.clone());
        }
        let load = Transfer::new(memory, index)?;
        let entry = self.pages.get(index);
        self.pages.begin_transfer(load.clone(), PageEvent::Read, entry)?;
        self.ahead -= 1;
        Ok(load)
    }

    /// A clean page was written to.
    fn make_dirty(&mut self, object: &VmObject, index: u64, frame: u64, event: PageEvent) {
        let clean = self.pages.get(index);
        self.pages.set(index, event, clean.dirtied(frame));
        object.list_dirty(index, frame);
    }

    /// Takes the frame from a page that no page table shows any more, and whose entry the caller changes. Only who
    /// has waited for all CPUs since may free it.
    fn take_out(&mut self, memory: &'static Memory, frame: u64) -> Frame {
        memory.frames().unlist(frame);
        self.resident -= 1;
        Frame::from_number(memory.frames(), frame)
    }
}

impl Drop for VmObject {
    /// Mappings keep their object, so no page table shows these pages any more; a load under way finds the object
    /// gone. A CPU may still use them, if the last mapping went with its space: the frames go into quarantine.
    fn drop(&mut self) {
        self.memory.unregister(self.number);
        if let Some(base) = &self.base {
            base.inner.lock().overlays.remove(&self.number);
        }
        let memory = self.memory;
        let inner = self.inner.get_mut();
        let (mut at, mut last) = (0, None);
        while let Some((index, entry)) = inner.pages.next_used(at..u64::MAX) {
            if let Some(frame) = entry.frame() {
                last = Some(memory.frames().quarantine(inner.take_out(memory, frame)));
            } else if let Some(load) = inner.pages.transfer(index) {
                // A request for a page that is read ahead knows nobody who waits.
                load.settle(Ok(()));
            }
            at = index + 1;
        }
        if let Some(last) = last {
            memory.forget_soon(last);
        }
    }
}

impl fmt::Debug for VmObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmObject({} {}, {} pages)", self.name(), self.number, self.pages)
    }
}
