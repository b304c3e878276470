//! A heap that is full at every possible point of what blocks of a store need: an error for who asked, nothing left behind,
//! and no page of a block lost.

mod common;
mod limited_heap;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::{Machine, PAGE, page};
use limited_heap::with_heap;
use mm::{
    BlockStore, BlockTransfer, BlocksError, BlocksOf, OutOfMemory, PageError, PageState, Serves, VmObject,
};

const PAGES: usize = 4;
const BLOCK: usize = PAGES * PAGE as usize;

/// One block. Answers at once, and takes nothing from the heap.
struct OneBlock {
    bytes: Mutex<Box<[u8]>>,
    transfers: AtomicU64,
}

impl BlockStore for OneBlock {
    fn name(&self) -> &str {
        "one block"
    }

    fn block_bytes(&self) -> usize {
        BLOCK
    }

    fn read(&self, mut transfer: BlockTransfer) {
        self.transfers.fetch_add(1, Relaxed);
        transfer.fill(0, &self.bytes.lock().unwrap());
        transfer.complete(BLOCK, PageError::Io);
    }

    fn write(&self, transfer: BlockTransfer) {
        self.transfers.fetch_add(1, Relaxed);
        transfer.copy_out(0, &mut self.bytes.lock().unwrap());
        transfer.complete(BLOCK, PageError::Io);
    }
}

struct Scene {
    machine: &'static Machine,
    store: Arc<OneBlock>,
    pager: Arc<BlocksOf>,
    object: Arc<VmObject>,
    servers: Vec<Pin<Box<dyn Future<Output = ()>>>>,
}

fn one_block() -> Arc<OneBlock> {
    let bytes = Mutex::new(vec![1; BLOCK].into_boxed_slice());
    Arc::new(OneBlock { bytes, transfers: AtomicU64::new(0) })
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new(512);
        let store = one_block();
        let pager = BlocksOf::try_new(machine.memory, store.clone()).unwrap();
        let object = VmObject::new(machine.memory, pager.clone(), PAGES as u64);
        let mut servers: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        for serves in [Serves::Loads, Serves::Stores] {
            servers.push(Box::pin(pager.try_server(serves).unwrap()));
        }
        Self { machine, store, pager, object, servers }
    }

    /// Polls until it is done; the servers get their turn after each poll, so nothing waits for them at the end.
    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let polled = future.as_mut().poll(&mut context);
            self.servers
                .iter_mut()
                .for_each(|server| assert!(server.as_mut().poll(&mut context).is_pending()));
            if let Poll::Ready(value) = polled {
                return value;
            }
        }
        panic!("it waits for ever");
    }
}

#[test]
fn a_load_without_heap_is_an_error_or_comes_alone() {
    let (mut refused, mut alone) = (0, 0);
    for room in 0.. {
        let mut scene = Scene::new();
        let (object, free) = (scene.object.clone(), scene.machine.free());
        let mut bytes = [0; 8];
        let result = with_heap(room, || scene.run(object.read(PAGE, &mut bytes)));
        let there = scene.object.stats();
        assert_eq!((there.transfers, scene.pager.waiting()), (0, 0));
        assert_eq!(there.resident, (free - scene.machine.free()) as u64);
        match result {
            Err(error) => {
                let state = scene.object.state(page(1));
                assert!(matches!(state, PageState::Absent | PageState::Failed), "{state}");
                assert_eq!(error, PageError::OutOfMemory);
                refused += 1;
            }
            Ok(()) if there.resident < PAGES as u64 => alone += 1,
            Ok(()) => break,
        }
        let result = scene.run(object.read(PAGE, &mut bytes));
        assert_eq!((result, bytes), (Ok(()), [1; 8]));
    }
    assert!(refused >= 2 && alone >= 1, "{refused} {alone}");
}

#[test]
fn a_store_without_heap_is_an_error_and_the_page_stays_dirty() {
    let mut refused = 0;
    for room in 0.. {
        let mut scene = Scene::new();
        let object = scene.object.clone();
        scene.run(object.write(PAGE, &[7])).unwrap();
        scene.store.transfers.store(0, Relaxed);
        let result = with_heap(room, || scene.run(object.store(page(0)..page(PAGES as u64))));
        assert_eq!((scene.object.stats().transfers, scene.pager.waiting()), (0, 0));
        assert!(matches!(scene.object.state(page(1)), PageState::Dirty { .. }));
        let transfers = scene.store.transfers.load(Relaxed);
        if result.is_ok() {
            assert_eq!(transfers, 2);
            let bytes = scene.store.bytes.lock().unwrap();
            assert!(
                bytes.iter().enumerate().all(|(at, byte)| *byte == if at == PAGE as usize { 7 } else { 1 })
            );
            break;
        }
        assert_eq!((result.unwrap_err().error, transfers), (PageError::OutOfMemory, 0));
        refused += 1;
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn a_pager_and_its_servers_leave_nothing_without_heap() {
    let machine = Machine::new(64);
    let (store, free) = (one_block(), machine.free());
    let mut refused = 0;
    let pager = loop {
        match with_heap(refused, || BlocksOf::try_new(machine.memory, store.clone())) {
            Ok(pager) => break pager,
            Err(error) => assert_eq!(error, BlocksError::OutOfMemory),
        }
        assert_eq!(Arc::strong_count(&store), 1);
        refused += 1;
    };
    assert!(refused >= 2, "the pager and its queue");
    let mut refused = 0;
    let server = loop {
        match with_heap(refused, || pager.try_server(Serves::Loads)) {
            Ok(server) => break server,
            Err(OutOfMemory) => assert_eq!(machine.free(), free),
        }
        refused += 1;
    };
    assert!(refused >= 3, "its places, its frames and where its transfer comes back");
    assert_eq!(machine.free(), free - PAGES);
    drop(server);
    assert_eq!(machine.free(), free);
}
