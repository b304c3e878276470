//! What a reclaim policy of one's own needs: to give back one given page, to know the frames of pages from those of
//! tables, and to see which pages of private memory there are.

mod common;

use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, address, content, page, range};
use mm::{Denial, PageState, Placement, Protection, VmObject};

const BASE: u64 = 0x40_0000;
const RW: Protection = Protection::READ_WRITE.for_user();

fn is_loaded(state: PageState) -> bool {
    matches!(state, PageState::Loaded { .. })
}

#[test]
fn a_given_page_is_given_back_although_it_was_just_used() {
    let machine = Machine::new(100);
    let object = VmObject::new(machine.memory, machine.pager(), 3);
    let space = machine.user_space();
    space.map(&object, page(0), 3, RW, Placement::Fixed(address(BASE))).unwrap();
    block_on(async move {
        for index in 0..3 {
            machine.read(&space, BASE + index * PAGE).await.unwrap();
        }
        let free = machine.free();
        assert!(object.evict(page(1)).await);
        assert_eq!((object.state(page(1)), machine.free()), (PageState::Absent, free + 1));
        assert!(is_loaded(object.state(page(0))) && is_loaded(object.state(page(2))));
        assert_eq!(machine.try_read(space.root(), BASE + PAGE), None, "nobody sees it any more");
        assert_eq!(machine.read(&space, BASE + PAGE).await, Ok(content(1)));
    });
}

#[test]
fn only_clean_pages_are_given_back() {
    let machine = Machine::new(100);
    let pager = machine.pager();
    let object = VmObject::new(machine.memory, pager.clone(), 3);
    let space = machine.user_space();
    space.map(&object, page(0), 3, RW, Placement::Fixed(address(BASE))).unwrap();
    let mut tasks = Tasks::default();
    block_on({
        let (object, space) = (object.clone(), space.clone());
        async move {
            machine.write(&space, BASE, 7).await.unwrap();
            assert!(!object.evict(page(0)).await, "it is dirty");
            assert!(!object.evict(page(1)).await, "it is absent");
            assert_eq!(machine.try_read(space.root(), BASE), Some(7), "it is still shown");
        }
    });
    pager.hold();
    let waiter = tasks.spawn(async move { machine.read(&space, BASE + PAGE).await });
    tasks.run();
    assert!(!block_on({
        let object = object.clone();
        async move { object.evict(page(1)).await }
    }));
    assert_eq!(object.state(page(1)), PageState::Loading);
    pager.release(page(1));
    tasks.run();
    assert_eq!(waiter.take(), Some(Ok(content(1))));
}

#[test]
fn a_region_has_room_for_the_frames_that_were_asked_for() {
    for frames in (0..400).chain([4_000, 4_096, 20_000]) {
        let free = Machine::with_table_frames(frames, 1).free();
        assert!((frames..=frames + 3 + frames / 100).contains(&free), "{free} for {frames}");
    }
}

#[test]
fn tables_and_zeros_take_no_frames_that_pages_could_have() {
    let machine = Machine::with_table_frames(4, 16);
    let free = machine.free();
    let space = machine.user_space();
    space.map_anonymous(1 << 20, RW, Placement::Fixed(address(BASE))).unwrap();
    let all = range(address(BASE), 1 << 20);
    block_on(async move {
        machine.read(&space, BASE).await.unwrap();
        assert_eq!(machine.free(), free);
        for distance in [0, 1 << 18, 1 << 19] {
            machine.write(&space, BASE + distance * PAGE, 1).await.unwrap();
        }
        assert!(space.stats().tables > 3);
        assert_eq!(machine.free(), free - 3);
        space.unmap(all).await.unwrap();
        assert_eq!((machine.free(), space.stats().tables), (free, 0));
    });
}

#[test]
fn a_fault_without_a_frame_for_a_table_is_denied_and_tables_that_go_can_be_used_again() {
    let machine = Machine::with_table_frames(4, 16);
    let space = machine.user_space();
    let far = 1 << 30;
    space.map_anonymous(1 << 30, RW, Placement::Fixed(address(BASE))).unwrap();
    let all = range(address(BASE), 1 << 30);
    block_on(async move {
        for _ in 0..3 {
            let denied = async |from: u64| {
                for distance in from..100 {
                    if let Err(why) = machine.read(&space, BASE + distance * far).await {
                        return (why, distance);
                    }
                }
                panic!("there are not so many frames for tables");
            };
            let (why, at) = denied(0).await;
            assert_eq!(why, Denial::OutOfMemory);
            assert!((3..16).contains(&at), "{at}");
            assert_eq!(machine.memory.frames().stats().waiting, 0);
            space.unmap(all.clone()).await.unwrap();
            space.map_anonymous(1 << 30, RW, Placement::Fixed(address(BASE))).unwrap();
        }
    });
}

#[test]
fn the_frames_of_private_pages_are_those_that_were_written_whoever_shows_them() {
    let machine = Machine::new(100);
    let object = VmObject::new(machine.memory, machine.pager(), 2);
    let space = machine.user_space();
    let at = |index: u64| address(BASE + index * PAGE);
    space.map_private(&object, page(0), 2, RW, Placement::Fixed(at(0))).unwrap();
    space.map(&object, page(0), 1, RW, Placement::Fixed(at(2))).unwrap();
    block_on(async move {
        for index in 0..3 {
            machine.read(&space, at(index).as_u64()).await.unwrap();
        }
        machine.write(&space, BASE, 7).await.unwrap();
        let own = space.private_frame(at(0)).expect("it was written");
        assert_eq!(space.walk(at(0)).unwrap().address.as_u64() / PAGE, own);
        let others = [1, 2, 3].map(|index| space.private_frame(at(index)));
        assert_eq!(others, [None; 3], "the object's, a shared one, and nobody's");
        let twin = space.fork(machine.empty_table()).await.unwrap();
        assert_eq!(twin.private_frame(at(0)), Some(own));
        assert!(twin.walk(at(0)).is_none(), "it was not touched there");
        machine.write(&twin, BASE, 8).await.unwrap();
        assert!(twin.private_frame(at(0)).is_some_and(|copy| copy != own));
        assert_eq!(space.private_frame(at(0)), Some(own));
    });
}
