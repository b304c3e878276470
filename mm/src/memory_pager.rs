//! A pager over bytes in memory: an archive that came with the kernel, or frames in a row as a disk.

use alloc::sync::{Arc, Weak};

use crate::{
    Frame, FrameRun, Memory, OutOfMemory, PAGE_SIZE, PageError, PageRequest, Pager, Requests, StoreRequest,
};
use executor::Builder;
use executor::lock::SpinLock;

/// Pages a turn at most.
const AT_ONCE: usize = 32;

/// A pager whose pages are bytes in memory. The last page is filled up with zeros; pages beyond it are
/// [`PageError::OutOfRange`]. Loads and stores complete at once, but for loads that wait for a frame.
pub struct MemoryPager {
    this: Weak<Self>,
    memory: &'static Memory,
    bytes: Bytes,
}

enum Bytes {
    /// Nothing can be stored.
    ReadOnly(&'static [u8]),
    Frames(SpinLock<FrameRun>),
}

impl MemoryPager {
    /// A pager over bytes that nobody changes.
    pub fn read_only(memory: &'static Memory, bytes: &'static [u8]) -> Arc<Self> {
        Self::make(memory, Bytes::ReadOnly(bytes))
    }

    /// A pager over frames, which it keeps: a disk in memory, with what they hold now on it.
    pub fn over(memory: &'static Memory, frames: FrameRun) -> Arc<Self> {
        Self::make(memory, Bytes::Frames(SpinLock::new("memory pager", frames)))
    }

    fn make(memory: &'static Memory, bytes: Bytes) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { this: this.clone(), memory, bytes })
    }

    /// How many pages there are, the last one perhaps in part.
    pub fn pages(&self) -> u64 {
        match &self.bytes {
            Bytes::ReadOnly(bytes) => bytes.len().div_ceil(PAGE_SIZE) as u64,
            Bytes::Frames(frames) => frames.lock().frames() as u64,
        }
    }

    /// Fills a frame with a page that there is.
    fn fill(&self, index: usize, frame: &mut Frame) {
        let to = frame.as_bytes_mut();
        match &self.bytes {
            Bytes::ReadOnly(bytes) => {
                let rest = &bytes[index * PAGE_SIZE..];
                let count = rest.len().min(PAGE_SIZE);
                to[..count].copy_from_slice(&rest[..count]);
                to[count..].fill(0);
            }
            Bytes::Frames(frames) => {
                to.copy_from_slice(&frames.lock().as_bytes()[index * PAGE_SIZE..][..PAGE_SIZE]);
            }
        }
    }

    fn finish(&self, mut request: PageRequest) {
        let index = request.index().as_u64() as usize;
        if let Some(frame) = request.frame_mut() {
            self.fill(index, frame);
        }
        request.complete(Ok(()));
    }
}

impl Pager for MemoryPager {
    fn name(&self) -> &str {
        "memory"
    }

    fn load(&self, mut request: PageRequest) {
        if request.index().as_u64() >= self.pages() {
            return request.complete(Err(PageError::OutOfRange));
        }
        if request.try_attach() {
            return self.finish(request);
        }
        // One that is read ahead ends with nothing, as does one whose task cannot begin.
        let Some(this) = self.this.upgrade().filter(|_| !request.is_ahead()) else { return };
        drop(Builder::new().name("memory-pager").try_spawn(async move {
            match this.memory.frames().alloc().await {
                Ok(frame) => {
                    request.attach(frame);
                    this.finish(request);
                }
                Err(OutOfMemory) => request.complete(Err(PageError::OutOfMemory)),
            }
        }));
    }

    fn load_range(&self, mut requests: Requests<PageRequest>) {
        let (pages, first) = (self.pages(), requests.first().as_u64());
        let mut filled = 0;
        for (index, request) in (first..pages).zip(requests.as_mut_slice()) {
            if !request.try_attach() {
                break;
            }
            if let Some(frame) = request.frame_mut() {
                self.fill(index as usize, frame);
            }
            filled += 1;
        }
        if filled == requests.len() {
            return requests.complete(filled * PAGE_SIZE, PageError::OutOfRange);
        }
        requests.into_iter().for_each(|request| {
            if request.frame_address().is_some() { request.complete(Ok(())) } else { self.load(request) }
        });
    }

    fn pages_at_once(&self) -> usize {
        AT_ONCE
    }

    fn store(&self, request: StoreRequest) {
        let Bytes::Frames(frames) = &self.bytes else {
            return request.complete(Err(PageError::ReadOnly));
        };
        let stored = {
            let mut frames = frames.lock();
            let start = usize::try_from(request.index().byte_offset()).unwrap_or(usize::MAX);
            let to = frames.as_bytes_mut().get_mut(start..).and_then(|rest| rest.get_mut(..PAGE_SIZE));
            to.map(|to| request.read(0, to)).ok_or(PageError::OutOfRange)
        };
        request.complete(stored);
    }
}
