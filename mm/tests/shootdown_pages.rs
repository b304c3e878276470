//! Pages that leave memory while another CPU may still use them: no frame is used for something else meanwhile.
//!
//! The other CPU stands in the middle of a poll, in which it has read a page and remembers where it is.

mod common;

use std::pin::pin;

use common::cpus::poll_once;
use common::shown::{BASE, PAGES, Scene};
use common::{address, content, page};
use executor::host::block_on_cpus;
use executor::{spawn, yield_now};
use mm::{PageState, VmObject, reclaim, reclaimer};

#[test]
fn an_evicted_page_keeps_its_frame_until_no_cpu_reads_it() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let (machine, space, root) = (scene.machine, &scene.space, scene.space.root());
        let before = scene.object.state(page(0));
        let busy = scene.seen_by_another(content(0)).await;
        let mut evict = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(evict.as_mut()).is_pending());
        assert!(space.walk(address(BASE)).is_none());
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(root, BASE), Some(content(0)), "it uses what it remembers");
        drop(taken);
        assert_eq!((scene.object.state(page(0)), machine.free()), (before, scene.free - 1));
        busy.end().await;
        assert_eq!(evict.await, 1);
        assert_eq!((scene.object.state(page(0)), machine.free()), (PageState::Absent, scene.free));
        // In another frame, for all CPUs.
        let other_use = machine.memory.frames().try_alloc();
        machine.write(space, BASE, 5).await.unwrap();
        let busy = scene.seen_by_another(5).await;
        machine.write(space, BASE, 6).await.unwrap();
        assert_eq!(busy.reads(root, BASE), Some(6));
        busy.end().await;
        drop(other_use);
    });
}

#[test]
fn a_page_that_is_touched_while_it_leaves_stays_where_it_is() {
    block_on_cpus(2, async {
        for write in [false, true] {
            let scene = Scene::file().await;
            let (machine, space) = (scene.machine, &scene.space);
            let frame = scene.object.state(page(0)).frame();
            let busy = scene.seen_by_another(content(0)).await;
            let mut evict = pin!(reclaim(machine.memory, 1));
            assert!(poll_once(evict.as_mut()).is_pending());
            let value = if write {
                machine.write(space, BASE, 9).await.unwrap();
                9
            } else {
                machine.read(space, BASE).await.unwrap()
            };
            // Both CPUs use the same frame.
            assert_eq!(busy.reads(space.root(), BASE), Some(value));
            assert_eq!(scene.object.state(page(0)).frame(), frame);
            busy.end().await;
            assert_eq!(evict.await, 0);
            assert_eq!(scene.object.state(page(0)).frame(), frame);
            assert_eq!(machine.read(space, BASE).await, Ok(value));
            assert_eq!(machine.memory.stats().loads_started, 1);
        }
    });
}

#[test]
fn evictions_take_turns_so_that_each_waits_for_what_it_has_marked() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let (machine, space) = (scene.machine, &scene.space);
        let busy = scene.seen_by_another(content(0)).await;
        let mut first = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(first.as_mut()).is_pending());
        let mut second = pin!(reclaim(machine.memory, 1));
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(machine.read(space, BASE).await, Ok(content(0)));
        let frame = scene.object.state(page(0)).frame();
        assert!(poll_once(second.as_mut()).is_pending());
        busy.end().await;
        // Another CPU sees the page again before the second begins.
        assert_eq!(first.await, 0);
        let busy = scene.seen_by_another(content(0)).await;
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(scene.object.state(page(0)).frame(), frame);
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(space.root(), BASE), Some(content(0)));
        drop(taken);
        busy.end().await;
        assert_eq!(second.await, 1);
        assert_eq!(machine.free(), scene.free);
    });
}

#[test]
fn a_dropped_page_is_made_anew_when_no_cpu_uses_the_old_one() {
    block_on_cpus(2, async {
        for awaited in [true, false] {
            let scene = Scene::zero().await;
            let (machine, space, root) = (scene.machine, &scene.space, scene.space.root());
            let busy = scene.seen_by_another(7).await;
            let mut release = Some(Box::pin(scene.object.release(page(0)..page(PAGES))));
            assert!(poll_once(release.as_mut().unwrap().as_mut()).is_pending());
            if !awaited {
                release = None;
            }
            assert_eq!((scene.object.state(page(0)), scene.quarantined()), (PageState::Absent, 1));
            let mut read = pin!(machine.read(space, BASE));
            assert!(poll_once(read.as_mut()).is_pending(), "a CPU still uses the old page");
            let taken = scene.use_free_frames();
            assert_eq!(taken.len(), scene.free - 1);
            assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
            drop(taken);
            busy.end().await;
            assert_eq!(read.await, Ok(0));
            if let Some(release) = release {
                release.await;
            }
            assert_eq!((machine.free(), scene.quarantined()), (scene.free - 1, 0));
            let busy = scene.seen_by_another(0).await;
            busy.end().await;
        }
    });
}

#[test]
fn who_drops_a_page_again_waits_for_the_cpus_that_use_it_also_while_it_is_stored() {
    block_on_cpus(2, async {
        for stored in [false, true] {
            let disk = std::sync::OnceLock::new();
            let scene = Scene::new(|machine| {
                let pager = disk.get_or_init(|| machine.pager());
                VmObject::new(machine.memory, pager.clone(), PAGES)
            })
            .await;
            let (disk, root) = (disk.get().unwrap(), scene.space.root());
            scene.machine.write(&scene.space, BASE, 5).await.unwrap();
            disk.hold();
            let mut store = pin!(scene.object.store(page(0)..page(1)));
            if stored {
                assert!(poll_once(store.as_mut()).is_pending());
            }
            let busy = scene.seen_by_another(5).await;
            drop(scene.object.release(page(0)..page(PAGES)));
            let mut again = pin!(scene.object.release(page(0)..page(PAGES)));
            assert!(poll_once(again.as_mut()).is_pending(), "stored: {stored}");
            assert_eq!(busy.reads(root, BASE), Some(5), "it uses what it remembers");
            busy.end().await;
            again.await;
            disk.release_all().await;
            assert_eq!(store.await, Ok(()));
        }
    });
}

#[test]
fn pages_that_nobody_waits_for_are_freed_by_the_background_task() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let background = spawn(reclaimer(scene.machine.memory));
        let busy = scene.seen_by_another(7).await;
        drop(scene.object.release(page(0)..page(PAGES)));
        yield_now().await;
        assert_eq!((scene.machine.free(), scene.quarantined()), (scene.free - 1, 1));
        busy.end().await;
        scene.until(|| scene.machine.free() == scene.free).await;
        assert_eq!(scene.quarantined(), 0);
        background.abort();
    });
}

#[test]
fn frames_in_quarantine_are_waited_for_before_somebody_is_told_that_there_is_none() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let busy = scene.seen_by_another(7).await;
        drop(scene.object.release(page(0)..page(PAGES)));
        let taken = scene.use_free_frames();
        let waiter = spawn(scene.machine.memory.frames().alloc());
        let background = spawn(reclaimer(scene.machine.memory));
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!waiter.is_finished());
        assert_eq!(busy.reads(scene.space.root(), BASE), Some(7));
        busy.end().await;
        scene.until(|| waiter.is_finished()).await;
        assert!(waiter.await.unwrap().is_ok());
        background.abort();
        drop(taken);
    });
}
