//! Swap: private memory that has more pages than there are frames.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::shown::RW;
use common::swap::{BASE, Swapping};
use common::{PAGE, address, range};
use mm::{AddressSpace, Placement};

/// Many times the frames.
const PAGES: u64 = 400;
const FRAMES: usize = 90;

fn value(page: u64, round: u64) -> u64 {
    page * 1_000_003 + round + 1
}

fn write_all(scene: &mut Swapping, space: &Arc<AddressSpace>, round: u64) {
    (0..PAGES).for_each(|page| assert_eq!(scene.write(space, page, value(page, round)), Ok(())));
}

fn check_all(scene: &mut Swapping, space: &Arc<AddressSpace>, round: impl Fn(u64) -> u64) {
    (0..PAGES)
        .for_each(|page| assert_eq!(scene.read(space, page), Ok(value(page, round(page))), "page {page}"));
}

#[test]
fn memory_that_has_more_pages_than_there_are_frames_keeps_every_word() {
    let mut scene = Swapping::new(FRAMES, 1000);
    let space = scene.space(PAGES);
    for round in 0..3 {
        write_all(&mut scene, &space, round);
        check_all(&mut scene, &space, |_| round);
    }
    assert!(scene.stats().pages_out >= PAGES && scene.stats().pages_in >= PAGES);
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn both_sides_of_a_fork_keep_their_words_through_swap() {
    let mut scene = Swapping::new(FRAMES, 3000);
    let space = scene.space(PAGES);
    write_all(&mut scene, &space, 0);
    let twin = scene.fork(&space);
    for page in (0..PAGES).step_by(2) {
        assert_eq!(scene.write(&space, page, value(page, 1)), Ok(()));
    }
    for page in (0..PAGES).step_by(3) {
        assert_eq!(scene.write(&twin, page, value(page, 2)), Ok(()));
    }
    let third = scene.fork(&twin);
    check_all(&mut scene, &space, |page| u64::from(page % 2 == 0));
    check_all(&mut scene, &twin, |page| if page % 3 == 0 { 2 } else { 0 });
    drop(twin);
    check_all(&mut scene, &third, |page| if page % 3 == 0 { 2 } else { 0 });
    drop(space);
    check_all(&mut scene, &third, |page| if page % 3 == 0 { 2 } else { 0 });
    drop(third);
    scene.assert_nothing_is_left();
}

#[test]
fn a_page_of_zeros_takes_no_slot() {
    let mut scene = Swapping::without_reclaim(200, 100);
    let space = scene.space(20);
    (0..20).for_each(|page| scene.write(&space, page, 0).unwrap());
    scene.write(&space, 7, 1).unwrap();
    assert_eq!(scene.swap_out(20), 20);
    let stats = scene.stats();
    assert_eq!((stats.used_slots, stats.pages_out, stats.zeros_out), (1, 1, 19));
    // Where zeros are not below, the page is known to be zeros.
    (0..20).for_each(|page| assert_eq!(scene.read(&space, page), Ok(u64::from(page == 7))));
    let twin = scene.fork(&space);
    scene.write(&twin, 7, 0).unwrap();
    assert_eq!(scene.swap_out(20), 2);
    assert_eq!((scene.read(&space, 7), scene.read(&twin, 7)), (Ok(1), Ok(0)));
    assert_eq!(scene.stats().pages_out, 1);
    drop((space, twin));
    scene.assert_nothing_is_left();
}

/// Everything leaves.
fn empty(scene: &mut Swapping) {
    while scene.machine.memory.frames().stats().anonymous > 0 {
        scene.swap_out(usize::MAX);
    }
}

#[test]
fn a_page_that_was_only_read_since_it_came_back_keeps_its_slot_and_is_not_written_again() {
    let mut scene = Swapping::without_reclaim(200, 100);
    let space = scene.space(10);
    (0..10).for_each(|page| scene.write(&space, page, value(page, 0)).unwrap());
    empty(&mut scene);
    assert_eq!((scene.stats().pages_out, scene.stats().used_slots), (10, 10));
    (0..10).for_each(|page| assert_eq!(scene.read(&space, page), Ok(value(page, 0))));
    scene.write(&space, 3, value(3, 1)).unwrap();
    assert_eq!(scene.stats().used_slots, 9, "what is written has no slot");
    empty(&mut scene);
    let stats = scene.stats();
    assert_eq!((stats.pages_out, stats.clean_out, stats.used_slots), (11, 9, 10));
    (0..10).for_each(|page| assert_eq!(scene.read(&space, page), Ok(value(page, u64::from(page == 3)))));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn neighbours_in_memory_are_written_and_read_together() {
    let mut scene = Swapping::without_reclaim(400, 300);
    let space = scene.space(64);
    for page in (0..64).rev() {
        scene.write(&space, page, value(page, 0)).unwrap();
    }
    empty(&mut scene);
    let asked = scene.store.take_asked();
    assert_eq!(
        asked.iter().map(|one| (one.write, one.first, one.slots)).collect::<Vec<_>>(),
        [(true, 1, 32), (true, 33, 32)]
    );
    (0..64).for_each(|page| assert_eq!(scene.read(&space, page), Ok(value(page, 0))));
    let asked = scene.store.take_asked();
    assert!(asked.len() <= 7, "{asked:?}");
    assert_eq!(asked.iter().map(|one| one.slots).sum::<usize>(), 64);
    assert!(scene.stats().pages_ahead > 50);
}

#[test]
fn touches_without_an_order_read_nothing_ahead() {
    let mut scene = Swapping::without_reclaim(900, 500);
    let space = scene.space(256);
    (0..256).for_each(|page| scene.write(&space, page, value(page, 0)).unwrap());
    empty(&mut scene);
    for number in 0..64 {
        let page = number * 149 % 256;
        assert_eq!(scene.read(&space, page), Ok(value(page, 0)));
    }
    assert_eq!((scene.stats().pages_in, scene.stats().pages_ahead), (64, 0));
}

#[test]
fn what_is_unmapped_gives_its_slots_back() {
    let mut scene = Swapping::without_reclaim(200, 100);
    let space = scene.space(10);
    (0..10).for_each(|page| scene.write(&space, page, 1).unwrap());
    empty(&mut scene);
    let unmapped = space.clone();
    scene.tasks.spawn(async move { unmapped.unmap(range(address(BASE + 2 * PAGE), 5)).await.unwrap() });
    scene.tasks.run();
    assert_eq!(scene.stats().used_slots, 5);
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_full_swap_leaves_the_rest_in_memory() {
    let mut scene = Swapping::without_reclaim(200, 5);
    let space = scene.space(10);
    (0..10).for_each(|page| scene.write(&space, page, value(page, 0)).unwrap());
    assert_eq!(scene.swap_out(10), 5);
    assert_eq!(scene.swap_out(10), 0);
    assert_eq!((scene.stats().used_slots, scene.stats().free_slots), (5, 0));
    (0..10).for_each(|page| assert_eq!(scene.read(&space, page), Ok(value(page, 0))));
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn a_full_swap_takes_the_slots_of_pages_in_use_for_pages_that_are_not() {
    const SLOTS: u64 = 40;
    let mut scene = Swapping::without_reclaim(900, SLOTS);
    let space = scene.space(PAGES);
    write_all(&mut scene, &space, 0);
    assert_eq!(scene.swap_out(SLOTS as usize), SLOTS as usize);
    let is_in = |page: u64| space.private_frame(address(BASE + page * PAGE)).is_some();
    let used: Vec<u64> = (0..PAGES).filter(|&page| !is_in(page)).collect();
    assert_eq!((used.len() as u64, scene.stats().free_slots), (SLOTS, 0));
    // They come back, and are read all the time; the others are not.
    for _ in 0..3 {
        used.iter().for_each(|&page| assert_eq!(scene.read(&space, page), Ok(value(page, 0))));
        scene.swap_out(SLOTS as usize);
    }
    assert!(used.iter().all(|&page| is_in(page)), "those in use stay");
    let stats = scene.stats();
    assert_eq!((stats.pages_out, stats.pages_in, stats.clean_out), (2 * SLOTS, SLOTS, 0));
    check_all(&mut scene, &space, |_| 0);
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn memory_that_was_there_before_swap_was_leaves_for_it_also_what_was_forked_and_shared() {
    const PAGES: u64 = 150;
    let machine = common::Machine::new(1000);
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    let shared = mm::SharedMemory::try_new(machine.memory, 2).unwrap();
    let at_shared = BASE + PAGES * PAGE;
    let placed = Placement::Fixed(address(at_shared));
    space.map_shared(&shared, mm::PageIndex::new(0), 2, RW, placed).unwrap();
    common::tasks::block_on(async move {
        for page in 0..PAGES {
            machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
        }
        machine.write(&space, at_shared, 7).await.unwrap();
        let twin = space.fork(machine.empty_table()).await.unwrap();
        machine.write(&space, BASE, 1000).await.unwrap();
        machine.memory.swap_on(mm::TestStore::new(2 * PAGES)).unwrap();
        // What is written afterwards lists itself, and is not lost by being listed again.
        machine.write(&space, BASE + PAGE, 1001).await.unwrap();
        machine.forget_translations();
        let (mut left, all) = (0, PAGES as usize + 3);
        while left < all {
            let more = mm::swap_out(machine.memory, all - left).await;
            assert_ne!(more, 0, "{left} of {all} pages have left");
            left += more;
        }
        assert_eq!(left, all);
        let frames = machine.memory.frames().stats();
        assert_eq!(frames.anonymous, 0);
        let read = |space, page| machine.read(space, BASE + page * PAGE);
        for page in 0..PAGES {
            assert_eq!(read(&twin, page).await, Ok(page + 1));
            let own = if page < 2 { 1000 + page } else { page + 1 };
            assert_eq!(read(&space, page).await, Ok(own));
        }
        assert_eq!(machine.read(&twin, at_shared).await, Ok(7));
        drop((space, twin, shared));
        machine.memory.settle().await;
        let stats = machine.memory.swap_stats().unwrap();
        assert_eq!((stats.used_slots, machine.memory.frames().stats().anonymous), (0, 0));
    });
}

#[test]
fn who_begins_to_list_older_memory_and_gives_up_leaves_the_rest_to_the_next() {
    const PAGES: u64 = 300;
    let machine = common::Machine::new(1000);
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    common::tasks::block_on(async move {
        for page in 0..PAGES {
            machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
        }
        machine.memory.swap_on(mm::TestStore::new(PAGES)).unwrap();
        let listed = || machine.memory.frames().stats().anonymous as u64;
        {
            let mut begun = pin!(mm::swap_out(machine.memory, 1));
            assert!(common::cpus::poll_once(begun.as_mut()).is_pending());
        }
        assert!((1..PAGES).contains(&listed()), "{} pages are listed by one poll", listed());
        machine.forget_translations();
        let left = mm::swap_out(machine.memory, 1).await as u64;
        assert_eq!((left > 0, listed()), (true, PAGES - left));
    });
}
