//! The states between the two steps of eviction and of dropping, while another CPU may still use the page.

mod common;

use common::cpus::{Busy, poll_once};
use common::one_page::*;
use common::{content, page};
use executor::host::block_on_cpus;
use mm::reclaim;

/// Runs the future of a test about two CPUs, with a scene that was made when there was only one.
fn on_two_cpus<T: Future>(scene: Scene, test: impl FnOnce(Scene) -> T) {
    block_on_cpus(2, test(scene));
}

/// A clean page that reclaim has taken out of the page tables, while another CPU may still use it.
async fn leaving(mut scene: Scene, then: impl FnOnce(&mut Scene)) -> (Scene, usize) {
    let busy = Busy::begin(scene.machine).await;
    let mut reclaiming = Box::pin(reclaim(scene.machine.memory, 1));
    assert!(poll_once(reclaiming.as_mut()).is_pending());
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Loaded, None, scene.free - 1));
    then(&mut scene);
    busy.end().await;
    let freed = reclaiming.await;
    (scene, freed)
}

#[test]
fn a_leaving_page_goes_when_all_cpus_were_waited_for() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |_| ()).await;
        assert_eq!((freed, scene.seen(), scene.shown(), scene.machine.free()), (1, Absent, None, scene.free));
    });
}

#[test]
fn touching_a_leaving_page_shows_the_same_frame_and_keeps_it() {
    for write in [false, true] {
        on_two_cpus(Scene::new(Loaded), |scene| async move {
            let expected = if write { (Dirty, Some(true)) } else { (Loaded, Some(false)) };
            let (scene, freed) = leaving(scene, |scene| {
                let frame = scene.object.state(page(0)).frame();
                let done = if write {
                    scene.write(1).is_done()
                } else {
                    scene.read().take() == Some(Ok(content(0)))
                };
                assert!(done);
                assert_eq!((scene.seen(), scene.shown()), expected);
                assert_eq!(scene.object.state(page(0)).frame(), frame);
            })
            .await;
            assert_eq!((freed, scene.seen(), scene.shown()), (0, expected.0, expected.1));
            assert_eq!((scene.pager.loads(), scene.machine.free()), (1, scene.free - 1));
        });
    }
}

#[test]
fn evicting_a_leaving_page_changes_nothing() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |scene| {
            let mut second = Box::pin(reclaim(scene.machine.memory, 1));
            assert!(poll_once(second.as_mut()).is_pending());
            assert_eq!((scene.seen(), scene.machine.free()), (Loaded, scene.free - 1));
        })
        .await;
        assert_eq!((freed, scene.seen(), scene.machine.free()), (1, Absent, scene.free));
    });
}

#[test]
fn a_leaving_page_whose_eviction_is_gone_is_evicted_by_the_next() {
    on_two_cpus(Scene::new(Loaded), |scene| async move {
        let busy = Busy::begin(scene.machine).await;
        assert!(poll_once(std::pin::pin!(reclaim(scene.machine.memory, 1))).is_pending());
        busy.end().await;
        assert_eq!((scene.seen(), scene.shown()), (Loaded, None));
        assert_eq!(reclaim(scene.machine.memory, 1).await, 1);
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
    });
}

#[test]
fn dropping_a_leaving_page_is_not_undone_by_its_eviction() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |scene| {
            drop(scene.object.release(page(0)..page(1)));
            assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free - 1));
        })
        .await;
        // It was dropped after the eviction began to wait.
        scene.machine.memory.settle().await;
        assert_eq!((freed, scene.seen(), scene.machine.free()), (0, Absent, scene.free));
    });
}

/// A page that was dropped, while another CPU may still use its frame.
async fn dropped(mut scene: Scene, then: impl FnOnce(&mut Scene)) -> Scene {
    let busy = Busy::begin(scene.machine).await;
    let object = scene.object.clone();
    drop(object.release(page(0)..page(1)));
    let quarantined = |scene: &Scene| scene.machine.memory.frames().stats().quarantined;
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Absent, None, scene.free - 1));
    assert_eq!((quarantined(&scene), object.stats().resident), (1, 0));
    then(&mut scene);
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Absent, None, scene.free - 1));
    busy.end().await;
    while !scene.tasks.all_done() && scene.seen() == Absent {
        executor::yield_now().await;
        scene.tasks.run();
    }
    scene.machine.memory.settle().await;
    assert_eq!(quarantined(&scene), 0);
    scene
}

#[test]
fn touching_a_dropped_page_waits_for_all_cpus() {
    for state in [Loaded, Dirty] {
        for write in [false, true] {
            on_two_cpus(Scene::new(state), |scene| async move {
                let mut scene = dropped(scene, |scene| {
                    let done = if write { scene.write(1).is_done() } else { scene.read().is_done() };
                    assert!(!done);
                })
                .await;
                assert_eq!((scene.seen(), scene.pager.loads()), (Loading, 2));
                scene.end_load();
                let expected = if write { Dirty } else { Loaded };
                assert_eq!((scene.seen(), scene.machine.free()), (expected, scene.free - 1));
            });
        }
    }
    on_two_cpus(Scene::zero(Dirty), |scene| async {
        let scene = dropped(scene, |scene| assert!(!scene.read().is_done())).await;
        assert_eq!((scene.seen(), scene.machine.free()), (Dirty, scene.free - 1));
    });
}

#[test]
fn a_dropped_page_is_dropped_and_evicted_without_effect() {
    for state in [Loaded, Dirty] {
        on_two_cpus(Scene::new(state), |scene| async move {
            let mut scene = dropped(scene, |scene| {
                let object = scene.object.clone();
                let mut again = std::pin::pin!(object.release(page(0)..page(1)));
                assert!(poll_once(again.as_mut()).is_pending(), "a CPU still uses the frame");
                assert!(poll_once(std::pin::pin!(reclaim(scene.machine.memory, 1))).is_ready());
            })
            .await;
            assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
            drop(scene.read());
            assert_eq!(scene.seen(), Loading, "{state:?}");
        });
    }
}
