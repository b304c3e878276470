//! Faults that are answered where the trap arrives: those for which nothing has to be waited for, and no others.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::{Machine, PAGE, address, page};
use executor::lock::{held_guard, in_trap};
use mm::{
    Access, AddressSpace, Fault, FaultOutcome, PageRequest, PageState, Pager, Placement, Protection,
    TestPager, VmObject,
};

const BASE: u64 = 0x4000_0000;
const RIGHTS: Protection = Protection::READ_WRITE.for_user();

fn now<T>(future: impl Future<Output = T>) -> T {
    match poll_once(pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}

fn at_once(space: &AddressSpace, fault: Fault) -> bool {
    in_trap(|within| space.resolve_at_once(fault, within))
}

#[test]
fn a_page_that_is_there_or_can_be_made_is_shown_at_once() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    space.map_anonymous(4, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    let minor = machine.memory.stats().minor_faults;
    assert!(at_once(&space, machine.fault(BASE, Access::Read)));
    assert_eq!(machine.try_read(space.root(), BASE), Some(0));
    assert!(at_once(&space, machine.fault(BASE, Access::Write)));
    assert_eq!(machine.try_write(space.root(), BASE, 7), Some(()));
    // A copy takes the place of what was shown.
    let twin = now(space.fork(machine.empty_table())).unwrap();
    assert_eq!(machine.try_write(space.root(), BASE, 8), None);
    assert!(at_once(&space, machine.fault(BASE, Access::Write)));
    assert_eq!(machine.try_write(space.root(), BASE, 8), Some(()));
    assert_eq!((now(machine.read(&twin, BASE)), now(machine.read(&space, BASE))), (Ok(7), Ok(8)));
    assert!(machine.memory.stats().minor_faults >= minor + 3);
}

#[test]
fn what_is_copied_out_takes_the_place_of_the_zeros_that_a_page_shows() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    space.map_anonymous(1, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    assert!(at_once(&space, machine.fault(BASE, Access::Read)));
    assert_eq!(machine.try_read(space.root(), BASE), Some(0));
    now(space.copy_out(BASE, &7_u64.to_ne_bytes())).unwrap();
    assert_eq!(machine.try_read(space.root(), BASE), Some(7), "with no fault");
}

#[test]
fn a_page_that_has_to_be_loaded_is_left_alone() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let object = VmObject::new(machine.memory, machine.pager(), 2);
    space.map(&object, page(0), 1, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    space.map_private(&object, page(1), 1, RIGHTS, Placement::Fixed(address(BASE + PAGE))).unwrap();
    for at in [BASE, BASE + PAGE] {
        assert!(!at_once(&space, machine.fault(at, Access::Write)));
    }
    let stats = machine.memory.stats();
    assert_eq!((stats.loads_started, stats.minor_faults, object.stats().transfers), (0, 0, 0));
    assert_eq!([object.state(page(0)), object.state(page(1))], [PageState::Absent; 2]);
}

/// Nobody may hold a lock who asks it anything.
struct Unlocked(Arc<TestPager>);

impl Pager for Unlocked {
    fn name(&self) -> &str {
        "unlocked"
    }

    fn load(&self, request: PageRequest) {
        assert_eq!(held_guard(), None);
        self.0.load(request);
    }

    fn pages_at_once(&self) -> usize {
        assert_eq!(held_guard(), None);
        4
    }
}

#[test]
fn a_fault_asks_a_pager_nothing_with_a_lock_held() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let object = VmObject::new(machine.memory, Arc::new(Unlocked(machine.pager())), 8);
    space.map(&object, page(0), 8, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    for at in [BASE, BASE + PAGE] {
        let fault = machine.fault(at, Access::Read);
        assert!(!at_once(&space, fault), "it may be the time to read on");
        assert_eq!(now(space.resolve(fault)), FaultOutcome::Resolved);
        assert!(!at_once(&space, fault));
    }
}

#[test]
fn what_is_denied_is_left_to_who_can_say_why() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    space.map_anonymous(1, Protection::READ.for_user(), Placement::Fixed(address(BASE))).unwrap();
    for (at, access) in [(BASE, Access::Write), (BASE + PAGE, Access::Read)] {
        let fault = machine.fault(at, access);
        assert!(!at_once(&space, fault));
        assert_eq!(machine.memory.stats().denied, u64::from(at > BASE));
        assert!(matches!(now(space.resolve(fault)), FaultOutcome::Denied(_)));
    }
}

#[test]
fn without_a_frame_nothing_has_happened() {
    let machine = Machine::new(64);
    let space = machine.user_space();
    space.map_anonymous(1, RIGHTS, Placement::Fixed(address(BASE))).unwrap();
    let frames = machine.memory.frames();
    let taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    assert!(!at_once(&space, machine.fault(BASE, Access::Write)));
    assert_eq!((frames.stats().waiting, space.stats().resident_pages), (0, 0));
    drop(taken);
    assert!(at_once(&space, machine.fault(BASE, Access::Write)));
}
