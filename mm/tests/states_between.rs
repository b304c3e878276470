//! The states between the two steps of eviction and of dropping, while another CPU may still use the page.

mod common;

use std::time::Duration;

use common::cpus::{Busy, poll_once};
use common::one_page::*;
use common::{content, page};
use executor::{host::block_on_cpus, time};
use mm::{Observation, ReclaimPolicy, Verdict, reclaim};

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

#[test]
fn a_store_reads_the_page_when_no_cpu_remembers_that_it_has_noted_a_write() {
    on_two_cpus(Scene::new(Dirty), |scene| async move {
        let busy = Busy::begin(scene.machine).await;
        let (root, at) = (scene.space.root(), scene.start.as_u64());
        assert!(busy.writes(root, at, 8));
        let object = scene.object.clone();
        let mut store = Box::pin(object.store(page(0)..page(1)));
        assert!(poll_once(store.as_mut()).is_pending());
        assert_eq!((scene.seen(), scene.pager.stores()), (WritingBack, 0));
        assert!(busy.writes(root, at, 9), "it need not tell the page table");
        busy.end().await;
        while scene.pager.stores() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
            executor::yield_now().await;
        }
        assert!(scene.pager.release_store(page(0)));
        assert_eq!((store.await, scene.backing(), scene.object.mark(page(0)..page(1)).await), (Ok(()), 9, 1));
    });
}

#[test]
fn a_store_that_is_dropped_before_the_pager_has_it_leaves_the_page_to_the_next() {
    on_two_cpus(Scene::new(Dirty), |scene| async move {
        let busy = Busy::begin(scene.machine).await;
        assert!(poll_once(std::pin::pin!(scene.object.store(page(0)..page(1)))).is_pending());
        assert_eq!((scene.seen(), scene.pager.stores()), (Dirty, 0));
        // The other CPU may still write what no page table tells.
        assert!(poll_once(std::pin::pin!(scene.object.store(page(0)..page(1)))).is_pending());
        assert_eq!((scene.seen(), scene.pager.stores()), (Dirty, 0));
        busy.end().await;
        assert_eq!(scene.object.mark(page(0)..page(1)).await, 0, "nobody has stored it");
    });
}

/// A dirty page that was never stored, which is being marked while another CPU may still write to it.
async fn cleaning(mut scene: Scene, then: impl FnOnce(&mut Scene, &Busy)) -> (Scene, usize) {
    let busy = Busy::begin(scene.machine).await;
    assert!(busy.writes(scene.space.root(), scene.start.as_u64(), 8));
    let object = scene.object.clone();
    let mut mark = Box::pin(object.mark(page(0)..page(1)));
    assert!(poll_once(mark.as_mut()).is_pending());
    assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(false)));
    then(&mut scene, &busy);
    busy.end().await;
    let marked = mark.await;
    (scene, marked)
}

#[test]
fn a_page_counts_as_clean_when_no_cpu_may_write_to_it_any_more() {
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let (mut scene, marked) = cleaning(scene, |scene, busy| {
            assert!(busy.writes(scene.space.root(), scene.start.as_u64(), 9));
            // A touch in between shows it as it will be.
            let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
            let _ = poll_once(std::pin::pin!(space.protect(all.clone(), mm::Protection::default())));
            let _ = poll_once(std::pin::pin!(space.protect(all, mm::Protection::READ_WRITE)));
            assert_eq!(scene.read().take(), Some(Ok(9)));
            assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(false)));
        })
        .await;
        assert_eq!((marked, scene.seen(), scene.shown()), (1, Loaded, Some(false)));
        assert_eq!(scene.read().take(), Some(Ok(9)));
    });
}

#[test]
fn a_write_keeps_a_page_that_is_being_marked_dirty() {
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let (scene, marked) = cleaning(scene, |scene, _| assert!(scene.write(10).is_done())).await;
        assert_eq!((marked, scene.seen(), scene.shown()), (0, Dirty, Some(true)));
    });
    // One that no page table knows of, as well.
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let write = |scene: &mut Scene, _: &Busy| {
            let object = scene.object.clone();
            let written = poll_once(std::pin::pin!(object.write(0, &[1; 8])));
            assert!(written.is_ready());
        };
        let (scene, marked) = cleaning(scene, write).await;
        assert_eq!((marked, scene.seen()), (0, Dirty));
    });
    // A page table that says so at the end counts, too.
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let set = |scene: &mut Scene, _: &Busy| {
            scene.machine.set_dirty_bit(&scene.space, scene.start.as_u64());
        };
        let (scene, marked) = cleaning(scene, set).await;
        assert_eq!((marked, scene.seen()), (0, Dirty));
    });
}

#[test]
fn a_mark_that_is_dropped_leaves_the_page_dirty() {
    on_two_cpus(Scene::new(Dirty), |scene| async move {
        let busy = Busy::begin(scene.machine).await;
        assert!(poll_once(std::pin::pin!(scene.object.mark(page(0)..page(1)))).is_pending());
        assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(false)));
        busy.end().await;
        scene.machine.memory.settle().await;
        assert_eq!((scene.seen(), scene.object.mark(page(0)..page(1)).await), (Dirty, 1));
    });
}

#[test]
fn a_page_that_is_discarded_or_stored_while_it_is_being_marked_is_not_clean() {
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let discard = |scene: &mut Scene, _: &Busy| drop(scene.object.discard(page(0)..page(1)));
        let (scene, marked) = cleaning(scene, discard).await;
        scene.machine.memory.settle().await;
        assert_eq!((marked, scene.seen(), scene.machine.free()), (0, Absent, scene.free));
    });
    on_two_cpus(Scene::new(Dirty), |scene| async {
        let store = |scene: &mut Scene, busy: &Busy| {
            drop(scene.store());
            assert!(
                busy.writes(scene.space.root(), scene.start.as_u64(), 9),
                "it need not tell the page table"
            );
            assert_eq!(scene.pager.stores(), 0, "what it writes has to be stored");
        };
        let (mut scene, marked) = cleaning(scene, store).await;
        assert_eq!((marked, scene.seen()), (0, WritingBack));
        while scene.pager.stores() == 0 {
            scene.tasks.run();
            executor::yield_now().await;
        }
        scene.end_store();
        assert_eq!(scene.seen(), Dirty);
    });
}

/// Gives everything, and lets something happen between its look at a page and what becomes of that.
struct Between(Box<dyn Fn() + Send + Sync>);

impl ReclaimPolicy for Between {
    fn name(&self) -> &'static str {
        "between"
    }

    fn judge(&self, _: Observation) -> Verdict {
        (self.0)();
        Verdict::Evict
    }
}

#[test]
fn a_page_that_is_written_when_it_is_taken_out_stays_and_is_stored_when_no_cpu_may_write_to_it() {
    on_two_cpus(Scene::new(Loaded), |scene| async move {
        let (machine, space, at) = (scene.machine, scene.space.clone(), scene.start.as_u64());
        let note = Between(Box::new(move || machine.set_dirty_bit(&space, at)));
        machine.memory.set_policy(Box::leak(Box::new(note)));
        let busy = Busy::begin(machine).await;
        // Nothing leaves, so no CPU is waited for.
        let freed = time::timeout(Duration::from_secs(20), reclaim(machine.memory, 1)).await;
        assert_eq!(freed, Ok(0));
        assert_eq!((scene.seen(), scene.shown()), (Dirty, None));
        // The other CPU remembers where it was, and no page table tells what it writes.
        let object = scene.object.clone();
        let mut store = Box::pin(object.store(page(0)..page(1)));
        assert!(poll_once(store.as_mut()).is_pending());
        assert_eq!((scene.seen(), scene.pager.stores()), (WritingBack, 0));
        busy.end().await;
        while scene.pager.stores() == 0 {
            assert!(poll_once(store.as_mut()).is_pending());
            executor::yield_now().await;
        }
        assert!(scene.pager.release_store(page(0)));
        assert_eq!(store.await, Ok(()));
    });
}

#[test]
fn a_leaving_page_that_is_written_and_hidden_again_before_its_eviction_ends_keeps_what_was_written() {
    for protects in [false, true] {
        on_two_cpus(Scene::new(Loaded), |scene| async move {
            let (scene, freed) = leaving(scene, |scene| {
                assert!(scene.write(9).is_done());
                let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
                // It is in no page table again, as when it left.
                if protects {
                    let rights = mm::Protection::default();
                    assert!(poll_once(std::pin::pin!(space.protect(all, rights))).is_pending());
                } else {
                    assert!(poll_once(std::pin::pin!(space.unmap(all))).is_pending());
                }
                assert_eq!((scene.seen(), scene.shown()), (Dirty, None));
            })
            .await;
            assert_eq!((freed, scene.seen(), scene.machine.memory.stats().evictions), (0, Dirty, 0));
            let mut word = [0; 8];
            scene.object.read(0, &mut word).await.unwrap();
            assert_eq!(u64::from_le_bytes(word), 9);
        });
    }
}
