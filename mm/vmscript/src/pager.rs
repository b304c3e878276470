//! The files' contents, and a device that does as it is told.
//!
//! A request is *submitted* when the device takes it: a load when there is a frame for it. Then its outcome is settled,
//! its data is taken, and it stands in the log; what is held back is only the completion.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | load, no free frame | it is not submitted yet, and stands in line; see `Player::settle`. One that is read ahead ends with nothing |
//! | poke, held load | the load brings what was there when it was submitted |
//! | poke, held store | the store overwrites it at its completion |
//! | fail or heal, held request | the request ends as was settled |
//! | close, load in line | it ends at once, as if the device were gone; what the device has taken is waited for |

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::lock::SpinLock;
use mm::{PAGE_SIZE, PageError, PageRequest, Pager, StoreRequest};

use crate::command::Direction;

/// Counts everything that happens in a scenario, so that it has an order.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A number higher than all before.
    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Pages that the device takes together when pages are read ahead. One by one, so each has a place in the log.
const AT_ONCE: usize = 32;

/// A block that is not what it was at first.
enum Block {
    /// Full of a word.
    Word(u64),
    Bytes(Box<[u8]>),
}

/// A request that the device has taken, with its outcome.
enum Taken {
    Load(PageRequest, Result<(), PageError>),
    Store(StoreRequest, Result<Box<[u8]>, PageError>),
}

impl Taken {
    fn block(&self) -> u64 {
        match self {
            Taken::Load(request, _) => request.index().as_u64(),
            Taken::Store(request, _) => request.index().as_u64(),
        }
    }
}

/// The pager of one file.
pub(crate) struct FilePager {
    clock: Clock,
    inner: SpinLock<Inner>,
}

#[derive(Default)]
struct Inner {
    holding: bool,
    changed: BTreeMap<u64, Block>,
    /// How many more times loads and stores of a block fail.
    failing_loads: BTreeMap<u64, u64>,
    failing_stores: BTreeMap<u64, u64>,
    /// In order of submission.
    held: Vec<Taken>,
    /// Loads that have no frame, with the times at which they came.
    in_line: Vec<(u64, PageRequest)>,
    log: Vec<(Direction, u64)>,
    /// Blocks whose loads have ended well, and when.
    arrived: Vec<(u64, u64)>,
    /// All blocks that were ever wanted.
    wanted: BTreeSet<u64>,
}

impl Inner {
    fn outcome(&mut self, direction: Direction, block: u64) -> Result<(), PageError> {
        self.log.push((direction, block));
        let failing = self.failing(direction);
        let Some(times) = failing.get_mut(&block) else { return Ok(()) };
        // As many as there can be means for good.
        if *times < u64::MAX {
            *times -= 1;
        }
        if *times == 0 {
            failing.remove(&block);
        }
        Err(PageError::Io)
    }

    fn failing(&mut self, direction: Direction) -> &mut BTreeMap<u64, u64> {
        match direction {
            Direction::Load => &mut self.failing_loads,
            Direction::Store => &mut self.failing_stores,
        }
    }

    fn fill(&self, block: u64, bytes: &mut [u8]) {
        let word = match self.changed.get(&block) {
            Some(Block::Bytes(stored)) => return bytes.copy_from_slice(stored),
            Some(&Block::Word(word)) => word,
            None => block,
        };
        bytes.chunks_exact_mut(8).for_each(|place| place.copy_from_slice(&word.to_le_bytes()));
    }
}

impl FilePager {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, inner: SpinLock::new("script pager", Inner::default()) }
    }

    pub(crate) fn hold(&self) {
        self.inner.lock().holding = true;
    }

    /// Lets the completions of a block through that wait now. Returns how many.
    pub(crate) fn release(&self, block: u64) -> u64 {
        let taken = {
            let mut inner = self.inner.lock();
            let (of_block, others) = inner.held.drain(..).partition(|taken| taken.block() == block);
            inner.held = others;
            of_block
        };
        self.complete_all(taken)
    }

    /// Lets all through, in order of submission, and holds nothing back any more. Returns how many.
    pub(crate) fn release_all(&self) -> u64 {
        let taken = {
            let mut inner = self.inner.lock();
            inner.holding = false;
            core::mem::take(&mut inner.held)
        };
        self.complete_all(taken)
    }

    pub(crate) fn fail(&self, direction: Direction, block: u64, times: u64) {
        self.inner.lock().failing(direction).insert(block, times);
    }

    pub(crate) fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.failing_loads.clear();
        inner.failing_stores.clear();
    }

    /// Fills a block behind the memory's back.
    pub(crate) fn poke(&self, block: u64, value: u64) {
        self.inner.lock().changed.insert(block, Block::Word(value));
    }

    /// The requests submitted since the last call.
    pub(crate) fn take_log(&self) -> Vec<(Direction, u64)> {
        core::mem::take(&mut self.inner.lock().log)
    }

    /// The blocks that came since the last call, and when.
    pub(crate) fn take_arrived(&self) -> Vec<(u64, u64)> {
        core::mem::take(&mut self.inner.lock().arrived)
    }

    /// All blocks that may have a page: nothing is loaded that was not wanted.
    pub(crate) fn wanted(&self) -> Vec<u64> {
        self.inner.lock().wanted.iter().copied().collect()
    }

    /// Since when the first load stands in line for a frame.
    pub(crate) fn first_in_line(&self) -> Option<u64> {
        self.inner.lock().in_line.first().map(|&(since, _)| since)
    }

    pub(crate) fn is_in_line(&self, block: u64) -> bool {
        self.inner.lock().in_line.iter().any(|(_, request)| request.index().as_u64() == block)
    }

    /// Submits the first load in line, if there is a frame for it by now.
    pub(crate) fn serve_first(&self) -> bool {
        let Some((since, mut request)) = ({
            let mut inner = self.inner.lock();
            if inner.in_line.is_empty() { None } else { Some(inner.in_line.remove(0)) }
        }) else {
            return false;
        };
        let has_frame = request.try_attach();
        if has_frame {
            self.submit_load(request);
        } else {
            self.inner.lock().in_line.insert(0, (since, request));
        }
        has_frame
    }

    /// Takes a load out of the line, which nobody wants any more. The caller has invalidated the page.
    pub(crate) fn give_up(&self, block: u64) {
        let given_up: Vec<_> = {
            let mut inner = self.inner.lock();
            let (of_block, others) =
                inner.in_line.drain(..).partition(|(_, request)| request.index().as_u64() == block);
            inner.in_line = others;
            of_block
        };
        drop(given_up);
    }

    /// Ends all loads in line, with an error for those who wait.
    pub(crate) fn give_up_line(&self) {
        let in_line = core::mem::take(&mut self.inner.lock().in_line);
        for (_, request) in in_line {
            request.complete(Err(PageError::DeviceGone));
        }
    }

    /// The device takes a load, which has its frame.
    fn submit_load(&self, mut request: PageRequest) {
        let block = request.index().as_u64();
        let taken = {
            let mut inner = self.inner.lock();
            let outcome = inner.outcome(Direction::Load, block);
            if let Some(frame) = request.frame_mut() {
                inner.fill(block, frame.as_bytes_mut());
            }
            let taken = Taken::Load(request, outcome);
            if inner.holding {
                inner.held.push(taken);
                return;
            }
            taken
        };
        self.complete(taken);
    }

    fn complete_all(&self, all: Vec<Taken>) -> u64 {
        let count = all.len() as u64;
        all.into_iter().for_each(|taken| self.complete(taken));
        count
    }

    fn complete(&self, taken: Taken) {
        let block = taken.block();
        match taken {
            Taken::Load(request, outcome) => {
                if outcome.is_ok() {
                    self.inner.lock().arrived.push((block, self.clock.tick()));
                }
                request.complete(outcome);
            }
            Taken::Store(request, outcome) => {
                let outcome = outcome.map(|bytes| {
                    self.inner.lock().changed.insert(block, Block::Bytes(bytes));
                });
                request.complete(outcome);
            }
        }
    }
}

impl Pager for FilePager {
    fn name(&self) -> &str {
        "file"
    }

    fn pages_at_once(&self) -> usize {
        AT_ONCE
    }

    fn load(&self, mut request: PageRequest) {
        let block = request.index().as_u64();
        self.inner.lock().wanted.insert(block);
        // Nobody overtakes those who stand in line already. A page that nobody has asked for does not stand in line.
        if self.first_in_line().is_none() && request.try_attach() {
            self.submit_load(request);
        } else if !request.is_ahead() {
            let since = self.clock.tick();
            self.inner.lock().in_line.push((since, request));
        }
    }

    fn store(&self, request: StoreRequest) {
        let block = request.index().as_u64();
        let mut bytes = vec![0; PAGE_SIZE].into_boxed_slice();
        request.read(0, &mut bytes);
        let taken = {
            let mut inner = self.inner.lock();
            let outcome = inner.outcome(Direction::Store, block).map(|()| bytes);
            let taken = Taken::Store(request, outcome);
            if inner.holding {
                inner.held.push(taken);
                return;
            }
            taken
        };
        self.complete(taken);
    }
}
