//! Overlays: what is read comes from the base, what is written is their own, and a mark gives it to the base.

mod common;

use std::pin::pin;

use common::cpus::{Busy, poll_once};
use common::overlay::{BELOW, Scene};
use common::shown::{BASE, PAGES, RW};
use common::{PAGE, address, content, page, range};
use executor::host::block_on_cpus;
use mm::{Denial, PageError, PageState, Placement, Protection, StoreError, VirtAddr, VmObject, reclaim};

fn frame(state: PageState) -> u64 {
    state.frame().expect("it has a frame")
}

#[test]
fn reads_are_served_by_the_base_with_one_load_and_one_frame() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        assert_eq!(scene.read(BASE).await, Ok(content(0)));
        assert_eq!(scene.read(BELOW).await, Ok(content(0)));
        assert_eq!((scene.pager.loads(), scene.free - scene.machine.free()), (1, 1));
        assert_eq!(scene.states().0, PageState::Absent);
        assert_eq!(scene.writable(BASE), Some(false));
    });
}

#[test]
fn a_write_makes_a_page_of_their_own_that_the_base_does_not_see() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE + 8, 7).await;
        assert_eq!(scene.read(BASE).await, Ok(content(0)), "the rest is a copy");
        assert_eq!(scene.read(BASE + 8).await, Ok(7));
        assert_eq!(scene.read(BELOW + 8).await, Ok(content(0)));
        assert!(matches!(scene.states(), (PageState::Dirty { .. }, PageState::Loaded { .. })));
        assert_eq!((scene.overlay.stats().resident, scene.base.stats().resident), (1, 1));
    });
}

#[test]
fn no_cpu_sees_the_copy_while_another_sees_the_bases_page() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        assert_eq!(scene.read(BASE).await, Ok(content(0)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BASE), Some(content(0)));
        let mut write = pin!(scene.write(BASE, 7));
        assert!(poll_once(write.as_mut()).is_pending());
        assert_eq!(busy.reads(root, BASE), Some(content(0)), "it uses what it remembers");
        // Neither page is shown, not to readers either.
        assert_eq!(scene.writable(BASE), None);
        let mut read = pin!(scene.read(BASE));
        assert!(poll_once(read.as_mut()).is_pending());
        busy.end().await;
        write.await;
        assert_eq!(read.await, Ok(7));
        assert_eq!(scene.read(BELOW).await, Ok(content(0)));
    });
}

#[test]
fn the_copy_waits_for_a_cpu_that_remembers_a_page_which_is_leaving() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        assert_eq!(scene.read(BASE).await, Ok(content(0)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BASE), Some(content(0)));
        let mut evict = pin!(reclaim(scene.machine.memory, 1));
        assert!(poll_once(evict.as_mut()).is_pending());
        let mut write = pin!(scene.write(BASE, 7));
        assert!(poll_once(write.as_mut()).is_pending(), "no table shows it, and a CPU remembers it");
        busy.end().await;
        write.await;
        assert_eq!(evict.await, 0, "the base's page was touched");
    });
}

#[test]
fn a_copy_that_is_stored_at_once_is_not_shown_before_its_time() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        assert_eq!(scene.read(BASE).await, Ok(content(0)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BASE), Some(content(0)));
        let mut write = pin!(scene.write(BASE, 7));
        assert!(poll_once(write.as_mut()).is_pending());
        scene.pager.hold();
        let mut store = pin!(scene.overlay.store(scene.all()));
        assert!(poll_once(store.as_mut()).is_pending());
        assert!(matches!(scene.states().0, PageState::WritingBack { .. }));
        let mut read = pin!(scene.read(BASE));
        assert!(poll_once(read.as_mut()).is_pending());
        assert!(scene.pager.release_store(page(0)));
        store.await.unwrap();
        let mut read_later = pin!(scene.read(BASE));
        assert!(poll_once(read_later.as_mut()).is_pending());
        busy.end().await;
        write.await;
        assert_eq!((read.await, read_later.await), (Ok(7), Ok(7)));
        assert_eq!(scene.read(BASE).await, Ok(7));
    });
}

#[test]
fn a_store_writes_to_the_backing_store_and_the_page_stays_their_own() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.overlay.store(scene.all()).await.unwrap();
        assert_eq!(scene.stored(0), 7);
        assert!(matches!(scene.states(), (PageState::Dirty { .. }, PageState::Absent)));
        assert_eq!((scene.read(BELOW).await, scene.pager.loads()), (Ok(7), 2), "the base looks again");
    });
}

#[test]
fn a_mark_folds_what_was_stored_into_the_base_without_a_copy() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        let own = frame(scene.states().0);
        assert_eq!(scene.overlay.store_and_mark(scene.all()).await, Ok(1));
        assert_eq!(scene.states(), (PageState::Absent, PageState::Loaded { frame: own }));
        assert_eq!((scene.overlay.stats().resident, scene.base.stats().resident), (0, 1));
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(7)));
        assert_eq!((scene.writable(BASE), scene.pager.loads()), (Some(false), 1));
        assert_eq!(scene.free - scene.machine.free(), 1);
        assert_eq!(reclaim(scene.machine.memory, 1).await, 1, "it can be given back");
        assert_eq!(scene.writable(BASE), None);
        assert_eq!((scene.read(BASE).await, scene.pager.loads()), (Ok(7), 2));
    });
}

#[test]
fn a_mark_folds_what_was_never_stored() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        assert_eq!(scene.overlay.mark(scene.all()).await, 1);
        assert_eq!((scene.read(BELOW).await, scene.stored(0)), (Ok(7), content(0)));
        assert_eq!(reclaim(scene.machine.memory, 1).await, 1);
        assert_eq!(scene.read(BASE).await, Ok(content(0)), "it was nowhere else");
    });
}

#[test]
fn a_mark_leaves_what_was_written_since_its_store() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.overlay.store(scene.all()).await.unwrap();
        scene.write(BASE, 8).await;
        assert_eq!(scene.overlay.mark(scene.all()).await, 0);
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(8), Ok(7)));
        assert_eq!(scene.overlay.store_and_mark(scene.all()).await, Ok(1));
        assert_eq!((scene.read(BELOW).await, scene.stored(0)), (Ok(8), 8));
    });
}

#[test]
fn a_page_that_was_folded_is_copied_by_the_next_write() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        assert_eq!(scene.overlay.mark(scene.all()).await, 1);
        scene.write(BASE, 8).await;
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(8), Ok(7)));
    });
}

#[test]
fn no_cpu_sees_what_is_folded_while_another_sees_what_the_base_had() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        scene.write(BASE, 7).await;
        assert_eq!(scene.read(BELOW).await, Ok(content(0)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BELOW), Some(content(0)));
        let mut mark = pin!(scene.overlay.mark(scene.all()));
        assert!(poll_once(mark.as_mut()).is_pending());
        let mut read = pin!(scene.read(BELOW));
        assert!(poll_once(read.as_mut()).is_pending());
        assert_eq!(busy.reads(root, BELOW), Some(content(0)));
        busy.end().await;
        assert_eq!(mark.await, 1);
        assert_eq!(read.await, Ok(7));
    });
}

#[test]
fn a_write_between_the_steps_of_a_fold_keeps_the_page() {
    block_on_cpus(2, async {
        for by_table in [false, true] {
            let scene = Scene::new().await;
            let root = scene.space.root();
            scene.write(BASE, 7).await;
            scene.overlay.store(scene.all()).await.unwrap();
            let busy = Busy::begin(scene.machine).await;
            assert_eq!(busy.reads(root, BASE), Some(7));
            let mut mark = pin!(scene.overlay.mark(scene.all()));
            assert!(poll_once(mark.as_mut()).is_pending());
            if by_table {
                scene.machine.set_dirty_bit(&scene.space, BASE);
            } else {
                scene.write(BASE, 8).await;
            }
            busy.end().await;
            assert_eq!(mark.await, 0);
            assert_eq!(scene.read(BASE).await, Ok(if by_table { 7 } else { 8 }));
            assert!(matches!(scene.states().0, PageState::Dirty { .. }));
            assert_eq!(scene.read(BELOW).await, Ok(7), "from the backing store");
        }
    });
}

#[test]
fn a_base_that_is_touched_between_the_steps_of_a_fold_has_its_own_page() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.base.release(scene.all()).await;
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(7));
        let mut mark = pin!(scene.overlay.mark(scene.all()));
        assert!(poll_once(mark.as_mut()).is_pending());
        assert_eq!(scene.read(BELOW).await, Ok(content(0)));
        busy.end().await;
        assert_eq!(mark.await, 0);
        assert!(matches!(scene.states(), (PageState::Dirty { .. }, PageState::Loaded { .. })));
        assert_eq!((scene.overlay.mark(scene.all()).await, scene.read(BELOW).await), (1, Ok(7)));
    });
}

#[test]
fn what_was_written_to_the_base_is_not_lost_by_a_fold() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.write(BELOW, 9).await;
        assert_eq!(scene.overlay.mark(scene.all()).await, 0);
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(9)));
        assert_eq!(scene.base.store_and_mark(scene.all()).await, Ok(1));
        assert_eq!((scene.overlay.mark(scene.all()).await, scene.read(BELOW).await), (1, Ok(7)));
    });
}

#[test]
fn a_write_to_the_base_is_seen_through_an_overlay_without_a_page_of_its_own() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        assert_eq!(scene.read(BASE).await, Ok(content(0)));
        scene.write(BELOW, 9).await;
        assert_eq!(scene.read(BASE).await, Ok(9));
    });
}

#[test]
fn two_overlays_of_one_base_see_each_others_writes_after_a_mark_only() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let other = VmObject::overlay(scene.base.clone());
        let at = BASE + 0x20_0000 - PAGES * PAGE;
        scene.space.map(&other, page(0), PAGES, RW, Placement::Fixed(address(at))).unwrap();
        assert_eq!(scene.read(at).await, Ok(content(0)));
        scene.write(BASE, 7).await;
        assert_eq!(scene.read(at).await, Ok(content(0)));
        assert_eq!(scene.overlay.mark(scene.all()).await, 1);
        assert_eq!(scene.read(at).await, Ok(7));
        scene.write(at, 8).await;
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(7)));
    });
}

#[test]
fn a_discard_shows_the_bases_page_again_when_no_cpu_remembers_the_other() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(7));
        let mut discard = pin!(scene.overlay.discard(scene.all()));
        assert!(poll_once(discard.as_mut()).is_pending());
        let mut read = pin!(scene.read(BASE));
        assert!(poll_once(read.as_mut()).is_pending());
        busy.end().await;
        discard.await;
        assert_eq!(read.await, Ok(content(0)));
        assert_eq!(scene.pager.loads(), 1, "the base has had it all the time");
    });
}

#[test]
fn an_invalidation_reaches_the_base() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.overlay.invalidate(page(0)).await;
        assert_eq!(scene.states(), (PageState::Absent, PageState::Absent));
        assert_eq!((scene.read(BASE).await, scene.pager.loads()), (Ok(content(0)), 2));
    });
}

#[test]
fn errors_reach_whoever_asked() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let denied = Denial::Io { page: page(0), error: PageError::Io };
        scene.pager.fail(Some(page(0)), 2, PageError::Io);
        assert_eq!(scene.read(BASE).await, Err(denied));
        assert_eq!(scene.machine.write(&scene.space, BASE, 7).await, Err(denied));
        assert_eq!(scene.overlay.state(page(0)), PageState::Absent);
        scene.write(BASE, 7).await;
        scene.pager.fail_stores(Some(page(0)), 1, PageError::Io);
        let error = StoreError { page: page(0), error: PageError::Io };
        assert_eq!(scene.overlay.store(scene.all()).await, Err(error));
        assert_eq!(scene.overlay.mark(scene.all()).await, 0, "it is nowhere else");
        assert_eq!(scene.read(BASE).await, Ok(7));
    });
}

#[test]
fn an_unmapping_leaves_the_pages_to_both_and_the_ends_of_both_free_all() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        for index in 0..PAGES {
            assert_eq!(scene.read(BASE + index * PAGE).await, Ok(content(index)));
        }
        scene.write(BASE, 7).await;
        // In the middle, so that the mapping is split.
        scene.space.unmap(range(address(BASE + PAGE), 1)).await.unwrap();
        assert_eq!(scene.overlay.stats().mappings, 2);
        assert_eq!(scene.base.stats().mappings, 3);
        assert_eq!(reclaim(scene.machine.memory, PAGES as usize).await, PAGES as usize);
        assert_eq!(scene.read(BASE).await, Ok(7));
        assert_eq!(scene.read(BASE + 2 * PAGE).await, Ok(content(2)));
        let Scene { machine, base, overlay, space, free, .. } = scene;
        space.unmap(range(address(BASE), 1)).await.unwrap();
        space.unmap(range(address(BASE + 2 * PAGE), PAGES - 2)).await.unwrap();
        space.unmap(range(address(BELOW), PAGES)).await.unwrap();
        assert_eq!(base.stats().mappings + overlay.stats().mappings, 0);
        drop((base, overlay));
        let stats = machine.memory.frames().stats();
        assert_eq!(stats.free + stats.quarantined, free);
    });
}

#[test]
fn private_memory_over_an_overlay_shows_what_it_shows() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let at = VirtAddr::new(BASE + 0x18_0000).unwrap();
        let placed = Placement::Fixed(at);
        scene.space.map_private(&scene.overlay, page(0), PAGES, RW, placed).unwrap();
        assert_eq!(scene.read(at.as_u64()).await, Ok(content(0)));
        scene.write(BASE, 7).await;
        assert_eq!(scene.read(at.as_u64()).await, Ok(7));
        assert_eq!(scene.overlay.mark(scene.all()).await, 1);
        assert_eq!(scene.read(at.as_u64()).await, Ok(7));
        scene.write(at.as_u64(), 9).await;
        assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(7)));
    });
}

#[test]
fn a_mapping_for_reading_refuses_writes_to_an_overlay() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let at = BASE + 0x18_0000;
        let placed = Placement::Fixed(address(at));
        scene.space.map(&scene.overlay, page(0), PAGES, Protection::READ.for_user(), placed).unwrap();
        scene.write(BASE, 7).await;
        assert_eq!(scene.read(at).await, Ok(7));
        assert!(scene.machine.write(&scene.space, at, 8).await.is_err());
    });
}
