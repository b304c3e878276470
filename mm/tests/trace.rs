//! What is recorded of pages, and the checker that replays it.

mod common;

use std::pin::pin;

use common::cpus::poll_once;
use common::{Machine, page};
use mm::trace::{Checker, Event, ObjectName, PageWord, StateChange};
use mm::{PageError, PageEvent, Placement, Protection, VmObject, Wrong};

const OBJECT: u64 = 7;

fn word(bits: u64) -> PageWord {
    PageWord::from_bits(bits)
}

fn change(from: u64, event: PageEvent, to: u64) -> StateChange {
    StateChange {
        object: ObjectName::from_bits(OBJECT),
        page: page(3),
        from: word(from),
        event,
        to: word(to),
    }
}

/// Words as they are recorded: the code of the state, its bits, the frame.
const ABSENT: u64 = 0;
const LOADING: u64 = 1;
const LOADED: u64 = 3 | USED | FRAME;
const DIRTY: u64 = 4 | FRAME;
const STORING: u64 = 7 | STORED | FRAME;
const FRAME: u64 = 0x5000;
const USED: u64 = 1 << 4;
const STORED: u64 = 1 << 6;
const WRITTEN: u64 = 1 << 7;

#[test]
fn a_simulated_machine_looks_each_change_up() {
    let machine = Machine::new(100);
    let object = VmObject::new(machine.memory, machine.pager(), 4);
    assert!(poll_once(pin!(object.write(0, &[1; 100]))).is_ready());
    let story = ["load done", "written", "stored", "marked", "evicted"].len() as u64;
    let before = machine.processor.changes();
    assert!(before >= 2, "it was loaded and written");
    assert!(poll_once(pin!(object.store(page(0)..page(4)))).is_ready());
    assert!(poll_once(pin!(object.mark(page(0)..page(4)))).is_ready());
    assert!(poll_once(pin!(object.evict(page(0)))).is_ready());
    assert!(machine.processor.changes() >= before + story - 2, "{}", machine.processor.changes());
}

#[test]
fn nothing_is_recorded_until_that_is_asked_for() {
    let machine = Machine::new(100);
    machine.memory.record_as(0);
    let object = VmObject::new(machine.memory, machine.pager(), 4);
    assert!(poll_once(pin!(object.write(0, &[1; 100]))).is_ready());
    assert_eq!(machine.processor.changes(), 0);
}

/// What was asked of the object's pager and answered: the first page, how many, whether it failed.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    Load(u64, u64),
    Store(u64, u64),
    Loaded(u64, bool),
    Stored(u64, bool),
}
use Told::*;

fn now(future: impl Future<Output = ()>) {
    assert!(poll_once(pin!(future)).is_ready());
}

fn told(machine: &Machine) -> Vec<Told> {
    let told = |event: Event| match event {
        Event::Request { store: false, first, pages, .. } => Some(Load(first.as_u64(), pages)),
        Event::Request { store: true, first, pages, .. } => Some(Store(first.as_u64(), pages)),
        Event::Complete { store: false, page, failed, .. } => Some(Loaded(page.as_u64(), failed)),
        Event::Complete { store: true, page, failed, .. } => Some(Stored(page.as_u64(), failed)),
        _ => None,
    };
    machine.processor.take_events().into_iter().filter_map(told).collect()
}

#[test]
fn what_a_pager_is_asked_for_and_its_answers_are_told() {
    let machine = Machine::new(100);
    machine.processor.keep_events();
    let pager = machine.pager();
    pager.set_pages_at_once(32);
    let object = VmObject::new(machine.memory, pager.clone(), 8);
    let made = machine.processor.take_events();
    let names = |event: &Event| matches!(event, Event::Made(_, name) if name.as_bytes() == b"test");
    assert!(made.iter().any(names), "{made:?}");
    now(async { object.read(0, &mut [0]).await.unwrap() });
    now(async { object.read(4096, &mut [0]).await.unwrap() });
    let two = [Load(1, 2), Loaded(1, false), Loaded(2, false)];
    assert_eq!(told(machine), [Load(0, 1), Loaded(0, false)].into_iter().chain(two).collect::<Vec<_>>());
    now(async { object.write(0, &[1; 2 * 4096]).await.unwrap() });
    pager.fail_stores(Some(page(1)), 1, PageError::Io);
    now(async {
        object.store(page(0)..page(8)).await.unwrap_err();
    });
    assert_eq!(told(machine), [Store(0, 2), Stored(0, false), Stored(1, true)]);
    pager.fail(Some(page(7)), 1, PageError::Io);
    now(async {
        object.read(7 * 4096, &mut [0]).await.unwrap_err();
    });
    assert_eq!(told(machine), [Load(7, 1), Loaded(7, true)]);
}

#[test]
fn neighbours_that_are_shown_along_are_told_as_mapped() {
    let machine = Machine::new(400);
    let pager = machine.pager();
    pager.set_pages_at_once(32);
    let object = VmObject::new(machine.memory, pager, 4);
    let space = machine.window();
    let at = space.map(&object, page(0), 4, Protection::READ_WRITE, Placement::Anywhere).unwrap();
    assert!(poll_once(pin!(object.read(0, &mut [0; 4 * 4096]))).is_ready());
    machine.processor.keep_events();
    assert!(poll_once(pin!(machine.read(&space, at.as_u64() + 4096))).is_ready());
    let mapped = |event: Event| match event {
        Event::Map { page, writable, .. } => Some((page.as_u64() - at.as_u64(), writable)),
        _ => None,
    };
    let mapped: Vec<_> = machine.processor.take_events().into_iter().filter_map(mapped).collect();
    assert_eq!(mapped, [(4096, false), (0, false), (8192, false), (12288, false)]);
}

#[test]
fn a_life_that_the_table_has_is_followed() {
    let mut checker = Checker::from_the_start();
    for (from, event, to) in [
        (ABSENT, PageEvent::Read, LOADING),
        (LOADING, PageEvent::LoadDone, LOADED),
        (LOADED, PageEvent::Write, DIRTY),
        (DIRTY, PageEvent::Store, STORING),
        (STORING, PageEvent::Write, STORING | WRITTEN),
        (STORING | WRITTEN, PageEvent::StoreDone, DIRTY | STORED | WRITTEN),
        (DIRTY | STORED | WRITTEN, PageEvent::Store, STORING),
        (STORING, PageEvent::StoreDone, DIRTY | STORED),
    ] {
        checker.follow(1, &Event::State(change(from, event, to))).unwrap();
    }
    assert_eq!(checker.changes(), 8);
    checker.follow(1, &Event::Ended(ObjectName::from_bits(OBJECT))).unwrap();
    checker.follow(1, &Event::State(change(ABSENT, PageEvent::Read, LOADING))).unwrap();
}

#[test]
fn a_step_that_the_table_does_not_have_is_found() {
    for (from, event, to, wrong) in [
        (ABSENT, PageEvent::Read, LOADED, Wrong::NotInTable),
        (LOADING, PageEvent::LoadDone, DIRTY, Wrong::NotInTable),
        (DIRTY, PageEvent::Evict, ABSENT, Wrong::NotInTable),
        (DIRTY | STORED | WRITTEN, PageEvent::Mark, DIRTY | STORED | WRITTEN | 1 << 5, Wrong::NotInTable),
        (STORING | WRITTEN, PageEvent::StoreDone, DIRTY | STORED, Wrong::NotInTable),
        (STORING, PageEvent::StoreFailed, DIRTY | STORED, Wrong::NotInTable),
        (LOADED, PageEvent::Write, DIRTY + 0x1000, Wrong::OtherFrame),
        (DIRTY | STORED, PageEvent::Write, DIRTY | WRITTEN, Wrong::Unlearned),
        (LOADED | STORED, PageEvent::Evict, LOADED & !USED, Wrong::Unlearned),
        (DIRTY, PageEvent::Write, DIRTY | WRITTEN | USED, Wrong::Bits),
    ] {
        assert_eq!(change(from, event, to).check(), Err(wrong), "{}", change(from, event, to));
    }
}

#[test]
fn a_change_that_does_not_begin_where_the_last_one_ended_is_told_with_the_pages_history() {
    let mut checker = Checker::from_the_start();
    checker.follow(1, &Event::State(change(ABSENT, PageEvent::Read, LOADING))).unwrap();
    checker.follow(1, &Event::State(change(LOADING, PageEvent::LoadDone, LOADED))).unwrap();
    let lost = Event::State(change(DIRTY, PageEvent::Store, STORING));
    let why = checker.follow(1, &lost).unwrap_err().to_string();
    assert_eq!(
        why,
        "impossible: page 3 of object 7: dirty -- store --> writeback, stored: the page was loaded, used (frames 0x5, 0x5); \
         before: read -> loading; load done -> loaded, used;"
    );
    // The same number in another memory is another object.
    checker.follow(2, &lost).unwrap_err();
}

#[test]
fn what_came_before_the_first_event_or_was_lost_is_believed() {
    let store = Event::State(change(DIRTY, PageEvent::Store, STORING));
    Checker::new().follow(1, &store).unwrap();
    let mut checker = Checker::from_the_start();
    checker.follow(1, &Event::State(change(ABSENT, PageEvent::Read, LOADING))).unwrap();
    checker.lost();
    checker.follow(1, &store).unwrap();
    checker.follow(1, &store).unwrap_err();
}
