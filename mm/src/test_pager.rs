//! A pager that does as it is told, for tests and for showing what a stalled device does to the rest of
//! the machine: nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{Frame, Memory, OutOfMemory, PageError, PageIndex, PageRequest, Pager};
use executor::lock::SpinLock;

/// What is in the backing store: fills the bytes of the page with this number.
pub type Content = Box<dyn Fn(PageIndex, &mut [u8]) + Send + Sync>;

/// A pager over made-up contents. Loads complete at once, or when the test says so; a load that is held
/// back has no frame yet.
pub struct TestPager {
    this: Weak<Self>,
    memory: &'static Memory,
    content: Content,
    loads: AtomicUsize,
    inner: SpinLock<Inner>,
}

struct Inner {
    holding: bool,
    /// By page and order of arrival: several objects may share the pager.
    held: BTreeMap<(u64, usize), PageRequest>,
    /// How many more loads of a page fail, and how.
    failing: BTreeMap<u64, (usize, PageError)>,
    /// The same for any page.
    failing_any: Option<(usize, PageError)>,
}

impl TestPager {
    /// A pager that completes each load at once with what `content` makes.
    pub fn new(memory: &'static Memory, content: Content) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            memory,
            content,
            loads: AtomicUsize::new(0),
            inner: SpinLock::new(
                "test pager",
                Inner { holding: false, held: BTreeMap::new(), failing: BTreeMap::new(), failing_any: None },
            ),
        })
    }

    /// From now on loads are held back.
    pub fn hold(&self) {
        self.inner.lock().holding = true;
    }

    /// Completes the load of one page that is held back; false when there is none. Without a free frame, a
    /// task is spawned that completes it when there is one.
    pub fn release(&self, index: PageIndex) -> bool {
        let request = {
            let held = &mut self.inner.lock().held;
            let first = held.range((index.as_u64(), 0)..).next().map(|(&key, _)| key);
            first.filter(|key| key.0 == index.as_u64()).and_then(|key| held.remove(&key))
        };
        request.map(|request| self.serve(request)).is_some()
    }

    /// Holds nothing back any more and completes what was, in order of pages, waiting for frames where
    /// there are none. Returns how many loads there were.
    ///
    /// # Cancellation
    /// Dropping the future abandons the load that waits for a frame and keeps the rest.
    pub async fn release_all(&self) -> usize {
        self.inner.lock().holding = false;
        let mut count = 0;
        loop {
            let first = self.inner.lock().held.pop_first();
            let Some((_, request)) = first else { return count };
            let frame = self.memory.frames().alloc().await;
            self.finish(request, frame);
            count += 1;
        }
    }

    /// The next `times` loads of a page (`None`: of any page) that complete do so with `error`.
    pub fn fail(&self, index: Option<PageIndex>, times: usize, error: PageError) {
        let mut inner = self.inner.lock();
        match index {
            Some(index) => drop(inner.failing.insert(index.as_u64(), (times, error))),
            None => inner.failing_any = Some((times, error)),
        }
    }

    /// Loads that were asked for so far.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Loads that are held back now.
    pub fn held(&self) -> usize {
        self.inner.lock().held.len()
    }

    /// Ends a load as soon as there is a frame for it.
    fn serve(&self, request: PageRequest) {
        if let Some(frame) = self.memory.frames().try_alloc() {
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
        let result = match (self.failure(index), frame) {
            (Some(error), _) => Err(error),
            (None, Err(OutOfMemory)) => Err(PageError::OutOfMemory),
            (None, Ok(mut frame)) => {
                (self.content)(index, frame.as_bytes_mut());
                request.attach(frame);
                Ok(())
            }
        };
        request.complete(result);
    }

    fn failure(&self, index: PageIndex) -> Option<PageError> {
        let mut inner = self.inner.lock();
        let Inner { failing, failing_any, .. } = &mut *inner;
        let failing = failing.get_mut(&index.as_u64()).or(failing_any.as_mut())?;
        let (times, error) = failing;
        *times = times.checked_sub(1)?;
        Some(*error)
    }
}

impl Pager for TestPager {
    fn name(&self) -> &str {
        "test"
    }

    fn load(&self, request: PageRequest) {
        let arrival = self.loads.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        if inner.holding {
            inner.held.insert((request.index().as_u64(), arrival), request);
            return;
        }
        drop(inner);
        self.serve(request);
    }
}
