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
mod load;
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
use core::sync::atomic::AtomicU64;

use crate::fallible::{Shared, room_for_arc};
use crate::frame::Moment;
use crate::ordered_map::{OrderedMap, Room};
use crate::page_index_map::PageIndexMap;
use crate::page_state::PageState;
use crate::reverse_map::ReverseMap;
use crate::trace::{Event, ObjectName, Owner, PagerName};
use crate::transfer::Transfer;
use crate::{Frame, Memory, OutOfMemory, PageEvent, PageIndex, Pager};
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

/// Most pages of an object: byte offsets fit 63 bits.
pub(crate) const MOST_PAGES: u64 = 1 << 51;

impl VmObject {
    /// An object of `pages` pages that `pager` loads. At most 2^51 pages.
    ///
    /// # Errors
    /// [`OutOfMemory`] for more pages, or when the heap is full.
    pub fn try_new(
        memory: &'static Memory,
        pager: Arc<dyn Pager>,
        pages: u64,
    ) -> Result<Arc<Self>, OutOfMemory> {
        Self::make(memory, Some(pager), pages, None)
    }

    /// An object of `pages` pages that are zero until they are written. Nothing can load them again, so
    /// they are never given back under pressure. At most 2^51 pages.
    ///
    /// # Errors
    /// [`OutOfMemory`] for more pages, or when the heap is full.
    pub fn try_zero(memory: &'static Memory, pages: u64) -> Result<Arc<Self>, OutOfMemory> {
        Self::make(memory, None, pages, None)
    }

    /// Like [`try_new`](Self::try_new), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full, and for more pages.
    pub fn new(memory: &'static Memory, pager: Arc<dyn Pager>, pages: u64) -> Arc<Self> {
        Self::try_new(memory, pager, pages).expect("there is memory for an object")
    }

    /// Like [`try_zero`](Self::try_zero), for boot and for tests.
    ///
    /// # Panics
    /// When the heap is full, and for more pages.
    pub fn zero(memory: &'static Memory, pages: u64) -> Arc<Self> {
        Self::try_zero(memory, pages).expect("there is memory for an object")
    }

    fn make(
        memory: &'static Memory,
        pager: Option<Arc<dyn Pager>>,
        pages: u64,
        base: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, OutOfMemory> {
        if pages > MOST_PAGES {
            return Err(OutOfMemory);
        }
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
}

impl Inner {
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
