//! The table of page states and events, cell by cell.

mod common;

use common::one_page::*;
use common::tasks::block_on;
use common::{PAGE, content, page};
use mm::{Denial, PageError, Protection, reclaim};

#[test]
fn touching_an_absent_or_failed_page_starts_one_load() {
    for state in [Absent, Failed] {
        for write in [false, true] {
            let mut scene = Scene::new(state);
            let before = scene.pager.loads();
            if write {
                drop(scene.write(1));
            } else {
                drop(scene.read());
            }
            assert_eq!((scene.seen(), scene.pager.loads() - before), (Loading, 1), "{state:?}");
            assert_eq!((scene.shown(), scene.machine.free()), (None, scene.free));
        }
    }
}

#[test]
fn touching_an_absent_zero_page_makes_it_dirty_at_once() {
    for write in [false, true] {
        let mut scene = Scene::zero(Absent);
        let done = if write { scene.write(1).is_done() } else { scene.read().take() == Some(Ok(0)) };
        assert!(done);
        assert_eq!((scene.seen(), scene.shown(), scene.pager.loads()), (Dirty, Some(true), 0));
        assert_eq!(scene.machine.free(), scene.free - 1);
    }
}

#[test]
fn touching_a_page_that_is_loading_waits_with_the_others() {
    for state in [Loading, Invalidated] {
        for write in [false, true] {
            let mut scene = Scene::new(state);
            let done = if write { scene.write(1).is_done() } else { scene.read().is_done() };
            assert!(!done);
            assert_eq!((scene.seen(), scene.pager.loads()), (state, 1));
        }
    }
}

#[test]
fn reading_a_loaded_page_shows_it_read_only() {
    let mut scene = Scene::new(Loaded);
    assert_eq!(scene.read().take(), Some(Ok(content(0))));
    assert_eq!((scene.seen(), scene.shown()), (Loaded, Some(false)));
}

#[test]
fn writing_a_loaded_page_makes_it_dirty() {
    let mut scene = Scene::new(Loaded);
    assert!(scene.write(3).is_done());
    assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(true)));
    assert_eq!(scene.machine.memory.frames().stats().clean, 0);
}

#[test]
fn touching_a_dirty_page_shows_it_writable() {
    for write in [false, true] {
        let mut scene = Scene::new(Dirty);
        let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
        // Hidden first, so that the touch is a fault.
        block_on(async move {
            space.protect(all.clone(), Protection::default()).await.unwrap();
            space.protect(all, Protection::READ_WRITE).await.unwrap();
        });
        assert_eq!(scene.shown(), None);
        if write {
            assert!(scene.write(8).is_done());
        } else {
            assert_eq!(scene.read().take(), Some(Ok(7)));
        }
        assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(true)));
    }
}

#[test]
fn a_load_that_is_done_makes_the_page_loaded() {
    let mut scene = Scene::new(Loading);
    scene.end_load();
    assert_eq!(scene.seen(), Loaded);
    assert_eq!(scene.waiter.take().and_then(|waiter| waiter.take()), Some(Ok(content(0))));
    assert_eq!(scene.machine.memory.frames().stats().clean, 1);
}

#[test]
fn a_load_that_fails_makes_the_page_failed() {
    let mut scene = Scene::new(Loading);
    scene.fail_load();
    assert_eq!((scene.seen(), scene.machine.free()), (Failed, scene.free));
    let denied = Denial::Io { page: page(0), error: PageError::Io };
    assert_eq!(scene.waiter.take().and_then(|waiter| waiter.take()), Some(Err(denied)));
}

#[test]
fn an_invalidated_load_is_thrown_away_however_it_ends() {
    for fails in [false, true] {
        let mut scene = Scene::new(Invalidated);
        scene.tasks.kill(scene.waiter.as_ref().unwrap());
        if fails {
            scene.fail_load();
        } else {
            scene.end_load();
        }
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free), "fails: {fails}");
        // And with someone who waits, the page is loaded again.
        let mut scene = Scene::new(Invalidated);
        if fails {
            scene.fail_load();
        } else {
            scene.end_load();
        }
        assert_eq!((scene.seen(), scene.pager.loads()), (Loading, 2), "fails: {fails}");
    }
}

#[test]
fn dropping_a_page_leaves_nothing_of_it() {
    for state in PAGED {
        let mut scene = Scene::new(state);
        drop(scene.object.release(page(0)..page(1)));
        let expected = match state {
            Loading | Invalidated => Invalidated,
            // Its frame is the device's until the end.
            WritingBack | Discarded => {
                assert_eq!((scene.seen(), scene.shown()), (Discarded, None));
                assert_eq!(scene.machine.free(), scene.free - 1);
                scene.end_store();
                Absent
            }
            _ => Absent,
        };
        assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (expected, None, scene.free));
        let old = if scene.pager.stores() > 0 { 7 } else { content(0) };
        // A processor that remembered the page would read the old bytes here.
        if expected == Absent {
            let reader = scene.read();
            assert_eq!(scene.seen(), Loading, "{state:?}");
            scene.end_load();
            assert_eq!(reader.take(), Some(Ok(old)));
        }
    }
    for state in [Absent, Dirty] {
        let mut scene = Scene::zero(state);
        drop(scene.object.release(page(0)..page(1)));
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
        assert_eq!(scene.read().take(), Some(Ok(0)));
    }
}

#[test]
fn eviction_takes_loaded_pages_only() {
    for state in PAGED {
        let scene = Scene::new(state);
        let (seen, shown) = (scene.seen(), scene.shown());
        let freed = block_on(reclaim(scene.machine.memory, usize::MAX));
        let expected = if state == Loaded { (1, Absent, None) } else { (0, seen, shown) };
        assert_eq!((freed, scene.seen(), scene.shown()), expected);
        let frames = usize::from(matches!(state, Dirty | Stored | Rewritten | WritingBack | Discarded));
        assert_eq!(scene.machine.free(), scene.free - frames, "{state:?}");
    }
    let scene = Scene::zero(Dirty);
    assert_eq!((block_on(reclaim(scene.machine.memory, usize::MAX)), scene.seen()), (0, Dirty));
}

#[test]
fn an_evicted_page_is_loaded_again_by_a_processor_that_remembered_it() {
    let mut scene = Scene::new(Loaded);
    assert_eq!(scene.read().take(), Some(Ok(content(0))));
    assert_eq!(block_on(reclaim(scene.machine.memory, 1)), 1);
    let reader = scene.read();
    assert_eq!(scene.seen(), Loading);
    scene.end_load();
    assert_eq!(reader.take(), Some(Ok(content(0))));
    assert_eq!(scene.start.as_u64() % PAGE, 0);
}
