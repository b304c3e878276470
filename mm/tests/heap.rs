//! A heap that is full at every possible point of a fault or of a change of mappings: an error for the one who asked, and
//! nothing left behind.

mod common;
mod limited_heap;

use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use common::cpus::{Busy, poll_once};
use common::{Machine, PAGE, USER_RANGE, address, page, range};
use executor::host::block_on_cpus;
use limited_heap::{FULL, use_up_nodes, with_heap};
use mm::{
    Access, AddressSpace, Denial, Fault, FaultOutcome, Hardware, MapError, OutOfMemory, PageError,
    PageRequest, PageState, PageTable, Pager, Placement, Protection, VirtAddr, VmObject,
};

/// Loads at once, with what is in the frame.
struct AtOnce;

impl Pager for AtOnce {
    fn name(&self) -> &str {
        "at once"
    }

    fn load(&self, mut request: PageRequest) {
        let result = match request.memory().frames().try_alloc() {
            Some(frame) => {
                request.attach(frame);
                Ok(())
            }
            None => Err(PageError::OutOfMemory),
        };
        request.complete(result);
    }
}

struct Scene {
    machine: &'static Machine,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    fault: Fault,
}

/// The page of a large object that is touched: its way in the object's tree is long.
const TOUCHED: u64 = 1_000_000;

impl Scene {
    fn new(machine: &'static Machine, make: fn(&'static Machine, u64) -> Arc<VmObject>) -> Self {
        let space = machine.window();
        let object = make(machine, TOUCHED + 1);
        let start =
            space.map(&object, page(TOUCHED), 1, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let fault = machine.fault(start.as_u64(), Access::Write);
        Self { machine, object, space, fault }
    }

    /// One fault, for which everything is there or nothing.
    fn resolve(&self) -> FaultOutcome {
        now(self.space.resolve(self.fault))
    }
}

fn zero(machine: &'static Machine, pages: u64) -> Arc<VmObject> {
    VmObject::zero(machine.memory, pages)
}

fn loaded(machine: &'static Machine, pages: u64) -> Arc<VmObject> {
    VmObject::new(machine.memory, Arc::new(AtOnce), pages)
}

#[test]
fn a_fault_without_heap_is_denied_and_changes_nothing() {
    for make in [zero, loaded] {
        let scene = Scene::new(Machine::new(64), make);
        let free = scene.machine.free();
        let mut denied = 0;
        while let outcome = with_heap(denied, || scene.resolve())
            && outcome != FaultOutcome::Resolved
        {
            assert_eq!(outcome, FaultOutcome::Denied(Denial::OutOfMemory));
            assert_eq!((scene.object.state(page(TOUCHED)), scene.machine.free()), (PageState::Absent, free));
            assert_eq!((scene.object.stats().transfers, scene.object.stats().resident), (0, 0));
            denied += 1;
        }
        assert!(denied >= 2, "inner nodes and chunks need a page each");
        assert!(matches!(scene.object.state(page(TOUCHED)), PageState::Dirty { .. }));
    }
}

#[test]
fn a_fault_without_heap_waits_while_there_is_no_frame_either() {
    for make in [zero, loaded] {
        let scene = Scene::new(Machine::new(64), make);
        let frames = scene.machine.memory.frames();
        let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let mut fault = pin!(scene.space.resolve(scene.fault));
        assert!(with_heap(0, || poll(fault.as_mut())).is_pending());
        assert_eq!(frames.stats().waiting, 1);
        // Memory comes back, and with it room in the heap.
        taken.truncate(taken.len() - 8);
        assert_eq!(poll(fault.as_mut()), Poll::Ready(FaultOutcome::Resolved));
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn objects_and_spaces_without_heap_are_errors() {
    let machine = Machine::new(64);
    let free = machine.free();
    let root = machine.window().root();
    let all = address(USER_RANGE.start)..address(USER_RANGE.end);
    // What the processor itself needs of the host's heap is there.
    machine.processor.forget_space(root);
    let make = || {
        let object = VmObject::try_zero(machine.memory, 8)?;
        let table = PageTable::new_user(machine.memory, root)?;
        Ok((object, AddressSpace::try_new(machine.memory, table, all.clone())?))
    };
    let mut refused = 0;
    let made = loop {
        match with_heap(refused, make) {
            Err(OutOfMemory) => assert_eq!(machine.free(), free),
            Ok(made) => break made,
        }
        refused += 1;
    };
    assert!(refused >= 4, "an object, its number, a space and its tables need the heap");
    drop(made);
    assert_eq!(machine.free(), free);
}

/// Two pages in the middle of eight.
fn middle(start: VirtAddr) -> Range<VirtAddr> {
    range(address(start.as_u64() + 3 * PAGE), 2)
}

#[test]
fn changes_of_mappings_without_heap_are_errors_and_change_nothing() {
    const PAGES: u64 = 8;
    type Change = fn(&AddressSpace, &Arc<VmObject>, VirtAddr) -> Result<(), MapError>;
    let map: Change =
        |space, object, _| space.map(object, page(0), PAGES, Protection::READ, Placement::Anywhere).map(drop);
    // A part in the middle: both ends split a mapping.
    let unmap: Change = |space, _, start| now(space.unmap(middle(start)));
    let protect: Change = |space, _, start| now(space.protect(middle(start), Protection::READ));
    for (change, needed) in [(map, 2), (unmap, 4), (protect, 4)] {
        let machine = Machine::new(64);
        let space = machine.window();
        let object = VmObject::zero(machine.memory, PAGES);
        let start = space.map(&object, page(0), PAGES, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let fault = machine.fault(middle(start).start.as_u64(), Access::Write);
        assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
        // What the processor itself needs of the host's heap is there.
        machine.processor.invalidate(space.root(), start);
        let before = space.stats();
        let mut refused = 0;
        while let Err(why) = with_heap(refused, || change(&space, &object, start)) {
            assert_eq!(why, MapError::NoMemory);
            let after = space.stats();
            assert_eq!((after.mapped_pages, after.resident_pages), (before.mapped_pages, 1));
            assert_eq!(object.stats().mappings, after.mappings);
            assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
            refused += 1;
        }
        assert!(refused >= needed, "{refused}");
        assert_ne!(space.stats(), before);
    }
}

#[test]
fn what_is_mapped_is_unmapped_without_heap() {
    let machine = Machine::new(64);
    let space = machine.window();
    let object = VmObject::zero(machine.memory, 1);
    let starts: Vec<_> = (0..100)
        .map(|_| space.map(&object, page(0), 1, Protection::READ_WRITE, Placement::Anywhere).unwrap())
        .collect();
    for start in starts {
        assert_eq!(with_heap(FULL, || now(space.unmap(range(start, 1)))), Ok(()));
    }
    assert_eq!((space.stats().mappings, object.stats().mappings), (0, 0));
}

#[test]
fn a_fault_for_which_the_heap_has_no_room_is_denied() {
    for make in [zero, loaded] {
        let scene = Scene::new(Machine::new(64), make);
        let short = &scene.machine.processor.heap_is_short;
        short.store(true, Relaxed);
        assert_eq!(scene.resolve(), FaultOutcome::Denied(Denial::OutOfMemory));
        assert_eq!(scene.object.state(page(TOUCHED)), PageState::Absent);
        short.store(false, Relaxed);
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
        // What is there needs no room.
        short.store(true, Relaxed);
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match poll_once(pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}

#[test]
fn a_touch_of_a_dropped_page_without_heap_is_denied() {
    block_on_cpus(2, async {
        let scene = Scene::new(Machine::with_cpus(64), zero);
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
        let busy = Busy::begin(scene.machine).await;
        let mut release = Box::pin(scene.object.release(page(TOUCHED)..page(TOUCHED + 1)));
        assert!(poll_once(release.as_mut()).is_pending());
        let outcome = with_heap(0, || scene.resolve());
        assert_eq!(outcome, FaultOutcome::Denied(Denial::OutOfMemory));
        busy.end().await;
        release.await;
        assert_eq!(scene.resolve(), FaultOutcome::Resolved);
    });
}

#[test]
fn private_memory_and_forks_without_heap_are_errors_and_leave_nothing() {
    let machine = Machine::new(200);
    let rights = Protection::READ_WRITE.for_user();
    let object = VmObject::new(machine.memory, Arc::new(AtOnce), 2);
    let space = machine.user_space();
    let at = |index: u64| 0x40_0000 + index * PAGE;
    let placed = |index| Placement::Fixed(address(at(index)));
    let mut refused = 0;
    while let Err(why) = with_heap(refused, || space.map_anonymous(2, rights, placed(0))) {
        assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 0));
        refused += 1;
    }
    assert!(refused >= 4, "an object, a version, and two notes of the mapping: {refused}");
    let mut refused = 0;
    while let Err(why) = with_heap(refused, || space.map_private(&object, page(0), 2, rights, placed(2))) {
        assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 1));
        assert_eq!(object.stats().mappings, 0);
        refused += 1;
    }
    assert!(refused >= 5, "and a note with the object below: {refused}");
    for index in 0..4 {
        now(machine.write(&space, at(index), index + 1)).unwrap();
    }
    let free = machine.free();
    let mut refused = 0;
    let twin = loop {
        let table = machine.empty_table();
        if let Ok(twin) = with_heap(refused, || now(space.fork(table))) {
            break twin;
        }
        // Nothing that was begun is in the way of a write.
        for index in 0..4 {
            now(machine.write(&space, at(index), index + 1)).unwrap();
        }
        assert_eq!((machine.free(), object.stats().mappings), (free, 1), "{refused}");
        refused += 1;
    };
    assert!(refused >= 8, "{refused}");
    for index in 0..4 {
        assert_eq!(now(machine.read(&twin, at(index))), Ok(index + 1));
    }
    // A copy needs the heap for its place.
    let nodes = use_up_nodes(machine.memory);
    let fault = machine.fault(at(0), Access::Write);
    let mut denied = 0;
    while with_heap(denied, || now(twin.resolve(fault))) != FaultOutcome::Resolved {
        assert_eq!(now(machine.read(&twin, at(0))), Ok(1));
        denied += 1;
    }
    assert!(denied > 0);
    drop((twin, nodes));
    now(machine.memory.settle());
    assert_eq!(machine.free(), free);
}

#[test]
fn a_store_without_heap_is_an_error_and_the_page_stays_dirty() {
    let machine = Machine::new(64);
    let pager = machine.pager();
    let object = VmObject::new(machine.memory, pager.clone(), 2);
    let all = page(0)..page(2);
    now(object.write(0, &[1])).unwrap();
    now(object.write(PAGE, &[2])).unwrap();
    // The requests' places and the transfer; what comes next is the pager's business.
    for allocations in 0..2 {
        let refused = with_heap(allocations, || now(object.store(all.clone())));
        assert_eq!(refused.map_err(|why| why.error), Err(PageError::OutOfMemory));
        for index in 0..2 {
            assert!(matches!(object.state(page(index)), PageState::Dirty { .. }));
        }
        assert_eq!((object.stats().transfers, pager.stores()), (0, 0));
    }
    assert_eq!(now(object.store(all.clone())), Ok(()));
    assert_eq!((pager.backing(page(0))[0], pager.backing(page(1))[0]), (1, 2));
    assert_eq!(now(object.mark(all)), 2);
}
