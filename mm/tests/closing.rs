//! The end of an object's use of its pager.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::overlay::{self, BELOW};
use common::shown::{BASE, PAGES, RW, at_base};
use common::{Machine, PAGE, address, content, page};
use executor::host::block_on_cpus;
use executor::yield_now;
use mm::{AddressSpace, Denial, PageError, PageState, Placement, StoreError, TestPager, VmObject};

struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    free: usize,
}

impl Scene {
    async fn new() -> Self {
        let machine = Machine::with_cpus(200);
        let space = machine.user_space();
        let tables = VmObject::zero(machine.memory, 1);
        let beside = BASE + 2 * PAGES * PAGE;
        space.map(&tables, page(0), 1, RW, Placement::Fixed(address(beside))).unwrap();
        machine.write(&space, beside, 0).await.unwrap();
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        let free = machine.free();
        space.map(&object, page(0), PAGES, RW, at_base()).unwrap();
        Self { machine, pager, object, space, free }
    }

    async fn read(&self, index: u64) -> Result<u64, Denial> {
        self.machine.read(&self.space, BASE + index * PAGE).await
    }

    async fn write(&self, index: u64, value: u64) -> Result<(), Denial> {
        self.machine.write(&self.space, BASE + index * PAGE, value).await
    }

    fn stored(&self, index: u64) -> u64 {
        u64::from_le_bytes(self.pager.backing(page(index))[..8].try_into().unwrap())
    }
}

fn closed(index: u64) -> Denial {
    Denial::Io { page: page(index), error: PageError::Closed }
}

#[test]
fn changes_are_stored_and_all_pages_go_and_touches_are_denied() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        assert_eq!(scene.read(0).await, Ok(content(0)));
        scene.write(1, 7).await.unwrap();
        assert_eq!(scene.object.close().await, Ok(()));
        assert_eq!((scene.stored(1), scene.object.stats().resident), (7, 0));
        assert_eq!(scene.machine.free(), scene.free);
        assert_eq!(scene.read(0).await, Err(closed(0)));
        assert_eq!(scene.write(1, 8).await, Err(closed(1)));
        assert_eq!(scene.object.read(0, &mut [0; 8]).await, Err(PageError::Closed));
        assert_eq!((scene.pager.loads(), scene.pager.stores()), (2, 1));
        assert_eq!(scene.object.close().await, Ok(()), "once more is nothing");
    });
}

#[test]
fn a_store_that_fails_leaves_the_object_open() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(1, 7).await.unwrap();
        scene.pager.fail_stores(Some(page(1)), 1, PageError::Io);
        let error = StoreError { page: page(1), error: PageError::Io };
        assert_eq!(scene.object.close().await, Err(error));
        assert_eq!((scene.read(1).await, scene.read(0).await), (Ok(7), Ok(content(0))));
        scene.object.discard(page(0)..page(PAGES)).await;
        assert_eq!(scene.object.close().await, Ok(()));
        assert_eq!(scene.stored(1), content(1));
    });
}

#[test]
fn a_load_under_way_is_waited_for_and_thrown_away() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.pager.hold();
        let mut read = pin!(scene.read(0));
        assert!(poll_once(read.as_mut()).is_pending());
        let mut close = pin!(scene.object.close());
        while scene.object.state(page(0)) != PageState::LoadingInvalidated {
            assert!(poll_once(close.as_mut()).is_pending());
            yield_now().await;
        }
        assert!(scene.pager.release(page(0)));
        assert_eq!(close.await, Ok(()));
        assert_eq!(read.await, Err(closed(0)));
        assert_eq!((scene.machine.free(), scene.pager.held()), (scene.free, 0));
    });
}

#[test]
fn pages_that_are_read_ahead_are_waited_for() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.pager.set_pages_at_once(32);
        assert_eq!(scene.read(0).await, Ok(content(0)));
        scene.pager.hold();
        let mut read = pin!(scene.read(1));
        assert!(poll_once(read.as_mut()).is_pending());
        assert_eq!(scene.object.stats().transfers, 2);
        assert_eq!(scene.pager.held(), 2);
        let mut close = pin!(scene.object.close());
        assert!(poll_once(close.as_mut()).is_pending());
        assert!(scene.pager.release(page(1)));
        assert!(poll_once(close.as_mut()).is_pending());
        assert!(scene.pager.release(page(2)));
        assert_eq!(close.await, Ok(()));
        assert_eq!(read.await, Err(closed(1)));
        assert_eq!(scene.object.stats().transfers, 0);
    });
}

#[test]
fn a_store_under_way_is_waited_for() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(0, 7).await.unwrap();
        scene.pager.hold();
        let mut store = pin!(scene.object.store(page(0)..page(1)));
        // It may have to wait for the other CPU before.
        while scene.pager.held() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
            yield_now().await;
        }
        drop(scene.object.discard(page(0)..page(1)));
        let mut close = pin!(scene.object.close());
        assert!(poll_once(close.as_mut()).is_pending());
        assert!(scene.pager.release_store(page(0)));
        assert_eq!(close.await, Ok(()));
        assert_eq!(store.await, Ok(()));
        assert_eq!(scene.machine.free(), scene.free);
    });
}

#[test]
fn what_a_cpu_writes_by_what_it_remembers_is_stored() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let root = scene.space.root();
        scene.write(0, 7).await.unwrap();
        let busy = Busy::begin(scene.machine).await;
        assert!(busy.writes(root, BASE, 8));
        let mut close = pin!(scene.object.close());
        assert!(poll_once(close.as_mut()).is_pending());
        assert_eq!(scene.read(0).await, Err(closed(0)), "denied from now on");
        assert!(busy.writes(root, BASE, 9));
        busy.end().await;
        assert_eq!(close.await, Ok(()));
        assert_eq!(scene.stored(0), 9);
    });
}

#[test]
fn a_close_that_is_given_up_leaves_the_object_open() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(0, 7).await.unwrap();
        scene.pager.hold();
        {
            let mut close = pin!(scene.object.close());
            while scene.pager.held() == 0 {
                assert!(poll_once(close.as_mut()).is_pending());
                yield_now().await;
            }
        }
        assert_eq!(scene.read(0).await, Ok(7));
        assert!(scene.pager.release_store(page(0)));
        assert_eq!(scene.stored(0), 7);
    });
}

#[test]
fn of_two_who_close_both_find_it_closed() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        scene.write(0, 7).await.unwrap();
        scene.pager.hold();
        let (mut first, mut second) = (pin!(scene.object.close()), pin!(scene.object.close()));
        while scene.pager.held() == 0 {
            assert!(poll_once(first.as_mut()).is_pending());
            assert!(poll_once(second.as_mut()).is_pending());
            yield_now().await;
        }
        assert_eq!(scene.pager.release_all().await, 1);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        assert_eq!(scene.read(0).await, Err(closed(0)));
    });
}

#[test]
fn an_overlay_that_is_closed_shows_nothing_of_its_base_any_more() {
    block_on_cpus(2, async {
        let scene = overlay::Scene::new().await;
        let root = scene.space.root();
        let copies = BASE + 0x18_0000;
        scene
            .space
            .map_private(&scene.overlay, page(0), PAGES, RW, Placement::Fixed(address(copies)))
            .unwrap();
        scene.write(BASE, 7).await;
        scene.write(copies + PAGE, 8).await;
        for at in [BASE, copies] {
            assert_eq!(scene.read(at + 2 * PAGE).await, Ok(content(2)));
        }
        assert_eq!(scene.read(BELOW + 2 * PAGE).await, Ok(content(2)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, BASE + 2 * PAGE), Some(content(2)));
        let mut close = pin!(scene.overlay.close());
        assert!(poll_once(close.as_mut()).is_pending());
        for index in 0..PAGES {
            assert_eq!(scene.read(BASE + index * PAGE).await, Err(closed(index)), "denied from now on");
        }
        assert_eq!(scene.read(copies + 2 * PAGE).await, Err(closed(2)));
        busy.end().await;
        assert_eq!(close.await, Ok(()));
        assert_eq!(scene.read(copies + PAGE).await, Ok(8), "a copy is no page of the overlay");
        assert_eq!((scene.read(BELOW + 2 * PAGE).await, scene.pager.loads()), (Ok(content(2)), 3));
        assert_eq!((scene.stored(0), scene.read(BELOW).await), (7, Ok(7)));
    });
}

#[test]
fn an_overlay_that_is_closed_leaves_its_base_open() {
    block_on_cpus(2, async {
        let scene = Scene::new().await;
        let overlay = VmObject::overlay(scene.object.clone());
        overlay.write(0, &7u64.to_le_bytes()).await.unwrap();
        assert_eq!(overlay.close().await, Ok(()));
        assert_eq!((scene.stored(0), overlay.stats().resident), (7, 0));
        assert_eq!(overlay.read(0, &mut [0; 8]).await, Err(PageError::Closed));
        assert_eq!(scene.read(1).await, Ok(content(1)));
    });
}

#[test]
fn an_overlay_and_its_base_are_closed_together() {
    block_on_cpus(2, async {
        let scene = overlay::Scene::new().await;
        scene.write(BASE, 7).await;
        scene.write(BELOW + PAGE, 8).await;
        assert_eq!(scene.overlay.close_with_base().await, Ok(()));
        assert_eq!((scene.stored(0), scene.stored(1)), (7, 8));
        for at in [BASE, BASE + PAGE, BELOW, BELOW + PAGE] {
            assert!(matches!(scene.read(at).await, Err(Denial::Io { error: PageError::Closed, .. })));
        }
        assert_eq!(scene.machine.free(), scene.free);
    });
}

#[test]
fn an_overlay_is_open_again_where_its_base_could_not_be_closed() {
    block_on_cpus(2, async {
        for is_given_up in [false, true] {
            let scene = overlay::Scene::new().await;
            scene.write(BASE, 7).await;
            scene.write(BELOW + PAGE, 8).await;
            let error = StoreError { page: page(1), error: PageError::Io };
            if is_given_up {
                scene.pager.hold();
                let mut close = pin!(scene.overlay.close_with_base());
                for index in [0, 1] {
                    while scene.pager.held() == 0 {
                        assert!(poll_once(close.as_mut()).is_pending());
                        yield_now().await;
                    }
                    assert_eq!(scene.pager.release_store(page(0)), index == 0);
                }
                assert_eq!(scene.overlay.stats().resident, 0, "the overlay itself was done");
                let denied = scene.read(BELOW + 2 * PAGE).await;
                assert_eq!(denied, Err(closed(2)), "the base is denied as well meanwhile");
            } else {
                scene.pager.fail_stores(Some(page(1)), 1, PageError::Io);
                assert_eq!(scene.overlay.close_with_base().await, Err(error));
            }
            scene.pager.release_all().await;
            assert_eq!((scene.stored(0), scene.read(BASE).await), (7, Ok(7)));
            assert_eq!((scene.read(BASE + PAGE).await, scene.read(BELOW + PAGE).await), (Ok(8), Ok(8)));
            scene.write(BASE, 9).await;
            assert_eq!(scene.overlay.close_with_base().await, Ok(()));
            assert_eq!((scene.stored(0), scene.stored(1)), (9, 8));
        }
    });
}
