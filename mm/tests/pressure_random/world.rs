//! The machine, its disks, and what goes wrong with them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor::{JoinHandle, spawn, time};
use mm::{AddressSpace, Marks, PageError, SharedMemory, TestPager, TestStore, Victims, VmObject};

use crate::common::{Machine, content};
use crate::limited_heap::{Disk, with_heap};
use crate::process::Process;
use crate::steps::Trouble;

/// Pages of memory that is a process's own.
pub(crate) const OWN: u64 = 24;
/// Pages of the file, which all show.
pub(crate) const FILE: u64 = 24;
/// Pages of another that each changes for itself.
pub(crate) const OVER: u64 = 8;
/// Pages of memory that all show, without a file.
pub(crate) const SHARED: u64 = 16;
pub(crate) const PROCESSES: usize = 4;
/// Longer than all disks together do not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// What came of the programs, over all of them.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    pub(crate) done: AtomicUsize,
    pub(crate) io: AtomicUsize,
    pub(crate) memory: AtomicUsize,
    pub(crate) forks: AtomicUsize,
    pub(crate) victims: AtomicUsize,
    pub(crate) flushes: AtomicUsize,
    pub(crate) swapped: AtomicUsize,
}

pub(crate) static COUNTS: Counts = Counts {
    done: AtomicUsize::new(0),
    io: AtomicUsize::new(0),
    memory: AtomicUsize::new(0),
    forks: AtomicUsize::new(0),
    victims: AtomicUsize::new(0),
    flushes: AtomicUsize::new(0),
    swapped: AtomicUsize::new(0),
};

pub(crate) fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Relaxed);
}

pub(crate) struct World {
    pub(crate) machine: &'static Machine,
    pub(crate) swap: Arc<TestStore>,
    pub(crate) disk: Arc<TestPager>,
    pub(crate) file: Arc<VmObject>,
    pub(crate) over: Arc<VmObject>,
    /// Until the end.
    pub(crate) shared: Mutex<Option<SharedMemory>>,
    pub(crate) shared_words: Mutex<Vec<u64>>,
    /// What the file's pages hold.
    pub(crate) words: Mutex<Vec<u64>>,
    pub(crate) alive: Mutex<Vec<Arc<AddressSpace>>>,
    pub(crate) victims: Mutex<Vec<Arc<AddressSpace>>>,
    pub(crate) running: Mutex<Vec<JoinHandle<()>>>,
    /// Processes that have done what they had to do.
    pub(crate) done: Mutex<Vec<Process>>,
    /// Which processes there are: each writes to its own pages of the file.
    pub(crate) taken: [AtomicBool; PROCESSES],
    /// Allocations that there is room for in a fault or a call.
    pub(crate) heap: AtomicUsize,
}

impl Victims for World {
    fn each_space(&self, told: &mut dyn FnMut(&Arc<AddressSpace>)) {
        self.alive.lock().unwrap().iter().for_each(told);
    }

    fn end(&self, space: &Arc<AddressSpace>, _pages: u64) {
        count(&COUNTS.victims);
        self.alive.lock().unwrap().retain(|other| !Arc::ptr_eq(space, other));
        self.victims.lock().unwrap().push(space.clone());
    }
}

impl World {
    pub(crate) fn new(frames: usize, marks: Marks, slots: u64) -> &'static Self {
        let machine = Machine::new(frames);
        machine.memory.frames().set_marks(marks);
        let (swap, disk) = (TestStore::new(slots), machine.pager());
        machine.memory.swap_on(Arc::new(Disk(swap.clone()))).unwrap();
        let file = VmObject::new(machine.memory, Arc::new(Disk(disk.clone())), FILE);
        let over = VmObject::new(machine.memory, Arc::new(Disk(machine.pager())), OVER);
        let world: &'static Self = Box::leak(Box::new(Self {
            machine,
            swap,
            disk,
            file,
            over,
            shared: Mutex::new(Some(SharedMemory::try_new(machine.memory, SHARED).unwrap())),
            shared_words: Mutex::new(vec![0; SHARED as usize]),
            words: Mutex::new((0..FILE).map(content).collect()),
            alive: Mutex::default(),
            victims: Mutex::default(),
            running: Mutex::default(),
            done: Mutex::default(),
            taken: Default::default(),
            heap: AtomicUsize::new(usize::MAX),
        }));
        machine.memory.set_victims(world);
        world
    }

    /// Polls with the heap that there is, and ends, or else the test fails.
    pub(crate) async fn limited<T>(&self, future: impl Future<Output = T> + Send) -> T {
        let mut future: Pin<Box<dyn Future<Output = T> + Send + '_>> = Box::pin(future);
        let polled = poll_fn(|context| with_heap(self.heap.load(Relaxed), || future.as_mut().poll(context)));
        time::timeout(PATIENCE, polled).await.expect("every wait ends")
    }

    pub(crate) fn cure(&self) {
        self.swap.fail_reads(0);
        self.swap.fail_writes(0);
        self.disk.fail(None, 0, PageError::Io);
        self.disk.fail_stores(None, 0, PageError::Io);
        self.disk.fail_flushes(0, PageError::Io);
        self.heap.store(usize::MAX, Relaxed);
    }

    pub(crate) fn release(&self) {
        self.swap.release_all();
        let disk = self.disk.clone();
        self.running.lock().unwrap().push(spawn(async move {
            disk.release_all().await;
        }));
    }

    pub(crate) async fn make(&self, troubles: Vec<(u64, Trouble)>) {
        let mut frames = Vec::new();
        for (millis, trouble) in troubles {
            time::sleep(Duration::from_millis(millis)).await;
            match trouble {
                Trouble::HoldSwap => self.swap.hold(),
                Trouble::FailSwapReads { times } => self.swap.fail_reads(times),
                Trouble::FailSwapWrites { times } => self.swap.fail_writes(times),
                Trouble::HoldFile => self.disk.hold(),
                Trouble::FailLoads { times } => self.disk.fail(None, times, PageError::Io),
                Trouble::FailStores { times } => self.disk.fail_stores(None, times, PageError::Io),
                Trouble::FailFlushes { times } => self.disk.fail_flushes(times, PageError::Io),
                Trouble::Heap { allocations } => self.heap.store(allocations, Relaxed),
                Trouble::TakeFrames { frames: more } => {
                    // What lies below the low mark is for page tables.
                    let pool = self.machine.memory.frames();
                    let is_left = |_: &usize| pool.stats().free > pool.marks().low;
                    frames.extend((0..more).take_while(is_left).map_while(|_| pool.try_alloc()));
                }
                Trouble::Release => {
                    frames.clear();
                    self.release();
                }
                Trouble::Cure => self.cure(),
            }
        }
        drop(frames);
        self.cure();
        self.release();
    }
}
