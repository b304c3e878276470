//! A pager that does as it is told, for tests and for showing what a stalled device does to the rest of
//! the machine: nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    FlushRequest, Frame, Memory, OutOfMemory, PAGE_SIZE, PageError, PageIndex, PageRequest, Pager, Requests,
    StoreRequest,
};
use executor::lock::SpinLock;

/// What is in the backing store: fills the bytes of the page with this number.
pub type Content = Box<dyn Fn(PageIndex, &mut [u8]) + Send + Sync>;

/// A pager over made-up contents, which remembers what is stored. Loads, stores and flushes complete at once, or when the
/// test says so; a load that is held back has no frame yet, and a store that is held back has not read its page. A flush
/// makes durable what was stored when it was asked for.
pub struct TestPager {
    this: Weak<Self>,
    memory: &'static Memory,
    content: Content,
    loads: AtomicUsize,
    stores: AtomicUsize,
    flushes: AtomicUsize,
    pages_at_once: AtomicUsize,
    inner: SpinLock<Inner>,
}

struct Inner {
    holding: bool,
    /// By page and order of arrival: several objects may share the pager.
    held_loads: BTreeMap<(u64, usize), PageRequest>,
    held_stores: BTreeMap<(u64, usize), StoreRequest>,
    held_flushes: VecDeque<HeldFlush>,
    failing_loads: Failures,
    failing_stores: Failures,
    /// So many flushes fail.
    failing_flushes: (usize, PageError),
    /// What was stored, by page.
    stored: BTreeMap<u64, Vec<u8>>,
    /// Of this, what survives the end of power.
    durable: BTreeMap<u64, Vec<u8>>,
    /// What was asked for together: the first page and how many.
    asked: Vec<(u64, usize)>,
}

/// A flush that is held back, and what it makes durable.
struct HeldFlush {
    request: FlushRequest,
    covers: BTreeMap<u64, Vec<u8>>,
}

/// How many requests fail from now on, and how.
#[derive(Default)]
struct Failures {
    by_page: BTreeMap<u64, (usize, PageError)>,
    any: Option<(usize, PageError)>,
}

impl Failures {
    fn enter(&mut self, index: Option<PageIndex>, times: usize, error: PageError) {
        match index {
            Some(index) => drop(self.by_page.insert(index.as_u64(), (times, error))),
            None => self.any = Some((times, error)),
        }
    }

    fn take(&mut self, index: PageIndex) -> Option<PageError> {
        let (times, error) = self.by_page.get_mut(&index.as_u64()).or(self.any.as_mut())?;
        *times = times.checked_sub(1)?;
        Some(*error)
    }
}

/// The first of the requests for a page that are held back.
fn take_held<R>(held: &mut BTreeMap<(u64, usize), R>, index: PageIndex) -> Option<R> {
    let first = held.range((index.as_u64(), 0)..).next().map(|(&key, _)| key);
    first.filter(|key| key.0 == index.as_u64()).and_then(|key| held.remove(&key))
}

impl TestPager {
    /// A pager that completes each load at once with what `content` makes.
    pub fn new(memory: &'static Memory, content: Content) -> Arc<Self> {
        let inner = Inner {
            holding: false,
            held_loads: BTreeMap::new(),
            held_stores: BTreeMap::new(),
            held_flushes: VecDeque::new(),
            failing_loads: Failures::default(),
            failing_stores: Failures::default(),
            failing_flushes: (0, PageError::Io),
            stored: BTreeMap::new(),
            durable: BTreeMap::new(),
            asked: Vec::new(),
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            memory,
            content,
            loads: AtomicUsize::new(0),
            stores: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
            pages_at_once: AtomicUsize::new(1),
            inner: SpinLock::new("test pager", inner),
        })
    }

    /// From now on loads, stores and flushes are held back.
    pub fn hold(&self) {
        self.inner.lock().holding = true;
    }

    /// Completes the load of one page that is held back; false when there is none. Without a free frame, a
    /// task is spawned that completes it when there is one.
    pub fn release(&self, index: PageIndex) -> bool {
        let request = take_held(&mut self.inner.lock().held_loads, index);
        request.map(|request| self.serve(request)).is_some()
    }

    /// Completes the store of one page that is held back; false when there is none.
    pub fn release_store(&self, index: PageIndex) -> bool {
        let request = take_held(&mut self.inner.lock().held_stores, index);
        request.map(|request| self.finish_store(request)).is_some()
    }

    /// Completes the first flush that is held back; false when there is none.
    pub fn release_flush(&self) -> bool {
        let held = self.inner.lock().held_flushes.pop_front();
        held.map(|held| self.finish_flush(held)).is_some()
    }

    /// Holds nothing back any more and completes what was, stores first, then flushes, in order of pages, waiting for
    /// frames where there are none. Returns how many requests there were.
    ///
    /// # Cancellation
    /// Dropping the future abandons the load that waits for a frame and keeps the rest.
    pub async fn release_all(&self) -> usize {
        self.inner.lock().holding = false;
        let mut count = 0;
        loop {
            let store = self.inner.lock().held_stores.pop_first();
            let Some((_, request)) = store else { break };
            self.finish_store(request);
            count += 1;
        }
        while self.release_flush() {
            count += 1;
        }
        loop {
            let first = self.inner.lock().held_loads.pop_first();
            let Some((_, request)) = first else { return count };
            if request.is_ahead() {
                self.serve(request);
            } else {
                let frame = self.memory.frames().alloc().await;
                self.finish(request, frame);
            }
            count += 1;
        }
    }

    /// The next `times` loads of a page (`None`: of any page) that complete do so with `error`.
    pub fn fail(&self, index: Option<PageIndex>, times: usize, error: PageError) {
        self.inner.lock().failing_loads.enter(index, times, error);
    }

    /// The same for stores, which then leave nothing.
    pub fn fail_stores(&self, index: Option<PageIndex>, times: usize, error: PageError) {
        self.inner.lock().failing_stores.enter(index, times, error);
    }

    /// The next `times` flushes that complete do so with `error`, and make nothing durable.
    pub fn fail_flushes(&self, times: usize, error: PageError) {
        self.inner.lock().failing_flushes = (times, error);
    }

    /// From now on up to so many pages may be asked for together: with more than one, pages are read ahead.
    pub fn set_pages_at_once(&self, pages: usize) {
        self.pages_at_once.store(pages, Ordering::Relaxed);
    }

    /// What was asked for since the last such question, loads and stores, in order: the first page and how many. Noted
    /// only while several pages may be asked for together.
    pub fn take_asked(&self) -> Vec<(u64, usize)> {
        core::mem::take(&mut self.inner.lock().asked)
    }

    fn note(&self, first: PageIndex, pages: usize) {
        if self.pages_at_once() > 1 {
            self.inner.lock().asked.push((first.as_u64(), pages));
        }
    }

    /// Loads that were asked for so far.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Stores that were asked for so far.
    pub fn stores(&self) -> usize {
        self.stores.load(Ordering::Relaxed)
    }

    /// Flushes that were asked for so far.
    pub fn flushes(&self) -> usize {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Loads, stores and flushes that are held back now.
    pub fn held(&self) -> usize {
        let inner = self.inner.lock();
        inner.held_loads.len() + inner.held_stores.len() + inner.held_flushes.len()
    }

    /// What the backing store would have for a page if power ended now.
    pub fn durable(&self, index: PageIndex) -> Vec<u8> {
        let durable = self.inner.lock().durable.get(&index.as_u64()).cloned();
        durable.unwrap_or_else(|| self.made(index))
    }

    /// What the backing store has for a page.
    pub fn backing(&self, index: PageIndex) -> Vec<u8> {
        let stored = self.inner.lock().stored.get(&index.as_u64()).cloned();
        stored.unwrap_or_else(|| self.made(index))
    }

    fn made(&self, index: PageIndex) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_SIZE];
        (self.content)(index, &mut bytes);
        bytes
    }

    /// Ends a load as soon as there is a frame for it. One that nobody asked for ends with nothing, if there is none to
    /// spare.
    fn serve(&self, request: PageRequest) {
        if request.is_ahead() {
            let frame = self.memory.try_alloc_ahead();
            return self.finish(request, frame.ok_or(OutOfMemory));
        }
        if let Some(frame) = self.memory.frames().try_alloc_page(None) {
            return self.finish(request, Ok(frame));
        }
        if let Some(this) = self.this.upgrade() {
            drop(executor::spawn(async move {
                let frame = this.memory.frames().alloc().await;
                this.finish(request, frame);
            }));
        }
    }

    fn finish(&self, mut request: PageRequest, frame: Result<Frame, OutOfMemory>) {
        let index = request.index();
        let failure = self.inner.lock().failing_loads.take(index);
        let result = match (failure, frame) {
            (Some(error), _) => Err(error),
            (None, Err(OutOfMemory)) => Err(PageError::OutOfMemory),
            (None, Ok(mut frame)) => {
                match self.inner.lock().stored.get(&index.as_u64()) {
                    Some(stored) => frame.as_bytes_mut().copy_from_slice(stored),
                    None => (self.content)(index, frame.as_bytes_mut()),
                }
                request.attach(frame);
                Ok(())
            }
        };
        request.complete(result);
    }

    fn finish_store(&self, request: StoreRequest) {
        let index = request.index();
        let failure = self.inner.lock().failing_stores.take(index);
        let result = match failure {
            Some(error) => Err(error),
            None => {
                let mut bytes = vec![0; PAGE_SIZE];
                request.read(0, &mut bytes);
                self.inner.lock().stored.insert(index.as_u64(), bytes);
                Ok(())
            }
        };
        request.complete(result);
    }

    fn finish_flush(&self, HeldFlush { request, mut covers }: HeldFlush) {
        let result = {
            let mut inner = self.inner.lock();
            let (times, error) = inner.failing_flushes;
            match times.checked_sub(1) {
                Some(left) => {
                    inner.failing_flushes.0 = left;
                    Err(error)
                }
                None => {
                    inner.durable.append(&mut covers);
                    Ok(())
                }
            }
        };
        request.complete(result);
    }
}

impl Pager for TestPager {
    fn name(&self) -> &str {
        "test"
    }

    fn load(&self, request: PageRequest) {
        self.note(request.index(), 1);
        self.take_load(request);
    }

    fn load_range(&self, requests: Requests<PageRequest>) {
        self.note(requests.first(), requests.len());
        requests.into_iter().for_each(|request| self.take_load(request));
    }

    fn pages_at_once(&self) -> usize {
        self.pages_at_once.load(Ordering::Relaxed)
    }

    fn store(&self, request: StoreRequest) {
        self.note(request.index(), 1);
        self.take_store(request);
    }

    fn store_range(&self, requests: Requests<StoreRequest>) {
        self.note(requests.first(), requests.len());
        requests.into_iter().for_each(|request| self.take_store(request));
    }

    fn flush(&self, request: FlushRequest) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        let held = HeldFlush { request, covers: inner.stored.clone() };
        if inner.holding {
            return inner.held_flushes.push_back(held);
        }
        drop(inner);
        self.finish_flush(held);
    }
}

impl TestPager {
    fn take_load(&self, request: PageRequest) {
        let arrival = self.loads.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        if inner.holding {
            inner.held_loads.insert((request.index().as_u64(), arrival), request);
            return;
        }
        drop(inner);
        self.serve(request);
    }

    fn take_store(&self, request: StoreRequest) {
        let arrival = self.stores.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        if inner.holding {
            inner.held_stores.insert((request.index().as_u64(), arrival), request);
            return;
        }
        drop(inner);
        self.finish_store(request);
    }
}
