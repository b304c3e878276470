//! A heap that is full at every possible point of read-ahead, and of what can be done with overlays: an error for the one
//! who asked, or nothing read ahead, and nothing left behind.

mod common;
mod limited_heap;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{Machine, PAGE, page};
use limited_heap::{use_up_nodes, with_heap};
use mm::{
    Access, AddressSpace, Denial, FaultOutcome, MapError, PageError, PageRequest, PageState, Pager,
    Placement, Protection, Requests, StoreRequest, VirtAddr, VmObject,
};

/// Completes everything at once, and takes nothing from the heap.
struct AtOnce;

impl Pager for AtOnce {
    fn name(&self) -> &str {
        "at once"
    }

    fn load(&self, mut request: PageRequest) {
        let result = if request.try_attach() { Ok(()) } else { Err(PageError::OutOfMemory) };
        request.complete(result);
    }

    fn load_range(&self, requests: Requests<PageRequest>) {
        requests.into_iter().for_each(|request| self.load(request));
    }

    fn pages_at_once(&self) -> usize {
        32
    }

    fn store(&self, request: StoreRequest) {
        request.complete(Ok(()));
    }
}

const PAGES: u64 = 512;

struct Scene {
    machine: &'static Machine,
    base: Arc<VmObject>,
    overlay: Arc<VmObject>,
    space: Arc<AddressSpace>,
    /// Where the base is mapped, and where the overlay is.
    at: [VirtAddr; 2],
    free: usize,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new(512);
        // What the processor remembers takes its own memory.
        machine.forget_translations();
        let space = machine.window();
        let base = VmObject::new(machine.memory, Arc::new(AtOnce), PAGES);
        let overlay = VmObject::overlay(base.clone());
        let map = |object| space.map(object, page(0), PAGES, Protection::READ_WRITE, Placement::Anywhere);
        let at = [map(&base).unwrap(), map(&overlay).unwrap()];
        // The last pages are for the tables.
        for start in at {
            let fault = machine.fault(start.as_u64() + (PAGES - 1) * PAGE, Access::Read);
            assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
            let fault = machine.fault(start.as_u64(), Access::Read);
            assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
        }
        let free = machine.free();
        Self { machine, base, overlay, space, at, free }
    }

    fn touch(&self, object: usize, index: u64, access: Access) -> FaultOutcome {
        let fault = self.machine.fault(self.at[object].as_u64() + index * PAGE, access);
        now(self.space.resolve(fault))
    }

    /// Every frame is one page's, and nothing is under way.
    fn check(&self, pages: u64) {
        let (base, overlay) = (self.base.stats(), self.overlay.stats());
        assert_eq!((base.transfers, overlay.transfers), (0, 0));
        assert_eq!(base.resident + overlay.resident - pages, (self.free - self.machine.free()) as u64);
    }
}

/// A future that is done at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

const DENIED: FaultOutcome = FaultOutcome::Denied(Denial::OutOfMemory);

#[test]
fn without_heap_less_is_read_ahead_or_the_fault_is_denied() {
    let (mut denied, mut alone) = (0, 0);
    for room in 0.. {
        let scene = Scene::new();
        let before = scene.base.stats().resident;
        // The next page is the first of its node.
        assert_eq!(scene.touch(0, 63, Access::Read), FaultOutcome::Resolved);
        let ahead = scene.machine.memory.stats().loads_ahead;
        let nodes = use_up_nodes(scene.machine.memory);
        let outcome = with_heap(room, || scene.touch(0, 64, Access::Read));
        drop(nodes);
        scene.check(before);
        let ahead = scene.machine.memory.stats().loads_ahead - ahead;
        match outcome {
            DENIED => {
                assert_eq!((scene.base.state(page(64)), ahead), (PageState::Absent, 0));
                denied += 1;
            }
            _ if ahead == 0 => alone += 1,
            _ => break,
        }
        assert_eq!(scene.touch(0, 65, Access::Read), FaultOutcome::Resolved);
    }
    assert!(denied >= 1 && alone >= 1, "{denied} {alone}");
}

#[test]
fn a_write_to_an_overlay_without_heap_is_denied_and_there_is_no_copy() {
    let mut denied = 0;
    loop {
        let scene = Scene::new();
        let before = scene.base.stats().resident;
        let nodes = use_up_nodes(scene.machine.memory);
        let outcome = with_heap(denied, || scene.touch(1, 0, Access::Write));
        drop(nodes);
        scene.check(before);
        if outcome == FaultOutcome::Resolved {
            assert_eq!(scene.overlay.stats().resident, 1);
            break;
        }
        assert_eq!((outcome, scene.overlay.state(page(0))), (DENIED, PageState::Absent));
        denied += 1;
    }
    assert!(denied >= 1);
}

#[test]
fn a_store_and_a_mark_of_an_overlay_without_heap_keep_the_page() {
    let mut refused = 0;
    for room in 0.. {
        let scene = Scene::new();
        let before = scene.base.stats().resident;
        assert_eq!(scene.touch(1, 0, Access::Write), FaultOutcome::Resolved);
        scene.base.release(page(0)..page(PAGES)).poll_once();
        let all = page(0)..page(PAGES);
        let result = with_heap(room, || now(scene.overlay.store_and_mark(all.clone())));
        match result {
            Err(error) => {
                assert_eq!((error.page, error.error), (page(0), PageError::OutOfMemory));
                refused += 1;
            }
            // No room to fold it.
            Ok(0) => {}
            Ok(_) => {
                assert_eq!(scene.overlay.stats().resident, 0);
                assert!(matches!(scene.base.state(page(0)), PageState::Loaded { .. }));
                break;
            }
        }
        assert!(matches!(scene.overlay.state(page(0)), PageState::Dirty { .. }));
        assert_eq!(scene.overlay.stats().transfers, 0);
        assert_eq!(now(scene.overlay.store_and_mark(all)), Ok(1));
        assert_eq!(scene.base.stats().resident, 1, "{before}");
    }
    assert!(refused >= 1);
}

trait PollOnce {
    fn poll_once(self);
}

impl<F: Future<Output = ()>> PollOnce for F {
    fn poll_once(self) {
        now(self);
    }
}

#[test]
fn a_close_without_heap_leaves_the_object_open() {
    let mut refused = 0;
    loop {
        let scene = Scene::new();
        assert_eq!(scene.touch(0, 0, Access::Write), FaultOutcome::Resolved);
        match with_heap(refused, || now(scene.base.close())) {
            Ok(()) => break assert_eq!(scene.base.stats().resident, 0),
            Err(error) => assert_eq!(error.error, PageError::OutOfMemory),
        }
        assert_eq!(scene.touch(0, 0, Access::Write), FaultOutcome::Resolved);
        refused += 1;
    }
    assert!(refused >= 1);
}

#[test]
fn a_close_of_an_overlay_and_its_base_without_heap_leaves_both_open() {
    let mut refused = 0;
    loop {
        let scene = Scene::new();
        // The base's page is changed, another one's copy is the overlay's.
        assert_eq!(scene.touch(0, 0, Access::Write), FaultOutcome::Resolved);
        assert_eq!(scene.touch(1, 1, Access::Write), FaultOutcome::Resolved);
        match with_heap(refused, || now(scene.overlay.close_with_base())) {
            Ok(()) => {
                assert_eq!((scene.base.stats().resident, scene.overlay.stats().resident), (0, 0));
                break;
            }
            Err(error) => assert_eq!(error.error, PageError::OutOfMemory),
        }
        assert_eq!(scene.touch(0, 0, Access::Write), FaultOutcome::Resolved);
        assert_eq!(scene.touch(1, 1, Access::Write), FaultOutcome::Resolved);
        refused += 1;
    }
    assert!(refused >= 1);
}

#[test]
fn an_overlay_and_its_mapping_need_the_heap_and_leave_nothing_without() {
    let scene = Scene::new();
    let noted = (scene.base.stats().mappings, scene.overlay.stats().mappings);
    let mut refused = 0;
    let overlay = loop {
        match with_heap(refused, || VmObject::try_overlay(scene.base.clone())) {
            Ok(overlay) => break overlay,
            Err(mm::OutOfMemory) => refused += 1,
        }
    };
    assert!(refused >= 2, "the object and its number");
    let map =
        || scene.space.map(&overlay, page(0), PAGES, Protection::READ_WRITE, Placement::Anywhere).map(drop);
    let mut unmapped = 0;
    while let Err(error) = with_heap(unmapped, map) {
        assert_eq!((error, overlay.stats().mappings), (MapError::NoMemory, 0));
        assert_eq!((scene.base.stats().mappings, scene.overlay.stats().mappings), noted);
        unmapped += 1;
    }
    assert!(unmapped >= 3, "noted with the space, the overlay and the base");
    assert_eq!((scene.base.stats().mappings, overlay.stats().mappings), (noted.0 + 1, 1));
}
