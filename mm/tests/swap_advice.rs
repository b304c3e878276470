//! Pages on the swap disk that a program says it will need: they come back before they are touched, and nobody waits.

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::swap::{BASE, Swapping};
use common::{PAGE, address, range};
use mm::{AddressSpace, Advice, Denial, ReadAhead};

const PAGES: u64 = 64;

fn advise(space: &Arc<AddressSpace>, first: u64, pages: u64) {
    let range = range(address(BASE + first * PAGE), pages);
    // Others get turns between its looks.
    let mut advise = pin!(space.advise(range, Advice::WillNeed));
    let told = (0..64).map(|_| poll_once(advise.as_mut())).find(Poll::is_ready);
    assert_eq!(told, Some(Poll::Ready(Ok(()))), "nobody is waited for");
}

/// A space whose pages, each with its number and one more in it, are all on the disk.
fn swapped(frames: usize) -> (Swapping, Arc<AddressSpace>) {
    let mut scene = Swapping::without_reclaim(frames, 2 * PAGES);
    let space = scene.space(PAGES);
    (0..PAGES).for_each(|index| scene.write(&space, index, index + 1).unwrap());
    leave(&mut scene);
    assert_eq!(scene.stats().used_slots, PAGES as usize);
    (scene, space)
}

/// All pages leave.
fn leave(scene: &mut Swapping) {
    while scene.machine.memory.frames().stats().anonymous > 0 {
        scene.swap_out(usize::MAX);
    }
    scene.store.take_asked();
}

fn asked(scene: &Swapping) -> Vec<(u64, usize)> {
    scene
        .store
        .take_asked()
        .iter()
        .filter(|asked| !asked.write)
        .map(|read| (read.first, read.slots))
        .collect()
}

#[test]
fn they_are_read_in_a_row_and_a_touch_meanwhile_joins_the_read() {
    let (mut scene, space) = swapped(400);
    scene.store.hold();
    advise(&space, 0, PAGES);
    let reads = asked(&scene);
    assert_eq!(reads.iter().map(|&(_, slots)| slots).collect::<Vec<_>>(), [32, 32]);
    let touch = scene.begin_read(&space, 40);
    advise(&space, 0, PAGES);
    assert_eq!((touch.take(), asked(&scene)), (None, vec![]), "it is being read already");
    scene.store.release_all();
    scene.tasks.run();
    assert_eq!(touch.take(), Some(Ok(41)));
    (0..PAGES).for_each(|index| assert_eq!(scene.read(&space, index), Ok(index + 1)));
    let stats = scene.stats();
    assert_eq!((stats.pages_in, stats.pages_ahead), (PAGES, PAGES));
    assert_eq!(stats.used_slots, PAGES as usize, "what was only read keeps its slot");
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn of_a_range_only_those_are_read_that_are_on_the_disk_whoever_sees_them() {
    let (mut scene, space) = swapped(400);
    // Elsewhere on the disk than its neighbours.
    scene.write(&space, 8, 9).unwrap();
    leave(&mut scene);
    let twin = scene.fork(&space);
    // In memory, a copy, zeros, and beyond what is advised.
    assert_eq!(scene.read(&space, 3), Ok(4));
    scene.write(&twin, 5, 0).unwrap();
    scene.machine.memory.set_read_ahead(ReadAhead::Never);
    let before = scene.stats();
    scene.store.take_asked();
    scene.machine.memory.set_read_ahead(ReadAhead::WhilePlenty);
    advise(&twin, 2, 8);
    let rows: Vec<_> = asked(&scene).iter().map(|&(_, slots)| slots).collect();
    assert_eq!(rows, [1, 1, 2, 1, 1], "2, 4, 6 and 7, 8, 9");
    assert_eq!(scene.stats().pages_in - before.pages_in, 6);
    let no_more = scene.stats().pages_in;
    for index in [2, 3, 4, 6, 7, 8, 9] {
        assert_eq!((scene.read(&space, index), scene.read(&twin, index)), (Ok(index + 1), Ok(index + 1)));
    }
    assert_eq!((scene.read(&twin, 5), scene.stats().pages_in), (Ok(0), no_more));
    drop((space, twin));
    scene.assert_nothing_is_left();
}

#[test]
fn an_error_is_nobodys_and_who_touches_the_page_reads_it_again() {
    let (mut scene, space) = swapped(400);
    scene.store.fail_reads(PAGES as usize);
    advise(&space, 0, PAGES);
    assert_eq!((scene.stats().failed_in, scene.stats().pages_in), (PAGES, 0));
    (0..PAGES).for_each(|index| assert_eq!(scene.read(&space, index), Ok(index + 1)));
    // The error of a touch is its own.
    leave(&mut scene);
    scene.store.fail_reads(PAGES as usize);
    assert!(matches!(scene.read(&space, 0), Err(Denial::Io { .. })));
    scene.store.fail_reads(0);
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn nothing_is_read_for_which_there_is_no_frame_to_spare() {
    let (mut scene, space) = swapped(200);
    let mut taken = Vec::new();
    while scene.machine.free() > 8 {
        taken.extend(scene.machine.memory.frames().try_alloc());
    }
    let free = scene.machine.free();
    advise(&space, 0, PAGES);
    assert_eq!((asked(&scene), scene.machine.free()), (vec![], free));
    assert_eq!(scene.read(&space, 0), Ok(1));
    drop((taken, space));
    scene.assert_nothing_is_left();
}

#[test]
fn a_space_that_ends_while_they_are_read_leaves_nothing() {
    let (mut scene, space) = swapped(400);
    scene.store.hold();
    advise(&space, 0, PAGES);
    drop(space);
    scene.store.release_all();
    scene.assert_nothing_is_left();
}

#[test]
fn no_more_than_256_pages_are_read_at_a_time_for_nobody() {
    const MANY: u64 = 600;
    let mut scene = Swapping::without_reclaim(2000, 2 * MANY);
    let space = scene.space(MANY);
    (0..MANY).for_each(|index| scene.write(&space, index, index + 1).unwrap());
    leave(&mut scene);
    scene.store.hold();
    advise(&space, 0, MANY);
    let slots: usize = asked(&scene).iter().map(|&(_, slots)| slots).sum();
    assert_eq!(slots, 256);
    scene.store.release_all();
    (0..MANY).for_each(|index| assert_eq!(scene.read(&space, index), Ok(index + 1)));
    drop(space);
    scene.assert_nothing_is_left();
}
