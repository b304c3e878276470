//! What meets a page that is just being written to swap or read from it, and errors of the disk.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::cpus::{Busy, poll_once};
use common::shown::RW;
use common::swap::{BASE, Swapping};
use common::{Machine, PAGE, address, range};
use executor::host::block_on_cpus;
use mm::{AddressSpace, Denial, PageError, PageIndex, Placement, TestStore, swap_out};

const SEVEN: u64 = 0x7777;

fn io(page: u64) -> Denial {
    Denial::Io { page: PageIndex::new(page), error: PageError::Io }
}

/// Pages that were written once.
fn written(pages: u64) -> (Swapping, Arc<AddressSpace>) {
    let mut scene = Swapping::without_reclaim(300, 100);
    let space = scene.space(pages);
    (0..pages).for_each(|page| scene.write(&space, page, SEVEN + page).unwrap());
    scene.machine.forget_translations();
    (scene, space)
}

/// The same, in swap.
fn swapped(pages: u64) -> (Swapping, Arc<AddressSpace>) {
    let (mut scene, space) = written(pages);
    assert_eq!(scene.swap_out(usize::MAX), pages as usize);
    (scene, space)
}

#[test]
fn a_page_that_is_read_while_it_is_written_out_stays_and_its_slot_counts() {
    let (mut scene, space) = written(1);
    scene.store.hold();
    let out = scene.begin_swap_out(1);
    assert_eq!(scene.read(&space, 0), Ok(SEVEN));
    scene.store.release_all();
    scene.tasks.run();
    assert_eq!((out.take(), scene.stats().used_slots), (Some(0), 1));
    // Written nowhere, so it leaves without a write.
    assert_eq!(scene.swap_out(1), 1);
    assert_eq!((scene.stats().pages_out, scene.stats().clean_out), (1, 1));
    assert_eq!(scene.read(&space, 0), Ok(SEVEN));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn what_is_written_to_a_page_while_it_is_written_out_is_not_lost() {
    let (mut scene, space) = written(1);
    scene.store.hold();
    let out = scene.begin_swap_out(1);
    assert_eq!(scene.read(&space, 0), Ok(SEVEN));
    assert_eq!(scene.write(&space, 0, 5), Ok(()));
    // Reclaim that comes again leaves it alone until the first write has ended.
    assert!(!scene.begin_swap_out(1).is_done());
    assert_eq!(scene.store.held(), 1);
    scene.store.release_all();
    scene.tasks.run();
    assert!(out.is_done());
    assert_eq!(scene.read(&space, 0), Ok(5));
    scene.swap_out(1);
    assert_eq!(scene.read(&space, 0), Ok(5));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_frame_that_is_being_written_is_free_when_that_has_ended_whoever_goes_before() {
    for answered in [true, false] {
        for unmapped in [true, false] {
            let (mut scene, space) = written(3);
            scene.store.hold();
            scene.begin_swap_out(3);
            if unmapped {
                let unmapped = space.clone();
                scene.tasks.spawn(async move { unmapped.unmap(range(address(BASE), 3)).await.unwrap() });
                scene.tasks.run();
            }
            drop(space);
            scene.settle();
            assert_eq!(scene.machine.free(), scene.free - 3, "the disk reads them");
            if answered {
                scene.store.release_all();
            } else {
                scene.store.abandon_all();
            }
            scene.tasks.run();
            scene.assert_nothing_is_left();
        }
    }
}

#[test]
fn a_fork_while_pages_are_written_out_shares_what_comes_back() {
    for release_first in [true, false] {
        let (mut scene, space) = written(2);
        scene.store.hold();
        scene.begin_swap_out(2);
        let twin = scene.fork(&space);
        if release_first {
            scene.store.release_all();
            scene.tasks.run();
        }
        assert_eq!(scene.write(&twin, 0, 1), Ok(()));
        assert_eq!(scene.write(&space, 1, 2), Ok(()));
        scene.store.release_all();
        scene.tasks.run();
        scene.swap_out(usize::MAX);
        let words =
            [(&space, 0), (&space, 1), (&twin, 0), (&twin, 1)].map(|(space, page)| scene.read(space, page));
        assert_eq!(words, [Ok(SEVEN), Ok(2), Ok(1), Ok(SEVEN + 1)]);
        drop((space, twin));
        scene.assert_nothing_is_left();
    }
}

#[test]
fn all_who_touch_a_swapped_page_wait_for_one_read() {
    let (mut scene, space) = swapped(1);
    let twin = scene.fork(&space);
    scene.store.take_asked();
    scene.store.hold();
    let reads = [scene.begin_read(&space, 0), scene.begin_read(&twin, 0)];
    let write = scene.begin_write(&twin, 0, 9);
    assert_eq!((scene.store.held(), write.is_done()), (1, false));
    scene.store.release(0);
    scene.tasks.run();
    assert_eq!(reads[0].take(), Some(Ok(SEVEN)));
    assert!(matches!(reads[1].take(), Some(Ok(SEVEN | 9))));
    assert_eq!((write.take(), scene.store.take_asked().len()), (Some(Ok(())), 1));
    assert_eq!((scene.read(&space, 0), scene.read(&twin, 0)), (Ok(SEVEN), Ok(9)));
    drop((space, twin));
    scene.assert_nothing_is_left();
}

#[test]
fn a_read_whose_page_is_gone_is_thrown_away() {
    for answered in [true, false] {
        let (mut scene, space) = swapped(2);
        scene.store.hold();
        let read = scene.begin_read(&space, 1);
        scene.tasks.kill(&read);
        drop(space);
        scene.settle();
        assert_eq!(scene.stats().used_slots, 1, "it is being read");
        if answered {
            scene.store.release_all();
        } else {
            scene.store.abandon_all();
        }
        scene.assert_nothing_is_left();
    }
}

#[test]
fn who_is_killed_while_a_page_comes_back_leaves_it_to_others() {
    let (mut scene, space) = swapped(1);
    scene.store.hold();
    let killed = scene.begin_read(&space, 0);
    let other = scene.begin_read(&space, 0);
    scene.tasks.kill(&killed);
    scene.store.release_all();
    scene.tasks.run();
    assert_eq!(other.take(), Some(Ok(SEVEN)));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_swap_out_that_is_dropped_loses_nothing() {
    let (mut scene, space) = written(5);
    scene.store.hold();
    let dropped = scene.begin_swap_out(5);
    scene.tasks.kill(&dropped);
    scene.store.release_all();
    scene.tasks.run();
    assert_eq!(scene.machine.memory.frames().stats().anonymous, 0, "what is being written leaves");
    (0..5).for_each(|page| assert_eq!(scene.read(&space, page), Ok(SEVEN + page)));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn an_error_of_a_read_ends_only_who_waits_for_that_page_and_a_later_touch_reads_again() {
    let (mut scene, space) = swapped(4);
    let twin = scene.fork(&space);
    // Slot 3 holds page 2.
    scene.store.fail_slot(3, 2);
    assert_eq!(scene.read(&space, 2), Err(io(2)));
    assert_eq!(scene.write(&twin, 2, 1), Err(io(2)));
    for page in [0, 1, 3] {
        assert_eq!(scene.read(&space, page), Ok(SEVEN + page));
    }
    assert_eq!(scene.read(&space, 2), Ok(SEVEN + 2));
    assert_eq!(scene.stats().failed_in, 2);
    drop((space, twin));
    scene.assert_nothing_is_left();
}

#[test]
fn a_page_is_not_read_while_the_heap_is_short_and_it_stays_where_it_is() {
    let (mut scene, space) = swapped(2);
    drop(scene.store.take_asked());
    let free = scene.machine.free();
    scene.machine.processor.heap_is_short.store(true, Relaxed);
    assert_eq!(scene.read(&space, 0), Err(Denial::OutOfMemory));
    assert_eq!((scene.store.take_asked().len(), scene.machine.free()), (0, free));
    scene.machine.processor.heap_is_short.store(false, Relaxed);
    assert_eq!((scene.read(&space, 0), scene.stats().pages_in), (Ok(SEVEN), 1));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn an_error_of_a_page_that_was_read_ahead_is_nobodys() {
    let (mut scene, space) = swapped(8);
    scene.read(&space, 0).unwrap();
    scene.store.fail_slot(3, 1);
    // Pages 1 and 2 are read together.
    assert_eq!(scene.read(&space, 1), Ok(SEVEN + 1));
    assert_eq!((scene.stats().pages_ahead, scene.stats().failed_in), (1, 1));
    assert_eq!(scene.read(&space, 2), Ok(SEVEN + 2));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_page_that_cannot_be_written_stays() {
    let (mut scene, space) = written(6);
    scene.store.fail_writes(2);
    assert_eq!(scene.swap_out(6), 4);
    assert_eq!((scene.stats().failed_out, scene.stats().used_slots), (2, 4));
    assert_eq!(scene.swap_out(6), 2, "it is tried again");
    (0..6).for_each(|page| assert_eq!(scene.read(&space, page), Ok(SEVEN + page)));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_disk_that_never_writes_frees_nothing_and_harms_nothing() {
    let (mut scene, space) = written(6);
    scene.store.fail_writes(usize::MAX);
    assert_eq!(scene.swap_out(6), 0);
    assert_eq!(scene.stats().used_slots, 0);
    (0..6).for_each(|page| assert_eq!(scene.read(&space, page), Ok(SEVEN + page)));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn who_waits_for_memory_gets_it_when_a_write_ends_and_is_no_victim_before() {
    let mut scene = Swapping::new(60, 500);
    scene.store.hold();
    let space = scene.space(200);
    let mut page = 0;
    let parked = loop {
        let write = scene.begin_write(&space, page, page + 1);
        match write.take() {
            Some(done) => assert_eq!(done, Ok(())),
            None => break write,
        }
        page += 1;
    };
    assert!(scene.store.held() > 0);
    scene.store.release_all();
    scene.tasks.run();
    assert_eq!(parked.take(), Some(Ok(())));
    (0..page).for_each(|page| assert_eq!(scene.read(&space, page), Ok(page + 1)));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn words_that_are_copied_in_and_out_come_from_swap() {
    let (mut scene, space) = swapped(3);
    assert_eq!(space.stats().resident_pages, 0);
    let copied = space.clone();
    let done = scene.tasks.spawn(async move {
        let mut bytes = [0; 16];
        let end_of_first = BASE + PAGE - 8;
        copied.copy_in(end_of_first, &mut bytes).await.unwrap();
        copied.copy_out(BASE + 2 * PAGE + 8, &[3; 8]).await.unwrap();
        let all = range(address(BASE), 3);
        copied.touch(all, mm::Access::Read, None).await.unwrap();
        bytes
    });
    scene.tasks.run();
    let bytes = done.take().expect("nothing is held back");
    assert_eq!((&bytes[..8], &bytes[8..]), (&[0; 8][..], &(SEVEN + 1).to_le_bytes()[..]));
    scene.swap_out(usize::MAX);
    assert_eq!(scene.read(&space, 2), Ok(SEVEN + 2));
    assert_eq!(scene.machine.try_read(space.root(), BASE + 2 * PAGE + 8), Some(0x0303_0303_0303_0303));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn what_a_cpu_writes_that_still_remembers_a_page_is_written_out_with_it() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        machine.memory.swap_on(TestStore::new(50)).unwrap();
        let space = machine.user_space();
        space.map_anonymous(1, RW, Placement::Fixed(address(BASE))).unwrap();
        machine.write(&space, BASE, 1).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(space.root(), BASE, 2));
        let mut out = pin!(swap_out(machine.memory, 1));
        assert!(poll_once(out.as_mut()).is_pending());
        assert_eq!(machine.try_read(space.root(), BASE), None, "it is taken out of the page tables");
        assert!(busy.writes(space.root(), BASE, 3), "the other CPU uses what it remembers");
        busy.end().await;
        assert_eq!(out.await, 1);
        assert_eq!(machine.memory.swap_stats().map(|stats| stats.pages_out), Some(1));
        assert_eq!(machine.read(&space, BASE).await, Ok(3));
    });
}
