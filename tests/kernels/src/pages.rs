//! Pages whose content says where they belong, and threads that check it.

use alloc::{boxed::Box, sync::Arc};
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{JoinHandle, time};
use kernel::{
    machine::{self, Disk},
    memory::memory,
    window::{ReadError, Window},
};
use mm::{Denial, PAGE_SIZE, PageIndex, Protection, TestPager, VmObject};

use crate::check::{Failure, Needed, Outcome, in_time};

/// Fills a page as the host fills its disks: each 8 bytes hold their own offset.
fn fill(page: PageIndex, bytes: &mut [u8]) {
    let offsets = (page.as_u64() * PAGE_SIZE as u64..).step_by(8);
    for (word, offset) in bytes.chunks_exact_mut(8).zip(offsets) {
        word.copy_from_slice(&offset.to_le_bytes());
    }
}

/// A pager of such pages.
pub(crate) fn test_pager() -> Arc<TestPager> {
    TestPager::new(memory(), Box::new(fill))
}

/// An object of `pages` such pages, and its pager.
pub(crate) fn test_object(pages: u64) -> (Arc<TestPager>, Arc<VmObject>) {
    let pager = test_pager();
    let object = VmObject::new(memory(), pager.clone(), pages);
    (pager, object)
}

/// A task that lets a pager's loads wait for a moment.
pub(crate) struct SlowLoads {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl SlowLoads {
    pub(crate) fn of(pager: &Arc<TestPager>) -> Self {
        let (pager, stop) = (pager.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let task = executor::spawn(async move {
            while !stopped.load(Relaxed) {
                pager.hold();
                executor::yield_now().await;
                time::sleep(Duration::from_micros(200)).await;
                pager.release_all().await;
            }
        });
        Self { stop, task }
    }

    /// From now on nothing waits.
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        in_time("the loader ends", self.task).await?.needed("the loader")
    }
}

/// Shows the first pages of an object to kernel threads, read-only.
pub(crate) fn window(object: &Arc<VmObject>, pages: usize) -> Result<Arc<Window>, Failure> {
    let window = Window::map(object.clone(), pages * PAGE_SIZE, Protection::READ);
    window.map(Arc::new).needed("the object cannot be mapped")
}

/// The first disk, which the host has filled.
pub(crate) fn disk() -> Result<&'static Disk, Failure> {
    machine::disks().first().ok_or_else(|| Failure::new("the machine has no disk".into()))
}

/// The second disk.
pub(crate) fn second_disk() -> Result<&'static Disk, Failure> {
    machine::disks().get(1).ok_or_else(|| Failure::new("the machine has no second disk".into()))
}

/// What threads read.
#[derive(Default)]
pub(crate) struct Tally {
    right: AtomicUsize,
    wrong: AtomicUsize,
    io: AtomicUsize,
    denied: AtomicUsize,
    killed: AtomicUsize,
}

impl Tally {
    /// Notes one read.
    fn note(&self, result: Result<bool, ReadError>) {
        let counter = match result {
            Ok(true) => &self.right,
            Ok(false) => &self.wrong,
            Err(ReadError::Denied(Denial::Io { .. } | Denial::Corrupted { .. })) => &self.io,
            Err(ReadError::Killed) => &self.killed,
            Err(_) => &self.denied,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// How many pages held what they should.
    pub(crate) fn right(&self) -> usize {
        self.right.load(Relaxed)
    }

    /// The number of reads: right ones, wrong ones, those with an I/O error, otherwise denied, killed.
    pub(crate) fn all(&self) -> [usize; 5] {
        [&self.right, &self.wrong, &self.io, &self.denied, &self.killed].map(|counter| counter.load(Relaxed))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [right, wrong, io, denied, killed] = self.all();
        write!(f, "{right} right, {wrong} wrong, {io} I/O errors, {denied} denied, {killed} killed")
    }
}

/// Whether the first and the last word of a page hold what they should. For kernel threads.
pub(crate) fn is_right(window: &Window, page: usize) -> Result<bool, ReadError> {
    for at in [page * PAGE_SIZE, (page + 1) * PAGE_SIZE - 8] {
        let mut word = [0; 8];
        window.read_at(at, &mut word)?;
        if u64::from_le_bytes(word) != at as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a page and notes what came of it. For kernel threads.
pub(crate) fn read(window: &Window, page: usize, tally: &Tally) {
    tally.note(is_right(window, page));
}
