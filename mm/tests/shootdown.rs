//! Several CPUs, each of which remembers translations: nothing that was taken away is used for something else
//! while one of them may still use it. Here: mappings, rights and spaces.
//!
//! The other CPU stands in the middle of a poll, in which it has read a page and remembers where it is.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::shown::{BASE, PAGES, RW, Scene, at_base, use_free_frames};
use common::{PAGE, address, page, range};
use executor::host::block_on_cpus;
use executor::{spawn, yield_now};
use mm::{Access, Denial, FaultOutcome, MapError, Protection, VmObject, reclaimer};

#[test]
fn an_unmapping_ends_when_no_cpu_reaches_the_pages() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, space, root) = (scene.machine, scene.space.clone(), scene.space.root());
        let busy = scene.seen_by_another(7).await;
        let mut unmap = pin!(space.unmap(scene.all()));
        assert!(poll_once(unmap.as_mut()).is_pending());
        // For faults the mapping is gone, but its range is not free.
        assert_eq!(machine.try_read(root, BASE), None);
        let denied = space.resolve(machine.fault(BASE, Access::Read)).await;
        assert_eq!(denied, FaultOutcome::Denied(Denial::NoMapping));
        assert_eq!(space.map(&scene.object, page(0), 1, RW, at_base()), Err(MapError::Overlap));
        // Nor is the frame, though nobody but the mapping has the object.
        let object = Arc::downgrade(&scene.object);
        let mut scene = scene;
        scene.object = VmObject::zero(machine.memory, 1);
        let taken = scene.use_free_frames();
        assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
        assert!(object.upgrade().is_some());
        drop(taken);
        busy.end().await;
        unmap.await.unwrap();
        assert!(object.upgrade().is_none());
        // The object ended after the unmapping: the other CPU may not have begun anything since.
        machine.memory.settle().await;
        assert_eq!((scene.mappings(), machine.free()), (0, scene.free));
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), None);
        assert!(space.map(&scene.object, page(0), 1, RW, at_base()).is_ok());
        busy.end().await;
    });
}

#[test]
fn an_unmapping_that_is_not_awaited_is_ended_by_the_next_who_looks() {
    block_on_cpus(2, async {
        for look in 0..4 {
            let scene = Scene::zero().await;
            let space = &scene.space;
            let busy = scene.seen_by_another(7).await;
            {
                let mut unmap = pin!(space.unmap(scene.all()));
                assert!(poll_once(unmap.as_mut()).is_pending());
            }
            assert_eq!(scene.mappings(), 1);
            let object = VmObject::zero(scene.machine.memory, PAGES);
            assert_eq!(space.map(&object, page(0), PAGES, RW, at_base()), Err(MapError::Overlap));
            let unmapped = space.clone();
            let mut other = Box::pin(async move { unmapped.unmap(range(address(BASE), 1)).await });
            assert!(poll_once(other.as_mut()).is_pending(), "a CPU still reaches the page");
            assert_eq!(busy.reads(space.root(), BASE), Some(7));
            busy.end().await;
            match look {
                0 => other.await.unwrap(),
                1 => {
                    scene.machine.memory.settle().await;
                    assert_eq!(space.map(&object, page(0), PAGES, RW, at_base()), Ok(address(BASE)));
                    continue;
                }
                2 => {
                    // The background task was told.
                    let background = spawn(reclaimer(scene.machine.memory));
                    scene.until(|| scene.mappings() == 0).await;
                    background.abort();
                }
                _ => {
                    let (machine, free) = (scene.machine, scene.free);
                    let Scene { space, object, .. } = scene;
                    drop((other, space, object));
                    machine.memory.settle().await;
                    assert_eq!(machine.free(), free + 5, "a root, three tables and the page that kept them");
                    continue;
                }
            }
            assert_eq!(scene.mappings(), 0);
        }
    });
}

#[test]
fn protecting_ends_when_no_cpu_can_do_more() {
    block_on_cpus(2, async {
        for rights in [Protection::READ.for_user(), Protection::default().for_user()] {
            let scene = Scene::zero().await;
            let root = scene.space.root();
            let busy = Busy::begin(scene.machine).await;
            assert!(busy.writes(root, BASE, 8));
            // One that is not awaited changes nothing for the next.
            assert!(poll_once(pin!(scene.space.protect(scene.all(), rights))).is_pending());
            let mut protect = pin!(scene.space.protect(scene.all(), rights));
            assert!(poll_once(protect.as_mut()).is_pending());
            assert!(scene.machine.try_write(root, BASE, 1).is_none(), "this CPU has forgotten at once");
            assert!(busy.writes(root, BASE, 9), "it uses what it remembers");
            busy.end().await;
            protect.await.unwrap();
            let busy = Busy::begin(scene.machine).await;
            assert!(!busy.writes(root, BASE, 10));
            assert_eq!(busy.reads(root, BASE), rights.read.then_some(9));
            busy.end().await;
        }
    });
}

#[test]
fn giving_rights_waits_for_no_cpu_unless_others_were_just_taken() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (space, read) = (&scene.space, Protection::READ.for_user());
        let protect = |rights| space.protect(scene.all(), rights);
        let every = Protection { execute: true, ..RW };
        let busy = scene.seen_by_another(7).await;
        assert!(poll_once(pin!(protect(every))).is_ready());
        assert!(poll_once(pin!(protect(every))).is_ready());
        assert!(busy.writes(space.root(), BASE, 8));
        // What one gives is less than what a CPU remembers, because another took more and did not wait.
        assert!(poll_once(pin!(protect(read))).is_pending());
        let mut gives = pin!(protect(Protection { execute: true, ..read }));
        assert!(poll_once(gives.as_mut()).is_pending());
        assert!(busy.writes(space.root(), BASE, 9), "it uses what it remembers");
        busy.end().await;
        gives.await.unwrap();
        let busy = Busy::begin(scene.machine).await;
        assert!(!busy.writes(space.root(), BASE, 10));
        assert!(poll_once(pin!(protect(every))).is_ready());
        busy.end().await;
    });
}

#[test]
fn a_space_that_ends_leaves_its_tables_and_pages_to_those_who_use_them() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, root) = (scene.machine, scene.space.root());
        machine.write(&scene.space, BASE + PAGE, 8).await.unwrap();
        let before = machine.free();
        let busy = scene.seen_by_another(7).await;
        let Scene { space, object, .. } = scene;
        drop((space, object));
        // Two pages, a root, three tables and the page that kept them.
        let stats = machine.memory.frames().stats();
        assert_eq!((stats.free, stats.quarantined), (before, 7));
        let taken = use_free_frames(machine, usize::MAX);
        assert_eq!(busy.reads(root, BASE), Some(7), "it uses what it remembers");
        assert_eq!(busy.reads(root, BASE + PAGE), None, "and goes through the tables that are loaded");
        drop(taken);
        busy.end().await;
        machine.memory.settle().await;
        let stats = machine.memory.frames().stats();
        assert_eq!((stats.free, stats.quarantined), (before + 7, 0));
    });
}

#[test]
fn a_wait_that_moves_to_a_busy_cpu_waits_for_that_one_too() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, root) = (scene.machine, scene.space.root());
        let busy = scene.seen_by_another(7).await;
        let space = scene.space.clone();
        let mut unmap = Box::pin(async move { space.unmap(range(address(BASE), PAGES)).await });
        assert!(poll_once(unmap.as_mut()).is_pending());
        // This CPU, which asked, comes between two polls. The other takes over the wait in the middle of its own.
        yield_now().await;
        let looked = busy.does(move || {
            let pending = poll_once(unmap.as_mut()).is_pending();
            (pending, machine.try_read(root, BASE), unmap)
        });
        let (pending, seen, unmap) = looked;
        assert!(pending, "that CPU is in the middle of its poll");
        assert_eq!(seen, Some(7), "it uses what it remembers");
        assert_eq!(scene.mappings(), 1);
        busy.end().await;
        unmap.await.unwrap();
        assert_eq!(scene.mappings(), 0);
        assert_eq!(machine.try_read(root, BASE), None);
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), None);
        busy.end().await;
    });
}
