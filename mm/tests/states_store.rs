//! The table of page states and events, cell by cell: store, mark, discard.

mod common;

use common::one_page::*;
use common::tasks::block_on;
use common::{content, page};
use mm::{PageError, StoreError, VmObject, reclaim};

const CLEAN_OR_NOTHING: [Seen; 5] = [Absent, Loading, Invalidated, Loaded, Failed];

#[test]
fn a_store_writes_dirty_pages_and_leaves_them_dirty() {
    for state in [Dirty, Stored, Rewritten] {
        let mut scene = Scene::new(state);
        let before = scene.pager.stores();
        assert!(scene.write(20).is_done());
        let store = scene.store();
        assert_eq!((scene.seen(), scene.shown(), store.is_done()), (WritingBack, Some(true), false));
        scene.end_store();
        assert_eq!((store.take(), scene.pager.stores() - before), (Some(Ok(())), 1), "{state:?}");
        assert_eq!((scene.seen(), scene.shown(), scene.backing()), (Dirty, Some(true), 20));
    }
}

#[test]
fn a_store_of_what_is_not_dirty_writes_nothing() {
    for state in CLEAN_OR_NOTHING {
        let mut scene = Scene::new(state);
        assert_eq!(scene.store().take(), Some(Ok(())), "{state:?}");
        assert_eq!((scene.seen(), scene.pager.stores()), (state, 0));
    }
    let mut scene = Scene::zero(Dirty);
    assert_eq!((scene.store().take(), scene.seen(), scene.mark()), (Some(Ok(())), Dirty, 0));
}

#[test]
fn a_store_of_a_page_that_is_being_stored_waits_and_writes_it_again() {
    let mut scene = Scene::new(WritingBack);
    assert!(scene.write(21).is_done());
    let store = scene.store();
    assert_eq!(scene.pager.stores(), 1);
    scene.end_store();
    assert_eq!((scene.pager.stores(), scene.seen(), store.is_done()), (2, WritingBack, false));
    scene.end_store();
    assert_eq!((store.take(), scene.backing()), (Some(Ok(())), 21));
    // One that fails for the first tells nothing to the second.
    let mut scene = Scene::new(WritingBack);
    let store = scene.store();
    scene.fail_store();
    scene.end_store();
    assert_eq!(store.take(), Some(Ok(())));
}

#[test]
fn a_store_of_a_discarded_page_writes_nothing() {
    let mut scene = Scene::new(Discarded);
    assert_eq!(scene.store().take(), Some(Ok(())));
    assert_eq!((scene.pager.stores(), scene.seen()), (1, Discarded));
}

#[test]
fn a_store_that_fails_says_so_and_no_mark_makes_the_page_clean() {
    let mut scene = Scene::new(Dirty);
    let store = scene.store();
    scene.fail_store();
    let error = StoreError { page: page(0), error: PageError::Io };
    assert_eq!((store.take(), scene.seen()), (Some(Err(error)), Dirty));
    assert_eq!((scene.mark(), scene.seen()), (0, Dirty));
    drop(scene.store());
    scene.end_store();
    assert_eq!((scene.mark(), scene.seen(), scene.backing()), (1, Loaded, 7));
}

#[test]
fn a_pager_that_drops_a_store_has_failed_it() {
    let mut scene = Scene::new(Dirty);
    let object = VmObject::new(scene.machine.memory, std::sync::Arc::new(ReadOnly), 1);
    scene.space = scene.machine.user_space();
    scene.start = common::address(0x5000);
    let placement = mm::Placement::Fixed(scene.start);
    let protection = mm::Protection::READ_WRITE.for_user();
    scene.space.map(&object, page(0), 1, protection, placement).unwrap();
    scene.object = object;
    assert!(scene.write(1).is_done());
    let error = StoreError { page: page(0), error: PageError::ReadOnly };
    assert_eq!((scene.store().take(), scene.mark()), (Some(Err(error)), 0));
}

struct ReadOnly;

impl mm::Pager for ReadOnly {
    fn name(&self) -> &str {
        "read-only"
    }

    fn load(&self, mut request: mm::PageRequest) {
        let frame = request.memory().frames().try_alloc_zeroed().expect("a frame is free");
        request.attach(frame);
        request.complete(Ok(()));
    }
}

#[test]
fn a_mark_makes_clean_what_was_never_stored_or_not_written_since() {
    for state in [Dirty, Stored] {
        let mut scene = Scene::new(state);
        assert_eq!((scene.mark(), scene.seen(), scene.shown()), (1, Loaded, Some(false)), "{state:?}");
        assert_eq!(scene.machine.memory.frames().stats().clean, 1);
        // Now it can go, and what was never stored is lost.
        assert_eq!(block_on(reclaim(scene.machine.memory, usize::MAX)), 1);
        let reader = scene.read();
        scene.end_load();
        assert_eq!(reader.take(), Some(Ok(if state == Stored { 7 } else { content(0) })));
    }
    for state in [Absent, Loading, Invalidated, Loaded, Rewritten, WritingBack, Discarded, Failed] {
        let mut scene = Scene::new(state);
        let (seen, shown) = (scene.seen(), scene.shown());
        assert_eq!((scene.mark(), scene.seen(), scene.shown()), (0, seen, shown), "{state:?}");
    }
}

#[test]
fn a_marked_page_is_dirty_again_with_the_next_write() {
    let mut scene = Scene::new(Stored);
    assert_eq!(scene.mark(), 1);
    assert!(scene.write(30).is_done());
    assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(true)));
    // It was stored once, and written since: no mark loses that.
    assert_eq!((scene.mark(), scene.seen()), (0, Dirty));
    drop(scene.store());
    scene.end_store();
    assert_eq!((scene.mark(), scene.backing()), (1, 30));
}

#[test]
fn a_write_during_a_store_keeps_the_page_dirty_however_it_is_made() {
    for through_the_object in [false, true] {
        let mut scene = Scene::new(WritingBack);
        if through_the_object {
            let object = scene.object.clone();
            block_on(async move { object.write(0, &31u64.to_le_bytes()).await.unwrap() });
        } else {
            assert!(scene.write(31).is_done());
        }
        scene.end_store();
        assert_eq!((scene.mark(), scene.seen()), (0, Dirty));
        drop(scene.store());
        scene.end_store();
        assert_eq!((scene.mark(), scene.backing()), (1, 31));
    }
}

#[test]
fn a_write_that_only_an_unmapped_page_table_knew_of_keeps_the_page_dirty() {
    let mut scene = Scene::new(Stored);
    assert!(scene.write(32).is_done());
    let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
    block_on(async move { space.unmap(all).await.unwrap() });
    assert_eq!((scene.mark(), scene.seen()), (0, Dirty));
}

#[test]
fn discarding_drops_changes_only() {
    for state in PAGED {
        let mut scene = Scene::new(state);
        let (seen, shown, free) = (scene.seen(), scene.shown(), scene.machine.free());
        drop(scene.object.discard(page(0)..page(1)));
        match state {
            Dirty | Stored | Rewritten => {
                assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Absent, None, scene.free));
                let reader = scene.read();
                scene.end_load();
                let old = if state == Dirty { content(0) } else { 7 };
                assert_eq!(reader.take(), Some(Ok(old)), "{state:?}");
            }
            WritingBack => assert_eq!((scene.seen(), scene.shown()), (Discarded, None)),
            _ => assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (seen, shown, free)),
        }
    }
}

#[test]
fn touching_a_discarded_page_waits_for_the_store_and_loads_it_again() {
    for (write, fails) in [(false, false), (true, false), (false, true)] {
        let mut scene = Scene::new(Discarded);
        let loads = scene.pager.loads();
        let (reader, writer) = if write { (None, Some(scene.write(9))) } else { (Some(scene.read()), None) };
        assert_eq!((scene.seen(), scene.pager.loads()), (Discarded, loads));
        if fails {
            scene.fail_store();
        } else {
            scene.end_store();
        }
        assert_eq!((scene.seen(), scene.pager.loads()), (Loading, loads + 1));
        scene.end_load();
        if let Some(reader) = reader {
            assert_eq!(reader.take(), Some(Ok(if fails { content(0) } else { 7 })));
        }
        if let Some(writer) = writer {
            assert_eq!(writer.take(), Some(Ok(())));
        }
    }
}

#[test]
fn an_object_outlives_its_stores() {
    let mut scene = Scene::new(WritingBack);
    let (machine, free) = (scene.machine, scene.free);
    let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
    block_on(async move { space.unmap(all).await.unwrap() });
    let weak = std::sync::Arc::downgrade(&scene.object);
    scene.object = VmObject::zero(machine.memory, 1);
    assert_eq!(machine.free(), free - 1, "the device may still read it");
    scene.end_store();
    assert!(weak.upgrade().is_none());
    assert_eq!(machine.free(), free);
}

#[test]
fn storing_and_marking_loses_no_change_that_comes_between() {
    // A page that becomes dirty when the store has passed it was never stored.
    let mut scene = Scene::new(Absent);
    let object = VmObject::new(scene.machine.memory, scene.pager.clone(), 2);
    let (both, all) = (object.clone(), page(0)..page(2));
    for index in 0..2 {
        let writer = object.clone();
        let handle = scene.tasks.spawn(async move { writer.write(index * common::PAGE, &[1]).await });
        scene.tasks.run();
        scene.pager.release(page(index));
        scene.tasks.run();
        assert_eq!(handle.take(), Some(Ok(())));
    }
    drop(object.discard(page(0)..page(1)));
    let marked = scene.tasks.spawn(async move { both.store_and_mark(all).await });
    scene.tasks.run();
    let writer = object.clone();
    let handle = scene.tasks.spawn(async move { writer.write(0, &[2]).await });
    scene.tasks.run();
    scene.pager.release(page(0));
    scene.tasks.run();
    assert_eq!(handle.take(), Some(Ok(())));
    assert!(scene.pager.release_store(page(1)));
    scene.tasks.run();
    assert_eq!(marked.take(), Some(Ok(1)));
    assert!(matches!(object.state(page(0)), mm::PageState::Dirty { .. }));
    assert!(matches!(object.state(page(1)), mm::PageState::Loaded { .. }));
}

#[test]
fn what_was_stored_once_is_known_when_the_page_comes_back_whichever_way_it_went() {
    for way in 0..3 {
        let mut scene = Scene::new(Stored);
        assert_eq!((scene.mark(), scene.seen()), (1, Loaded));
        let object = scene.object.clone();
        match way {
            0 => assert!(block_on(async move { object.evict(page(0)).await })),
            1 => drop(object.invalidate(page(0))),
            _ => {
                assert!(scene.write(8).is_done());
                drop(object.discard(page(0)..page(1)));
            }
        }
        assert_eq!(scene.seen(), Absent);
        let writer = scene.write(9);
        scene.end_load();
        assert!(writer.is_done());
        assert_eq!((scene.mark(), scene.seen()), (0, Dirty), "it was written since its last store");
        drop(scene.store());
        scene.end_store();
        assert_eq!((scene.mark(), scene.seen(), scene.backing()), (1, Loaded, 9));
    }
}

#[test]
fn a_page_whose_only_store_has_failed_was_never_stored_when_it_comes_back() {
    let mut scene = Scene::new(WritingBack);
    scene.fail_store();
    assert_eq!((scene.mark(), scene.seen()), (0, Dirty), "nobody knows what the pager has");
    drop(scene.object.discard(page(0)..page(1)));
    let writer = scene.write(9);
    scene.end_load();
    assert!(writer.is_done());
    assert_eq!((scene.mark(), scene.seen()), (1, Loaded));
}
