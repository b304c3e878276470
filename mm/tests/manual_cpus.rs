//! Replacing given frames on several CPUs, one of which stands in the middle of a poll and remembers the old one.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::shown::{BASE, RW, at_base, use_free_frames};
use common::{Machine, PAGE, address, page, range};
use executor::host::block_on_cpus;
use mm::{AddressSpace, Frame, ManualObject, Placement};

struct Scene {
    machine: &'static Machine,
    space: Arc<AddressSpace>,
    object: Arc<ManualObject>,
}

fn frame(machine: &'static Machine, word: u64) -> Frame {
    let mut frame = machine.memory.frames().try_alloc_zeroed().unwrap();
    frame.as_bytes_mut()[..8].copy_from_slice(&word.to_le_bytes());
    frame
}

/// One page with a 7 in its frame, which was written.
async fn scene() -> Scene {
    let machine = Machine::with_cpus(100);
    let space = machine.user_space();
    let object = ManualObject::try_new(machine.memory, 2).unwrap();
    space.map_manual(&object, page(0), 2, RW, at_base()).unwrap();
    assert!(space.remap_manual(address(BASE), Some(frame(machine, 6))).await.unwrap().is_none());
    machine.write(&space, BASE, 7).await.unwrap();
    Scene { machine, space, object }
}

#[test]
fn a_replaced_frame_comes_back_when_no_cpu_remembers_it() {
    block_on_cpus(2, async {
        let Scene { machine, space, .. } = scene().await;
        let root = space.root();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(root, BASE, 8));
        let mut remap = pin!(space.remap_manual(address(BASE), Some(frame(machine, 1))));
        assert!(poll_once(remap.as_mut()).is_pending());
        // Cleared, and not shown yet: a touch waits.
        assert_eq!(machine.try_read(root, BASE), None);
        let mut touch = pin!(machine.read(&space, BASE));
        assert!(poll_once(touch.as_mut()).is_pending());
        let taken = use_free_frames(machine, usize::MAX);
        assert!(busy.writes(root, BASE, 9), "it uses what it remembers");
        assert_eq!(busy.reads(root, BASE), Some(9));
        drop(taken);
        busy.end().await;
        let old = remap.await.unwrap().unwrap();
        assert_eq!(old.as_bytes()[0], 9, "nothing that was written is lost");
        assert_eq!(touch.await, Ok(1));
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(root, BASE), Some(1));
        assert!(busy.writes(root, BASE, 2));
        assert_eq!(old.as_bytes()[0], 9, "the old frame is not reached any more");
        busy.end().await;
    });
}

#[test]
fn a_frame_whose_replacement_is_not_awaited_is_free_when_no_cpu_remembers_it() {
    block_on_cpus(2, async {
        let Scene { machine, space, .. } = scene().await;
        let free = machine.free();
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(space.root(), BASE), Some(7));
        {
            let new = frame(machine, 1);
            let mut remap = pin!(space.remap_manual(address(BASE), Some(new)));
            assert!(poll_once(remap.as_mut()).is_pending());
        }
        // The frame, and the three tables that were for it alone.
        assert_eq!(machine.memory.frames().stats().quarantined, 4);
        let taken = use_free_frames(machine, usize::MAX);
        assert_eq!(busy.reads(space.root(), BASE), Some(7), "it uses what it remembers");
        drop(taken);
        busy.end().await;
        assert_eq!(machine.read(&space, BASE).await, Ok(1));
        machine.memory.settle().await;
        assert_eq!(machine.free(), free);
    });
}

#[test]
fn the_first_frame_of_a_page_waits_for_nobody() {
    block_on_cpus(2, async {
        let Scene { machine, space, object } = scene().await;
        let busy = Busy::begin(machine).await;
        assert!(poll_once(pin!(object.replace(page(1), Some(frame(machine, 5))))).is_ready());
        assert_eq!(machine.read(&space, BASE + PAGE).await, Ok(5));
        busy.end().await;
    });
}

#[test]
fn a_place_that_was_unmapped_or_moved_is_waited_for_as_well() {
    block_on_cpus(2, async {
        for moved in [false, true] {
            let Scene { machine, space, object } = scene().await;
            let root = space.root();
            let busy = Busy::begin(machine).await;
            assert!(busy.writes(root, BASE, 8));
            let all = range(address(BASE), 2);
            let to = Placement::Fixed(address(BASE + 16 * PAGE));
            if moved {
                assert!(poll_once(pin!(space.remap(all, 2, to))).is_pending());
            } else {
                assert!(poll_once(pin!(space.unmap(all))).is_pending());
            }
            let mut replace = pin!(object.replace(page(0), None));
            assert!(poll_once(replace.as_mut()).is_pending(), "nobody shows it, but a CPU remembers it");
            assert!(busy.writes(root, BASE, 9));
            busy.end().await;
            assert_eq!(replace.await.unwrap().unwrap().as_bytes()[0], 9);
        }
    });
}

#[test]
fn two_replacements_of_one_page_both_answer_and_the_last_is_shown() {
    block_on_cpus(2, async {
        let Scene { machine, space, .. } = scene().await;
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(space.root(), BASE, 8));
        let mut first = pin!(space.remap_manual(address(BASE), Some(frame(machine, 1))));
        let mut second = pin!(space.remap_manual(address(BASE), Some(frame(machine, 2))));
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        busy.end().await;
        let word = |old: Option<Frame>| old.unwrap().as_bytes()[0];
        assert_eq!((word(first.await.unwrap()), word(second.await.unwrap())), (8, 1));
        assert_eq!(machine.read(&space, BASE).await, Ok(2));
    });
}
