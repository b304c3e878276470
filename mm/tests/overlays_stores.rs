//! Overlays and their base have one pager: what one of them stores, the others see, and nobody sees a part of it.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::overlay::{BELOW, Scene};
use common::shown::{BASE, PAGES, RW};
use common::{PAGE, address, content, page};
use executor::host::block_on_cpus;
use mm::{PageError, PageState, Placement, StoreError, VmObject};

/// Where a second overlay is mapped.
const OTHER: u64 = BASE + 0x18_0000;

fn other_overlay(scene: &Scene) -> Arc<VmObject> {
    let other = VmObject::overlay(scene.base.clone());
    scene.space.map(&other, page(0), PAGES, RW, Placement::Fixed(address(OTHER))).unwrap();
    other
}

#[test]
fn what_an_overlay_has_stored_is_what_the_base_and_other_overlays_show() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let _other = other_overlay(&scene);
        assert_eq!((scene.read(BELOW).await, scene.read(OTHER).await), (Ok(content(0)), Ok(content(0))));
        scene.write(BASE, 7).await;
        assert_eq!(scene.read(OTHER).await, Ok(content(0)));
        scene.overlay.store(scene.all()).await.unwrap();
        assert_eq!((scene.read(BELOW).await, scene.read(OTHER).await), (Ok(7), Ok(7)));
        assert_eq!(scene.pager.loads(), 2);
        // Without its own page it shows what was stored as well.
        scene.overlay.discard(scene.all()).await;
        assert_eq!(scene.read(BASE).await, Ok(7));
    });
}

#[test]
fn no_cpu_sees_the_stored_page_while_another_sees_what_the_base_had() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        assert_eq!(scene.read(BELOW).await, Ok(content(0)));
        scene.write(BASE, 7).await;
        scene.pager.hold();
        let mut store = pin!(scene.overlay.store(scene.all()));
        while scene.pager.held() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
        }
        assert_eq!(scene.read(BELOW).await, Ok(content(0)), "it is shown until the store ends");
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BELOW), Some(content(0)));
        assert_eq!(scene.pager.release_all().await, 1);
        assert_eq!(store.await, Ok(()));
        assert_eq!(busy.reads(root, BELOW), Some(content(0)), "it uses what it remembers");
        let mut read = pin!(scene.read(BELOW));
        assert!(poll_once(read.as_mut()).is_pending());
        busy.end().await;
        assert_eq!(read.await, Ok(7));
    });
}

#[test]
fn a_page_of_the_base_is_not_loaded_while_an_overlay_stores_it() {
    block_on_cpus(2, async {
        for result in [Ok(()), Err(PageError::Io)] {
            let scene = Scene::new().await;
            scene.write(BASE, 7).await;
            assert!(scene.base.evict(page(0)).await);
            scene.pager.hold();
            let mut store = pin!(scene.overlay.store(scene.all()));
            while scene.pager.held() == 0 {
                assert!(poll_once(store.as_mut()).is_pending());
            }
            let mut read = pin!(scene.read(BELOW));
            assert!(poll_once(read.as_mut()).is_pending());
            assert_eq!(scene.pager.held(), 1, "the store alone");
            if let Err(error) = result {
                scene.pager.fail_stores(Some(page(0)), 1, error);
            }
            assert!(scene.pager.release_store(page(0)));
            assert_eq!(store.await, result.map_err(|error| StoreError { page: page(0), error }));
            assert!(poll_once(read.as_mut()).is_pending());
            assert!(scene.pager.release(page(0)), "now it is loaded");
            assert_eq!(read.await, Ok(if result.is_ok() { 7 } else { content(0) }));
        }
    });
}

#[test]
fn what_the_base_shows_stays_when_a_store_fails() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        scene.pager.fail_stores(Some(page(0)), 1, PageError::Io);
        assert!(scene.overlay.store(scene.all()).await.is_err());
        assert_eq!((scene.read(BELOW).await, scene.pager.loads()), (Ok(content(0)), 1));
    });
}

#[test]
fn pages_that_are_being_stored_are_not_read_ahead() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE + 2 * PAGE, 7).await;
        assert!(scene.base.evict(page(2)).await);
        scene.pager.hold();
        let mut store = pin!(scene.overlay.store(scene.all()));
        while scene.pager.held() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
        }
        scene.pager.set_pages_at_once(32);
        scene.space.advise(common::range(address(BELOW), PAGES), mm::Advice::Sequential).await.unwrap();
        let mut read = pin!(scene.read(BELOW));
        assert!(poll_once(read.as_mut()).is_pending());
        assert!(matches!(scene.base.state(page(1)), PageState::Loading));
        assert_eq!(scene.base.state(page(2)), PageState::Absent);
        assert!(scene.pager.release_all().await > 0);
        assert_eq!((store.await, read.await), (Ok(()), Ok(content(0))));
        assert_eq!(scene.read(BELOW + 2 * PAGE).await, Ok(7));
    });
}

#[test]
fn a_load_of_the_base_that_a_store_has_met_is_thrown_away() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BASE, 7).await;
        assert!(scene.base.evict(page(0)).await);
        scene.pager.hold();
        let mut read = pin!(scene.read(BELOW));
        assert!(poll_once(read.as_mut()).is_pending());
        let mut store = pin!(scene.overlay.store(scene.all()));
        while scene.pager.held() < 2 {
            assert!(poll_once(store.as_mut()).is_pending());
        }
        assert_eq!(scene.base.state(page(0)), PageState::LoadingInvalidated);
        assert!(scene.pager.release(page(0)));
        assert!(poll_once(read.as_mut()).is_pending(), "it was not what the pager holds now");
        assert_eq!(scene.pager.held(), 1);
        assert!(scene.pager.release_store(page(0)));
        assert!(poll_once(read.as_mut()).is_pending());
        assert!(scene.pager.release(page(0)));
        assert_eq!((store.await, read.await), (Ok(()), Ok(7)));
    });
}

#[test]
fn stores_of_one_page_come_one_after_the_other() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let other = other_overlay(&scene);
        scene.write(BELOW, 1).await;
        scene.write(BASE, 2).await;
        scene.write(OTHER, 3).await;
        scene.pager.hold();
        let (mut first, mut second, mut third) = (
            pin!(scene.overlay.store(scene.all())),
            pin!(scene.base.store(scene.all())),
            pin!(other.store(scene.all())),
        );
        while scene.pager.held() == 0 {
            assert!(poll_once(first.as_mut()).is_pending());
        }
        for _ in 0..3 {
            assert!(poll_once(second.as_mut()).is_pending());
            assert!(poll_once(third.as_mut()).is_pending());
        }
        assert_eq!((scene.pager.held(), scene.pager.stores()), (1, 1));
        assert!(scene.pager.release_store(page(0)));
        assert_eq!((first.await, scene.stored(0)), (Ok(()), 2));
        while scene.pager.held() == 0 {
            assert!(poll_once(second.as_mut()).is_pending());
        }
        assert!(poll_once(third.as_mut()).is_pending());
        assert!(scene.pager.release_store(page(0)));
        assert_eq!((second.await, scene.stored(0)), (Ok(()), 1));
        assert_eq!(scene.pager.release_all().await, 0);
        assert_eq!((third.await, scene.stored(0)), (Ok(()), 3));
    });
}

#[test]
fn what_another_has_overwritten_is_not_folded_before_it_is_stored_again() {
    block_on_cpus(2, async {
        for by_base in [false, true] {
            let scene = Scene::new().await;
            let other = other_overlay(&scene);
            let (at, by) = if by_base { (BELOW, &scene.base) } else { (OTHER, &other) };
            scene.write(BASE, 7).await;
            scene.overlay.store(scene.all()).await.unwrap();
            scene.write(at, 9).await;
            assert_eq!(by.store_and_mark(scene.all()).await, Ok(1));
            assert_eq!(scene.overlay.mark(scene.all()).await, 0, "it is nowhere else");
            assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(7), Ok(9)));
            assert_eq!(scene.overlay.store_and_mark(scene.all()).await, Ok(1));
            assert_eq!((scene.read(at).await, scene.stored(0)), (Ok(7), 7));
        }
    });
}

#[test]
fn what_an_overlay_has_overwritten_in_the_base_is_not_marked_before_it_is_stored_again() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(BELOW, 9).await;
        scene.base.store(scene.all()).await.unwrap();
        scene.write(BASE, 7).await;
        scene.overlay.store(scene.all()).await.unwrap();
        assert_eq!(scene.base.mark(scene.all()).await, 0);
        assert_eq!((scene.read(BELOW).await, scene.stored(0)), (Ok(9), 7));
        assert_eq!(scene.base.store_and_mark(scene.all()).await, Ok(1));
        assert_eq!(scene.stored(0), 9);
    });
}

#[test]
fn a_fold_leaves_the_page_while_another_stores_it() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let other = other_overlay(&scene);
        scene.write(BASE, 7).await;
        scene.overlay.store(scene.all()).await.unwrap();
        scene.write(OTHER, 9).await;
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(7));
        let mut mark = pin!(scene.overlay.mark(scene.all()));
        assert!(poll_once(mark.as_mut()).is_pending());
        scene.pager.hold();
        let mut store = pin!(other.store(scene.all()));
        assert!(poll_once(store.as_mut()).is_pending());
        busy.end().await;
        assert_eq!(mark.await, 0);
        assert_eq!(scene.overlay.mark(scene.all()).await, 0);
        while scene.pager.held() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
        }
        assert_eq!(scene.pager.release_all().await, 1);
        assert_eq!(store.await, Ok(()));
        assert_eq!(scene.overlay.mark(scene.all()).await, 0, "it was overwritten");
        assert_eq!((scene.read(BASE).await, scene.stored(0)), (Ok(7), 9));
    });
}

#[test]
fn an_overlay_that_has_ended_is_nobody_who_is_told() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        for _ in 0..100 {
            drop(VmObject::overlay(scene.base.clone()));
        }
        scene.write(BELOW, 9).await;
        assert_eq!(scene.base.store_and_mark(scene.all()).await, Ok(1));
        assert_eq!(scene.read(BASE).await, Ok(9));
    });
}

#[test]
fn what_an_overlay_has_stored_and_writes_again_is_not_folded_before_it_is_stored_again() {
    block_on_cpus(2, async {
        for evict in [false, true] {
            let scene = Scene::new().await;
            scene.write(BASE, 7).await;
            assert_eq!(scene.overlay.store_and_mark(scene.all()).await, Ok(1));
            if evict {
                assert!(scene.base.evict(page(0)).await);
            }
            scene.write(BASE, 8).await;
            scene.write(BASE + PAGE, 9).await;
            assert_eq!(scene.overlay.mark(scene.all()).await, 1, "the other, which was never stored");
            assert_eq!((scene.read(BASE).await, scene.read(BELOW).await), (Ok(8), Ok(7)));
        }
    });
}
