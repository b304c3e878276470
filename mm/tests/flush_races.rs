//! A flush, and what else happens to the same pages until it ends.

mod common;

use std::sync::Arc;

use common::one_page::*;
use common::tasks::{Handle, Tasks, block_on};
use common::{Machine, PAGE, content, page};
use mm::{FlushError, PageError, PageState, TestPager, VmObject};

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn durable(pager: &TestPager, index: u64) -> u64 {
    word(&pager.durable(page(index)))
}

fn flush(tasks: &mut Tasks, object: &Arc<VmObject>) -> Handle<Result<(), FlushError>> {
    let object = object.clone();
    let handle = tasks.spawn(async move { object.flush().await });
    tasks.run();
    handle
}

#[test]
fn a_flush_that_meets_a_store_and_two_writes_covers_the_first_write_and_the_page_stays_dirty() {
    // Somebody stores a 7; then a 9 is written, and the flush has to wait for that store and store again.
    let mut scene = Scene::new(WritingBack);
    assert!(scene.write(9).is_done());
    let object = scene.object.clone();
    let first = flush(&mut scene.tasks, &object);
    assert_eq!((scene.pager.stores(), scene.pager.flushes()), (1, 0));
    scene.end_store();
    assert_eq!((scene.pager.stores(), scene.pager.flushes()), (2, 0), "it may have begun before the write");
    // The flush's own store is under way.
    assert!(scene.write(11).is_done());
    scene.end_store();
    assert_eq!((scene.pager.flushes(), first.is_done()), (1, false));
    // The device has it all and has not said so.
    assert!(scene.write(13).is_done());
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((first.take(), scene.seen()), (Some(Ok(())), Dirty));
    assert!((9..=11).contains(&durable(&scene.pager, 0)), "the first write was there before the call");
    let second = flush(&mut scene.tasks, &object);
    scene.end_store();
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((second.take(), scene.seen(), durable(&scene.pager, 0)), (Some(Ok(())), Loaded, 13));
}

#[test]
fn a_store_by_somebody_else_that_ends_while_the_device_flushes_is_not_taken_for_durable() {
    let mut scene = Scene::new(Dirty);
    let object = scene.object.clone();
    let first = flush(&mut scene.tasks, &object);
    scene.end_store();
    assert_eq!(scene.pager.flushes(), 1);
    // The device was asked before it had this.
    assert!(scene.write(9).is_done());
    let store = scene.store();
    scene.end_store();
    assert_eq!(store.take(), Some(Ok(())));
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((first.take(), durable(&scene.pager, 0), scene.backing()), (Some(Ok(())), 7, 9));
    let second = flush(&mut scene.tasks, &object);
    while scene.pager.held() > 0 {
        assert!(scene.pager.release_store(page(0)) || scene.pager.release_flush());
        scene.tasks.run();
    }
    assert_eq!((second.take(), durable(&scene.pager, 0)), (Some(Ok(())), 9));
}

#[test]
fn a_page_that_is_discarded_while_a_flush_stores_it_is_nobodys_error_and_is_loaded_again() {
    for fails in [false, true] {
        let mut scene = Scene::new(Dirty);
        let object = scene.object.clone();
        let flushing = flush(&mut scene.tasks, &object);
        drop(scene.object.discard(page(0)..page(1)));
        assert_eq!(scene.seen(), Discarded);
        if fails {
            scene.fail_store();
        } else {
            scene.end_store();
        }
        // What was stored of it is made durable like all the rest; where nothing was, nothing is asked for.
        assert_eq!(scene.pager.release_flush(), !fails);
        scene.tasks.run();
        assert_eq!(flushing.take(), Some(Ok(())), "whether the store failed: {fails}");
        assert_eq!(scene.seen(), Absent);
        let read = scene.read();
        scene.end_load();
        assert_eq!(read.take(), Some(Ok(if fails { content(0) } else { 7 })));
    }
}

#[test]
fn a_flush_that_fails_says_that_a_page_may_be_lost_that_was_given_back_since_its_store() {
    let machine = Machine::new(100);
    let pager = machine.pager();
    let object = VmObject::new(machine.memory, pager.clone(), 2);
    let failing = object.clone();
    block_on(async move {
        failing.write(0, &7_u64.to_le_bytes()).await.unwrap();
        failing.write(PAGE, &8_u64.to_le_bytes()).await.unwrap();
        assert_eq!(failing.store_and_mark(page(0)..page(2)).await, Ok(2));
        assert!(failing.evict(page(0)).await);
    });
    pager.fail_flushes(1, PageError::Io);
    let mut tasks = Tasks::default();
    assert_eq!(flush(&mut tasks, &object).take(), Some(Err(FlushError::Pager(PageError::Io))));
    // What is in memory is to be stored again; what only the device has cannot be, and stays as it is there.
    assert_eq!(object.state(page(0)), PageState::Absent);
    assert!(matches!(object.state(page(1)), PageState::Dirty { .. }));
    assert_eq!((durable(&pager, 0), durable(&pager, 1)), (content(0), content(1)));
    let stores = pager.stores();
    assert_eq!(flush(&mut tasks, &object).take(), Some(Ok(())));
    assert_eq!((pager.stores() - stores, durable(&pager, 0), durable(&pager, 1)), (1, 7, 8));
}

#[test]
fn flushes_of_a_base_and_of_its_overlay_come_one_after_the_other() {
    let machine = Machine::new(100);
    let pager = machine.pager();
    let base = VmObject::new(machine.memory, pager.clone(), 2);
    let overlay = VmObject::overlay(base.clone());
    let (of_base, of_overlay) = (base.clone(), overlay.clone());
    block_on(async move {
        of_base.write(0, &7_u64.to_le_bytes()).await.unwrap();
        of_overlay.write(PAGE, &8_u64.to_le_bytes()).await.unwrap();
    });
    pager.hold();
    let mut tasks = Tasks::default();
    let (first, second) = (flush(&mut tasks, &overlay), flush(&mut tasks, &base));
    assert!(pager.release_store(page(1)));
    tasks.run();
    assert_eq!((pager.stores(), pager.flushes()), (1, 1), "the base's page is stored when its turn has come");
    assert!(pager.release_flush());
    tasks.run();
    assert_eq!((first.take(), second.is_done(), durable(&pager, 1)), (Some(Ok(())), false, 8));
    assert!(pager.release_store(page(0)));
    tasks.run();
    assert!(pager.release_flush());
    tasks.run();
    assert_eq!((second.take(), durable(&pager, 0)), (Some(Ok(())), 7));
}
