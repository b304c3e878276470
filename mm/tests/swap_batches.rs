//! Pages that leave together: of several memories, some with a slot, some zeros, some to be written.

mod common;

use common::swap::Swapping;

fn value(memory: u64, page: u64) -> u64 {
    if page.is_multiple_of(3) { 0 } else { memory << 32 | page }
}

#[test]
fn pages_of_two_memories_leave_together_and_come_back_to_their_own() {
    let mut scene = Swapping::without_reclaim(300, 200);
    let spaces = [scene.space(30), scene.space(30)];
    for (memory, space) in (1..).zip(&spaces) {
        (0..30).for_each(|page| scene.write(space, page, value(memory, page)).unwrap());
    }
    assert_eq!(scene.swap_out(60), 60);
    let stats = scene.stats();
    assert_eq!((stats.pages_out, stats.zeros_out, stats.used_slots), (40, 20, 40));
    // What is to be written is in order, whatever lay between.
    let asked = scene.store.take_asked();
    assert_eq!(asked.iter().map(|one| (one.write, one.slots)).collect::<Vec<_>>(), [(true, 32), (true, 8)]);
    for page in 0..30 {
        for (memory, space) in (1..).zip(&spaces) {
            assert_eq!(scene.read(space, page), Ok(value(memory, page)), "page {page} of {memory}");
        }
    }
    drop(spaces);
    scene.assert_nothing_is_left();
}

#[test]
fn where_swap_is_full_those_pages_leave_whose_slots_have_them_still() {
    let mut scene = Swapping::without_reclaim(300, 40);
    let space = scene.space(80);
    (0..40).for_each(|page| scene.write(&space, page, 7 + page).unwrap());
    assert_eq!(scene.swap_out(40), 40);
    for page in 0..40 {
        assert_eq!(scene.read(&space, page), Ok(7 + page));
        scene.write(&space, 40 + page, 7 + page).unwrap();
    }
    assert_eq!(scene.stats().free_slots, 0);
    assert_eq!(scene.swap_out(80), 40);
    let stats = scene.stats();
    assert_eq!((stats.pages_out, stats.clean_out), (40, 40));
    (0..80).for_each(|page| assert_eq!(scene.read(&space, page), Ok(7 + page % 40)));
    drop(space);
    scene.assert_nothing_is_left();
}
