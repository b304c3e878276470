//! What a flush has answered for is durable, and each error is told once to the flush that it belongs to.

mod common;

use std::sync::Arc;

use common::one_page::*;
use common::tasks::{Handle, Tasks, block_on};
use common::{Machine, PAGE, content, page};
use mm::{FlushError, PageError, PageState, StoreError, TestPager, VmObject};

const PAGES: u64 = 4;

/// An object over a pager that holds nothing back at first.
struct Several {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    tasks: Tasks,
}

impl Several {
    fn new() -> Self {
        let machine = Machine::with_cpus(200);
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        Self { machine, pager, object, tasks: Tasks::default() }
    }

    fn write(&self, object: &Arc<VmObject>, index: u64, word: u64) {
        let object = object.clone();
        block_on(async move { object.write(index * PAGE, &word.to_le_bytes()).await.unwrap() });
    }

    fn begin(&mut self, object: &Arc<VmObject>) -> Handle<Result<(), FlushError>> {
        let object = object.clone();
        let handle = self.tasks.spawn(async move { object.flush().await });
        self.tasks.run();
        handle
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        let object = self.object.clone();
        self.begin(&object).take().expect("nothing is held back")
    }

    /// Stores a page and counts it as clean, as nobody waits for it.
    fn write_back(&self, index: u64) -> Result<usize, StoreError> {
        let object = self.object.clone();
        block_on(async move { object.store_and_mark(page(index)..page(index + 1)).await })
    }

    fn durable(&self, index: u64) -> u64 {
        word(&self.pager.durable(page(index)))
    }

    fn dirty(&self, object: &VmObject) -> Vec<u64> {
        (0..PAGES).filter(|&index| matches!(object.state(page(index)), PageState::Dirty { .. })).collect()
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn page_error(index: u64) -> Result<(), FlushError> {
    Err(FlushError::Page(StoreError { page: page(index), error: PageError::Io }))
}

const PAGER_ERROR: Result<(), FlushError> = Err(FlushError::Pager(PageError::Io));

#[test]
fn a_flush_is_done_when_the_pager_has_made_the_last_store_durable() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.write(&object, 3, 8);
    scene.pager.hold();
    let flush = scene.begin(&object);
    assert_eq!((scene.pager.stores(), scene.pager.flushes()), (2, 0));
    assert!(scene.pager.release_store(page(3)));
    scene.tasks.run();
    assert_eq!(scene.pager.flushes(), 0, "a store is under way");
    assert!(scene.pager.release_store(page(0)));
    scene.tasks.run();
    assert_eq!((scene.pager.flushes(), flush.is_done()), (1, false));
    assert_eq!(scene.dirty(&object), [0, 3], "what is not durable is dirty");
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!(flush.take(), Some(Ok(())));
    assert_eq!((scene.durable(0), scene.durable(3)), (7, 8));
    assert_eq!(scene.dirty(&object), []);
}

#[test]
fn a_flush_of_what_is_durable_asks_for_nothing() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    assert_eq!(scene.flush(), Ok(()));
    scene.write(&object, 0, 7);
    assert_eq!((scene.flush(), scene.flush()), (Ok(()), Ok(())));
    assert_eq!((scene.pager.stores(), scene.pager.flushes()), (1, 1));
    let zero = VmObject::zero(scene.machine.memory, 1);
    scene.write(&zero, 0, 7);
    assert_eq!(scene.begin(&zero).take(), Some(Ok(())));
}

#[test]
fn a_flush_covers_what_was_stored_before_it_and_counts_as_clean_or_was_given_back() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.write(&object, 1, 8);
    assert_eq!((scene.write_back(0), scene.write_back(1)), (Ok(1), Ok(1)));
    let given_back = object.clone();
    assert!(block_on(async move { given_back.evict(page(1)).await }));
    assert_eq!((scene.durable(0), scene.durable(1)), (content(0), content(1)));
    assert_eq!(scene.flush(), Ok(()));
    assert_eq!((scene.durable(0), scene.durable(1), scene.pager.stores()), (7, 8, 2));
}

#[test]
fn a_flush_waits_for_a_store_that_somebody_else_has_begun() {
    let mut scene = Scene::new(WritingBack);
    assert!(scene.write(9).is_done());
    let object = scene.object.clone();
    let flush = scene.tasks.spawn(async move { object.flush().await });
    scene.tasks.run();
    assert_eq!(scene.pager.flushes(), 0);
    scene.end_store();
    assert_eq!((scene.pager.stores(), scene.pager.flushes()), (2, 0), "it may have begun before the write");
    scene.end_store();
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((flush.take(), word(&scene.pager.durable(page(0)))), (Some(Ok(())), 9));
}

#[test]
fn a_page_that_is_written_during_a_flush_stays_dirty() {
    let mut scene = Scene::new(Dirty);
    let object = scene.object.clone();
    let flush = scene.tasks.spawn(async move { object.flush().await });
    scene.tasks.run();
    scene.end_store();
    assert!(scene.write(9).is_done());
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((flush.take(), scene.seen()), (Some(Ok(())), Dirty));
    assert_eq!(word(&scene.pager.durable(page(0))), 7);
}

#[test]
fn what_is_stored_after_the_pager_was_asked_is_for_the_next_flush() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.pager.hold();
    let first = scene.begin(&object);
    assert!(scene.pager.release_store(page(0)));
    scene.tasks.run();
    // A store of another page begins and ends while the pager flushes.
    let pager = scene.pager.clone();
    let writer = object.clone();
    let other = scene.tasks.spawn(async move { writer.write(PAGE, &8u64.to_le_bytes()).await });
    scene.tasks.run();
    assert!(pager.release(page(1)));
    scene.tasks.run();
    assert_eq!(other.take(), Some(Ok(())));
    let storer = object.clone();
    let stored = scene.tasks.spawn(async move { storer.store_and_mark(page(1)..page(2)).await });
    scene.tasks.run();
    assert!(pager.release_store(page(1)));
    scene.tasks.run();
    assert_eq!(stored.take(), Some(Ok(1)));
    assert!(pager.release_flush());
    scene.tasks.run();
    assert_eq!((first.take(), scene.durable(0), scene.durable(1)), (Some(Ok(())), 7, content(1)));
    let second = scene.begin(&object);
    assert!(pager.release_flush(), "the pager is asked again");
    scene.tasks.run();
    assert_eq!((second.take(), scene.durable(1), pager.stores()), (Some(Ok(())), 8, 2));
}

#[test]
fn a_page_that_cannot_be_stored_is_named_once_and_stays_dirty_and_the_others_are_durable() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    (0..3).for_each(|index| scene.write(&object, index, 7 + index));
    scene.pager.fail_stores(Some(page(1)), 1, PageError::Io);
    assert_eq!(scene.flush(), page_error(1));
    assert_eq!(scene.dirty(&object), [1]);
    assert_eq!((scene.durable(0), scene.durable(1), scene.durable(2)), (7, content(1), 9));
    assert_eq!((scene.flush(), scene.durable(1), scene.flush()), (Ok(()), 8, Ok(())));
}

#[test]
fn an_error_of_a_store_that_nobody_waits_for_is_told_to_the_next_flush_once() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 2, 7);
    scene.pager.hold();
    let storer = object.clone();
    let store = scene.tasks.spawn(async move { storer.store(page(0)..page(PAGES)).await });
    scene.tasks.run();
    scene.tasks.kill(&store);
    scene.pager.fail_stores(None, 1, PageError::Io);
    assert!(scene.pager.release_store(page(2)));
    block_on({
        let pager = scene.pager.clone();
        async move { pager.release_all().await }
    });
    assert_eq!(scene.flush(), page_error(2));
    assert_eq!((scene.durable(2), scene.flush()), (7, Ok(())), "what could be done was done");
}

#[test]
fn an_error_that_a_store_has_told_is_not_told_again() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 2, 7);
    scene.pager.fail_stores(None, 1, PageError::Io);
    assert_eq!(scene.write_back(2), Err(StoreError { page: page(2), error: PageError::Io }));
    assert_eq!((scene.flush(), scene.durable(2)), (Ok(()), 7));
}

#[test]
fn an_error_of_a_page_that_was_discarded_is_nobodys() {
    let mut scene = Scene::new(Discarded);
    scene.fail_store();
    let object = scene.object.clone();
    assert_eq!(block_on(async move { object.flush().await }), Ok(()));
}

#[test]
fn after_a_flush_that_failed_all_that_was_stored_since_the_last_good_one_is_stored_again() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 3, 6);
    assert_eq!(scene.flush(), Ok(()));
    // One page that counts as clean, one that was stored and does not, one that is stored by the flush.
    scene.write(&object, 0, 7);
    assert_eq!(scene.write_back(0), Ok(1));
    scene.write(&object, 1, 8);
    let storer = object.clone();
    block_on(async move { storer.store(page(1)..page(2)).await.unwrap() });
    scene.write(&object, 2, 9);
    scene.pager.fail_flushes(1, PageError::Io);
    assert_eq!(scene.flush(), PAGER_ERROR);
    assert_eq!(scene.dirty(&object), [0, 1, 2]);
    let marked = object.clone();
    assert_eq!(block_on(async move { marked.mark(page(0)..page(PAGES)).await }), 0, "a mark would lose them");
    let before = scene.pager.stores();
    assert_eq!((scene.flush(), scene.pager.stores() - before), (Ok(()), 3));
    assert_eq!([0, 1, 2, 3].map(|index| scene.durable(index)), [7, 8, 9, 6]);
    assert_eq!(scene.dirty(&object), []);
}

#[test]
fn a_failed_flush_is_told_to_the_other_objects_of_the_pager_that_have_stored_something_and_once() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    let [other, idle] = [(); 2].map(|()| VmObject::new(scene.machine.memory, scene.pager.clone(), PAGES));
    scene.write(&object, 0, 7);
    scene.write(&other, 1, 8);
    let storer = other.clone();
    block_on(async move { storer.store_and_mark(page(1)..page(2)).await.unwrap() });
    scene.pager.fail_flushes(1, PageError::Io);
    assert_eq!(scene.flush(), PAGER_ERROR);
    assert_eq!((scene.dirty(&object), scene.dirty(&other)), (vec![0], vec![1]));
    assert_eq!(scene.begin(&idle).take(), Some(Ok(())));
    assert_eq!(scene.begin(&other).take(), Some(PAGER_ERROR));
    assert_eq!(scene.durable(1), 8, "it was stored again");
    assert_eq!((scene.begin(&other).take(), scene.flush()), (Some(Ok(())), Ok(())));
}

#[test]
fn a_flush_that_is_dropped_leaves_its_error_to_the_next() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.pager.hold();
    let dropped = scene.begin(&object);
    assert!(scene.pager.release_store(page(0)));
    scene.tasks.run();
    scene.tasks.kill(&dropped);
    scene.tasks.run();
    let second = scene.begin(&object);
    assert!(scene.pager.release_store(page(0)), "it is dirty until it is durable");
    scene.tasks.run();
    assert_eq!((scene.pager.flushes(), second.is_done()), (1, false), "the first request is under way");
    scene.pager.fail_flushes(1, PageError::Io);
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!(second.take(), Some(PAGER_ERROR));
    assert_eq!(scene.dirty(&object), [0]);
}

#[test]
fn flushes_of_one_object_come_one_after_the_other_and_each_has_its_own_answer() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.pager.hold();
    let first = scene.begin(&object);
    let second = scene.begin(&object);
    scene.pager.fail_stores(None, 1, PageError::Io);
    assert!(scene.pager.release_store(page(0)));
    scene.tasks.run();
    assert_eq!((first.take(), second.is_done()), (Some(page_error(0)), false));
    assert!(scene.pager.release_store(page(0)), "the second tries again");
    scene.tasks.run();
    assert!(scene.pager.release_flush());
    scene.tasks.run();
    assert_eq!((second.take(), scene.durable(0)), (Some(Ok(())), 7));
}

#[test]
fn an_error_of_a_later_flush_is_not_told_to_the_one_before() {
    let mut scene = Several::new();
    let object = scene.object.clone();
    scene.write(&object, 0, 7);
    scene.write(&object, 1, 8);
    scene.pager.hold();
    let first = scene.begin(&object);
    assert!(scene.pager.release_store(page(0)) && scene.pager.release_store(page(1)));
    scene.tasks.run();
    scene.write(&object, 1, 9);
    let second = scene.begin(&object);
    scene.pager.fail_stores(Some(page(1)), 1, PageError::Io);
    while scene.pager.held() > 0 {
        assert!(scene.pager.release_store(page(1)) || scene.pager.release_flush());
        scene.tasks.run();
    }
    assert_eq!((first.take(), second.take()), (Some(Ok(())), Some(page_error(1))));
}

#[test]
fn an_overlay_and_its_base_are_told_their_own_errors() {
    let mut scene = Several::new();
    let base = scene.object.clone();
    let overlay = VmObject::overlay(base.clone());
    scene.write(&overlay, 0, 7);
    scene.write(&base, 1, 8);
    scene.pager.fail_stores(Some(page(1)), 1, PageError::Io);
    assert_eq!(scene.begin(&overlay).take(), Some(Ok(())));
    assert_eq!((scene.durable(0), scene.durable(1)), (7, content(1)));
    assert_eq!(scene.begin(&base).take(), Some(page_error(1)));
    // A page that the overlay has stored, and that is the base's now, is dirty there when a flush fails.
    scene.write(&overlay, 2, 9);
    let storer = overlay.clone();
    block_on(async move { storer.store_and_mark(page(0)..page(PAGES)).await.unwrap() });
    assert!(matches!(base.state(page(2)), PageState::Loaded { .. }));
    scene.pager.fail_flushes(1, PageError::Io);
    assert_eq!(scene.begin(&overlay).take(), Some(PAGER_ERROR));
    assert_eq!(scene.dirty(&base), [1, 2]);
    assert_eq!((scene.begin(&base).take(), scene.durable(2), scene.durable(1)), (Some(Ok(())), 9, 8));
}

#[test]
fn a_flush_of_a_base_makes_durable_what_an_overlay_has_stored_that_is_gone() {
    let mut scene = Several::new();
    let overlay = VmObject::overlay(scene.object.clone());
    scene.write(&overlay, 0, 7);
    block_on(async move { overlay.store_and_mark(page(0)..page(PAGES)).await.unwrap() });
    assert_eq!(scene.durable(0), content(0));
    assert_eq!((scene.flush(), scene.durable(0)), (Ok(()), 7));
}
