//! A store with blocks of any size, which does as a test says, and a scene over it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mm::{
    AddressSpace, BlockStore, BlockTransfer, BlocksOf, Denial, PAGE_SIZE, PageError, PageState, Placement,
    Protection, ReadAhead, Serves, StoreError, VirtAddr, VmObject,
};

use super::tasks::{Handle, Tasks};
use super::{Machine, PAGE, content, page};

/// A read or a write of a block, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    Read(u64),
    Wrote(u64),
}

/// Bytes in memory. Transfers are answered at once, or when the test says so.
pub struct TestBlocks {
    block_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    holding: bool,
    held: VecDeque<(BlockTransfer, bool)>,
    /// How the next transfers end: so many bytes are done, the rest has the error. `true` for writes.
    ends: VecDeque<(bool, usize, PageError)>,
    did: Vec<Did>,
}

impl TestBlocks {
    /// Page n is full of the 64-bit word n + 1000.
    pub fn new(block_bytes: usize, pages: u64) -> Arc<Self> {
        let words = (0..pages).flat_map(|page| std::iter::repeat_n(content(page), PAGE_SIZE / 8));
        let bytes = words.flat_map(u64::to_le_bytes).collect();
        Arc::new(Self { block_bytes, inner: Mutex::new(Inner { bytes, ..Inner::default() }) })
    }

    pub fn hold(&self) {
        self.inner.lock().unwrap().holding = true;
    }

    pub fn held(&self) -> usize {
        self.inner.lock().unwrap().held.len()
    }

    /// Nothing is held from now on, and the first so many that are end.
    pub fn release(&self, transfers: usize) {
        self.inner.lock().unwrap().holding = false;
        for _ in 0..transfers {
            let (transfer, write) = self.inner.lock().unwrap().held.pop_front().expect("it is held");
            self.answer(transfer, write);
        }
    }

    /// The first that is held is dropped.
    pub fn forget_one(&self) {
        let held = self.inner.lock().unwrap().held.pop_front();
        drop(held.expect("one is held"));
    }

    /// The next read (or write) ends after so many bytes, with this error for the rest.
    pub fn cut(&self, write: bool, bytes: usize, rest: PageError) {
        self.inner.lock().unwrap().ends.push_back((write, bytes, rest));
    }

    /// What was read and written since the last such question.
    pub fn take_did(&self) -> Vec<Did> {
        std::mem::take(&mut self.inner.lock().unwrap().did)
    }

    /// The first and the last word of a page in the store.
    pub fn words(&self, page: u64) -> [u64; 2] {
        let inner = self.inner.lock().unwrap();
        let bytes = &inner.bytes[page as usize * PAGE_SIZE..][..PAGE_SIZE];
        [&bytes[..8], &bytes[PAGE_SIZE - 8..]].map(|word| u64::from_le_bytes(word.try_into().unwrap()))
    }

    /// Fills a page of the store with a word, behind everybody's back.
    pub fn poke(&self, page: u64, word: u64) {
        let mut inner = self.inner.lock().unwrap();
        let bytes = &mut inner.bytes[page as usize * PAGE_SIZE..][..PAGE_SIZE];
        bytes.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
    }

    fn take(&self, transfer: BlockTransfer, write: bool) {
        let mut inner = self.inner.lock().unwrap();
        let bytes = self.block_bytes.max(PAGE_SIZE);
        assert_eq!((transfer.len(), transfer.offset() % bytes as u64), (bytes, 0), "whole blocks");
        let block = transfer.offset() / bytes as u64;
        inner.did.push(if write { Did::Wrote(block) } else { Did::Read(block) });
        if inner.holding {
            inner.held.push_back((transfer, write));
            return;
        }
        drop(inner);
        self.answer(transfer, write);
    }

    fn answer(&self, mut transfer: BlockTransfer, write: bool) {
        let mut inner = self.inner.lock().unwrap();
        let cut = inner.ends.iter().position(|end| end.0 == write).and_then(|place| inner.ends.remove(place));
        let at = transfer.offset() as usize;
        let there = inner.bytes.len().saturating_sub(at).min(transfer.len());
        let (bytes, rest) = cut.map_or((there, PageError::OutOfRange), |(_, bytes, rest)| (bytes, rest));
        if write {
            let mut written = vec![0; bytes.min(there)];
            transfer.copy_out(0, &mut written);
            inner.bytes[at..at + written.len()].copy_from_slice(&written);
        } else if there > 0 {
            let read = inner.bytes[at..at + bytes.min(there)].to_vec();
            transfer.fill(0, &read);
        }
        drop(inner);
        transfer.complete(bytes, rest);
    }
}

impl BlockStore for TestBlocks {
    fn name(&self) -> &str {
        "test blocks"
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn read(&self, transfer: BlockTransfer) {
        self.take(transfer, false);
    }

    fn write(&self, transfer: BlockTransfer) {
        self.take(transfer, true);
    }
}

/// An object over blocks, mapped, with a server for loads and one for stores.
pub struct BlockScene {
    pub machine: &'static Machine,
    pub store: Arc<TestBlocks>,
    pub pager: Option<Arc<BlocksOf>>,
    pub object: Arc<VmObject>,
    pub space: Arc<AddressSpace>,
    pub start: VirtAddr,
    pub tasks: Tasks,
    /// The servers, loads first.
    pub servers: [Handle<()>; 2],
}

impl BlockScene {
    /// Pages are loaded alone, so that tests say which are wanted.
    pub fn new(block_bytes: usize, pages: u64) -> Self {
        let scene = Self::with_read_ahead(block_bytes, pages);
        scene.machine.memory.set_read_ahead(ReadAhead::Never);
        scene
    }

    pub fn with_read_ahead(block_bytes: usize, pages: u64) -> Self {
        let machine = Machine::new(2000);
        let store = TestBlocks::new(block_bytes, pages);
        let pager = BlocksOf::try_new(machine.memory, store.clone()).unwrap();
        let mut tasks = Tasks::default();
        let servers =
            [Serves::Loads, Serves::Stores].map(|serves| tasks.spawn(pager.try_server(serves).unwrap()));
        let object = VmObject::new(machine.memory, pager.clone(), pages);
        let space = machine.window();
        let start = space.map(&object, page(0), pages, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let mut scene = Self { machine, store, pager: Some(pager), object, space, start, tasks, servers };
        scene.tasks.run();
        scene
    }

    pub fn reader(&mut self, index: u64) -> Handle<Result<u64, Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64() + index * PAGE);
        let handle = self.tasks.spawn(async move { machine.read(&space, at).await });
        self.tasks.run();
        handle
    }

    pub fn read(&mut self, index: u64) -> Result<u64, Denial> {
        self.reader(index).take().expect("it does not wait")
    }

    /// Writes the first word of a page.
    pub fn write(&mut self, index: u64, word: u64) {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64() + index * PAGE);
        let handle = self.tasks.spawn(async move { machine.write(&space, at, word).await });
        self.tasks.run();
        handle.take().expect("it does not wait").expect("it is allowed");
    }

    pub fn store(&mut self, first: u64, end: u64) -> Handle<Result<(), StoreError>> {
        let object = self.object.clone();
        let handle = self.tasks.spawn(async move { object.store(page(first)..page(end)).await });
        self.tasks.run();
        handle
    }

    pub fn state(&self, index: u64) -> PageState {
        self.object.state(page(index))
    }
}
