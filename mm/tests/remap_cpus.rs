//! Remapping on several CPUs, one of which stands in the middle of a poll and remembers the old place.

mod common;

use std::pin::pin;

use common::cpus::{Busy, poll_once};
use common::shown::{BASE, PAGES, RW, Scene, at_base};
use common::{PAGE, address, page, range};
use executor::host::block_on_cpus;
use executor::{spawn, yield_now};
use mm::{Access, Denial, FaultOutcome, MapError, PageState, Placement, reclaimer};

const TO: u64 = BASE + 64 * PAGE;

fn there() -> Placement {
    Placement::Fixed(address(TO))
}

#[test]
fn a_remapping_ends_when_no_cpu_reaches_the_pages_by_the_old_place() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, space, root) = (scene.machine, &scene.space, scene.space.root());
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(root, BASE, 8));
        let mut remap = pin!(space.remap(scene.all(), PAGES, there()));
        assert!(poll_once(remap.as_mut()).is_pending());
        // For faults the old place is gone, the new one is there, and it is the same page.
        assert_eq!(machine.try_read(root, BASE), None);
        let denied = space.resolve(machine.fault(BASE, Access::Read)).await;
        assert_eq!(denied, FaultOutcome::Denied(Denial::NoMapping));
        assert_eq!(space.map(&scene.object, page(0), 1, RW, at_base()), Err(MapError::Overlap));
        assert_eq!(machine.read(space, TO).await, Ok(8));
        assert!(busy.writes(root, BASE, 9), "it uses what it remembers");
        assert_eq!(machine.read(space, TO).await, Ok(9));
        assert_eq!(scene.mappings(), 2);
        busy.end().await;
        assert_eq!(remap.await, Ok(address(TO)));
        assert_eq!(scene.mappings(), 1);
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), None);
        assert!(!busy.writes(root, BASE, 10));
        assert_eq!(busy.reads(root, TO), Some(9));
        assert!(space.map(&scene.object, page(0), 1, RW, at_base()).is_ok());
        busy.end().await;
    });
}

#[test]
fn what_is_cut_off_is_waited_for_as_well() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (space, root) = (&scene.space, scene.space.root());
        let last = BASE + 3 * PAGE;
        scene.machine.write(space, last, 3).await.unwrap();
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, last), Some(3));
        let mut shrink = pin!(space.remap(scene.all(), 2, Placement::Anywhere));
        assert!(poll_once(shrink.as_mut()).is_pending());
        assert_eq!(busy.reads(root, last), Some(3), "it uses what it remembers");
        busy.end().await;
        assert_eq!(shrink.await, Ok(address(BASE)));
        let busy = Busy::begin(scene.machine).await;
        assert_eq!(busy.reads(root, last), None);
        assert_eq!(busy.reads(root, BASE), Some(7));
        busy.end().await;
    });
}

#[test]
fn growing_in_place_waits_for_no_cpu() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let anonymous = BASE + 32 * PAGE;
        scene.space.map_anonymous(1, RW, Placement::Fixed(address(anonymous))).unwrap();
        let busy = scene.seen_by_another(7).await;
        let mut grow = pin!(scene.space.remap(range(address(anonymous), 1), 3, Placement::Anywhere));
        assert!(poll_once(grow.as_mut()).is_ready());
        busy.end().await;
    });
}

#[test]
fn a_remapping_that_is_not_awaited_is_ended_by_the_next_who_looks() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let busy = scene.seen_by_another(7).await;
        {
            let mut remap = pin!(scene.space.remap(scene.all(), PAGES, there()));
            assert!(poll_once(remap.as_mut()).is_pending());
        }
        assert_eq!(scene.mappings(), 2);
        assert_eq!(scene.space.map_anonymous(PAGES, RW, at_base()), Err(MapError::Overlap));
        busy.end().await;
        let background = spawn(reclaimer(scene.machine.memory));
        scene.until(|| scene.mappings() == 1).await;
        background.abort();
        assert_eq!(scene.machine.read(&scene.space, TO).await, Ok(7));
        assert_eq!(scene.space.map_anonymous(PAGES, RW, at_base()), Ok(address(BASE)));
    });
}

#[test]
fn a_page_that_another_cpu_writes_by_its_old_place_is_not_counted_as_clean() {
    block_on_cpus(2, async {
        let scene = Scene::file().await;
        let (machine, space, root) = (scene.machine, scene.space.clone(), scene.space.root());
        machine.write(&space, BASE, 1).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(root, BASE, 2));
        let mut remap = pin!(space.remap(scene.all(), PAGES, there()));
        assert!(poll_once(remap.as_mut()).is_pending());
        let object = scene.object.clone();
        let mut store = Box::pin(async move { object.store_and_mark(page(0)..page(1)).await });
        assert!(poll_once(store.as_mut()).is_pending());
        assert!(busy.writes(root, BASE, 3), "it uses what it remembers");
        busy.end().await;
        assert_eq!(store.await, Ok(1), "stored after all CPUs had forgotten the old place");
        remap.await.unwrap();
        assert!(matches!(scene.object.state(page(0)), PageState::Loaded { .. }));
        // What is in memory is what was stored: let it go, and load it again.
        scene.object.release(page(0)..page(1)).await;
        assert_eq!(machine.read(&space, TO).await, Ok(3));
        yield_now().await;
    });
}

#[test]
fn private_pages_that_were_forked_stay_apart_while_a_cpu_remembers_the_old_place() {
    block_on_cpus(2, async {
        let scene = Scene::zero().await;
        let (machine, space) = (scene.machine, &scene.space);
        let anonymous = BASE + 32 * PAGE;
        space.map_anonymous(1, RW, Placement::Fixed(address(anonymous))).unwrap();
        machine.write(space, anonymous, 1).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(space.root(), anonymous, 2));
        let mut remap = pin!(space.remap(range(address(anonymous), 1), 1, there()));
        assert!(poll_once(remap.as_mut()).is_pending());
        let mut fork = Box::pin(space.fork(machine.empty_table()));
        assert!(poll_once(fork.as_mut()).is_pending());
        assert!(busy.writes(space.root(), anonymous, 3), "before the fork is done");
        busy.end().await;
        let twin = fork.await.unwrap();
        remap.await.unwrap();
        machine.write(space, TO, 4).await.unwrap();
        assert_eq!(machine.read(&twin, TO).await, Ok(3));
        assert_eq!(machine.read(&twin, anonymous).await, Err(Denial::NoMapping));
    });
}
