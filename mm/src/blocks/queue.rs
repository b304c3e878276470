//! Pages that wait for a server, by their number; and the blocks that are worked on.
//!
//! Blocks are served in rounds, each in the order of their numbers: so nobody waits longer than a round. The queue's lock
//! comes before those of frames.

use alloc::vec::Vec;

use executor::lock::SpinLock;
use executor::{WaitQueue, WaitReason};

use super::Serves;
use crate::fallible::Shared;
use crate::ordered_map::{OrderedMap, Room};
use crate::{Frame, OutOfMemory, PageError, PageRequest, PhysAddr, StoreRequest};

/// A page that somebody wants of a block.
pub(super) enum Wanted {
    Load(PageRequest),
    Store(StoreRequest),
}

impl Wanted {
    fn index(&self) -> u64 {
        match self {
            Wanted::Load(load) => load.index().as_u64(),
            Wanted::Store(store) => store.index().as_u64(),
        }
    }

    pub(super) fn complete(self, result: Result<(), PageError>) {
        match self {
            Wanted::Load(load) => load.complete(result),
            Wanted::Store(store) => store.complete(result),
        }
    }

    /// Where the page is; `None` for a load that has no frame.
    pub(super) fn frame_address(&self) -> Option<PhysAddr> {
        match self {
            Wanted::Load(load) => load.frame_address(),
            Wanted::Store(store) => Some(store.frame_address()),
        }
    }

    /// Whether its transfer can begin, now that a load has been given a frame, if there is one.
    fn is_ready(&mut self, spare: &mut Option<Frame>) -> Ready {
        let Wanted::Load(load) = self else { return Ready::Yes };
        if load.try_attach() {
            return Ready::Yes;
        }
        match spare.take() {
            _ if load.is_ahead() => Ready::Never,
            Some(frame) => {
                load.attach(frame);
                Ready::Yes
            }
            None => Ready::NotYet,
        }
    }
}

enum Ready {
    Yes,
    NotYet,
    /// There is no frame to spare for what nobody has asked for.
    Never,
}

/// What a server is to do next.
pub(super) enum Next {
    /// To work on this block, for the pages that were put where the server has them.
    Block(Claim),
    /// To bring a frame, or to look again.
    NeedsFrame,
    /// Nothing of what was found can be done.
    Nothing,
    /// To end.
    Closed,
}

/// A block that one server works on. Dropping it lets others have it.
pub(super) struct Claim {
    queue: Shared<Queue>,
    pub(super) block: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.queue.inner.lock().claimed.retain(|&block| block != self.block);
        self.queue.look();
    }
}

pub(super) struct Queue {
    /// Pages of a block.
    pages: u64,
    inner: SpinLock<Inner>,
    changed: WaitQueue,
}

/// Pages by their number and the order of their arrival: several objects may share a pager.
type Pages = OrderedMap<(u64, u64), Wanted>;

/// What the queue's lock guards.
struct Inner {
    loads: Pages,
    stores: Pages,
    arrivals: u64,
    /// Blocks that servers work on. There is room for all servers.
    claimed: Vec<u64>,
    servers: usize,
    closed: bool,
}

impl Inner {
    fn of(&mut self, serves: Serves) -> &mut Pages {
        match serves {
            Serves::Loads => &mut self.loads,
            Serves::Stores => &mut self.stores,
        }
    }

    /// The first block from one on that something is wanted of, and nobody works on.
    fn free_block(&mut self, serves: Serves, from: u64, pages: u64) -> Option<u64> {
        let mut block = from;
        loop {
            let ((index, _), _) = self.of(serves).at_or_after(&(block.checked_mul(pages)?, 0))?;
            block = index / pages;
            if !self.claimed.contains(&block) {
                return Some(block);
            }
            block += 1;
        }
    }
}

impl Queue {
    pub(super) fn new(pages: u64) -> Self {
        let inner = Inner {
            loads: OrderedMap::default(),
            stores: OrderedMap::default(),
            arrivals: 0,
            claimed: Vec::new(),
            servers: 0,
            closed: false,
        };
        let changed = WaitQueue::new(WaitReason::Channel);
        Self { pages, inner: SpinLock::new("blocks", inner), changed }
    }

    /// One server more will claim blocks.
    pub(super) fn add_server(&self) -> Result<(), OutOfMemory> {
        let mut inner = self.inner.lock();
        let servers = inner.servers + 1;
        // Beside blocks whose servers have gone before their transfers ended.
        inner.claimed.try_reserve(servers).map_err(|_| OutOfMemory)?;
        inner.servers = servers;
        Ok(())
    }

    pub(super) fn remove_server(&self) {
        self.inner.lock().servers -= 1;
    }

    /// Pages that wait.
    pub(super) fn waiting(&self) -> usize {
        let inner = self.inner.lock();
        inner.loads.len() + inner.stores.len()
    }

    /// Pages are wanted. Those for which the heap has no room end with an error.
    pub(super) fn enter(&self, serves: Serves, pages: impl IntoIterator<Item = Wanted>) {
        let mut pages = pages.into_iter();
        let refused = {
            let mut inner = self.inner.lock();
            loop {
                let Some(wanted) = pages.next() else { break None };
                let Ok(room) = Room::try_new() else { break Some(wanted) };
                let key = (wanted.index(), inner.arrivals);
                inner.arrivals += 1;
                inner.of(serves).insert(room, key, wanted);
            }
        };
        refused.into_iter().chain(pages).for_each(|wanted| wanted.complete(Err(PageError::OutOfMemory)));
        self.look();
    }

    /// Looks for a block to work on, beginning with `from`. The pages of it that can be served now go to `places`, which
    /// is empty, by their place in the block.
    pub(super) fn next(
        this: &Shared<Self>,
        serves: Serves,
        from: u64,
        places: &mut [Option<Wanted>],
        spare: &mut Option<Frame>,
    ) -> Option<Next> {
        let pages = this.pages;
        let mut inner = this.inner.lock();
        if inner.closed {
            return Some(Next::Closed);
        }
        let found = inner.free_block(serves, from, pages).or_else(|| inner.free_block(serves, 0, pages));
        let block = found?;
        let (first, end) = (block * pages, (block + 1) * pages);
        let (mut ready, mut needs_frame) = (false, false);
        let mut at = first;
        let queue = inner.of(serves);
        while let Some((key, _)) = queue.at_or_after(&(at, 0)).filter(|((index, _), _)| *index < end) {
            at = key.0 + 1;
            match queue.get_mut(&key).expect("it was just found").is_ready(spare) {
                Ready::Yes => ready = true,
                Ready::NotYet => {
                    needs_frame = true;
                    continue;
                }
                Ready::Never => {}
            }
            places[(key.0 - first) as usize] = queue.remove(&key);
        }
        if !ready {
            return Some(if needs_frame { Next::NeedsFrame } else { Next::Nothing });
        }
        debug_assert!(inner.claimed.len() < inner.claimed.capacity());
        inner.claimed.push(block);
        drop(inner);
        Some(Next::Block(Claim { queue: this.clone(), block }))
    }

    /// There is no memory for pages: the load that would be the next ends with an error.
    pub(super) fn refuse_load(&self, from: u64) {
        let refused = {
            let mut inner = self.inner.lock();
            let key = inner
                .free_block(Serves::Loads, from, self.pages)
                .or_else(|| inner.free_block(Serves::Loads, 0, self.pages))
                .and_then(|block| inner.loads.at_or_after(&(block * self.pages, 0)))
                .map(|(key, _)| key);
            key.and_then(|key| inner.loads.remove(&key))
        };
        if let Some(wanted) = refused {
            wanted.complete(Err(PageError::OutOfMemory));
        }
    }

    /// Waits until `check` gives something; it is asked again whenever there may be something to do.
    pub(super) async fn wait_for<T>(&self, check: impl FnMut() -> Option<T> + Send) -> T {
        self.changed.wait_for(check).await
    }

    fn look(&self) {
        self.changed.wake_all();
    }

    /// Nobody wants pages any more: servers end, and so does what waits for them.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        loop {
            let mut inner = self.inner.lock();
            let Some((_, wanted)) = inner.loads.pop_first().or_else(|| inner.stores.pop_first()) else {
                break;
            };
            drop(inner);
            drop(wanted);
        }
        self.look();
    }
}
