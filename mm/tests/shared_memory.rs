//! Memory without a pager that several spaces show: each sees what the others write, forks too, and it goes through swap.

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::shown::RW;
use common::swap::{BASE, Swapping};
use common::tasks::block_on;
use common::{Machine, PAGE, address, page, range};
use executor::host::block_on_cpus;
use mm::{AddressSpace, Advice, LargePages, MapError, Placement, SharedMemory, swap_out};

const PAGES: u64 = 6;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn placed() -> Placement {
    Placement::Fixed(address(BASE))
}

fn shared(machine: &'static Machine) -> SharedMemory {
    SharedMemory::try_new(machine.memory, PAGES).unwrap()
}

/// A space that shows all of it.
fn shows(machine: &'static Machine, memory: &SharedMemory) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_shared(memory, page(0), PAGES, RW, placed()).unwrap();
    space
}

#[test]
fn each_space_sees_what_others_write_wherever_it_shows_it() {
    let machine = Machine::new(100);
    block_on(async {
        let memory = shared(machine);
        let one = shows(machine, &memory);
        let other = machine.user_space();
        other.map_shared(&memory, page(2), 2, RW, placed()).unwrap();
        // It shows the page of zeros before anything is written.
        assert_eq!(machine.read(&other, at(0)).await, Ok(0));
        machine.write(&one, at(2), 5).await.unwrap();
        assert_eq!(machine.read(&other, at(0)).await, Ok(5));
        machine.write(&other, at(0), 6).await.unwrap();
        machine.write(&other, at(1), 7).await.unwrap();
        assert_eq!((machine.read(&one, at(2)).await, machine.read(&one, at(3)).await), (Ok(6), Ok(7)));
        assert_eq!((one.stats().shared_pages, one.stats().private_pages), (PAGES, 0));
    });
}

#[test]
fn a_fork_shows_the_same_and_has_its_own_of_what_is_private() {
    let machine = Machine::new(100);
    block_on(async {
        let space = shows(machine, &shared(machine));
        let private = at(PAGES);
        space.map_anonymous(1, RW, Placement::Fixed(address(private))).unwrap();
        machine.write(&space, at(0), 5).await.unwrap();
        machine.write(&space, private, 5).await.unwrap();
        let twin = space.fork(machine.empty_table()).await.unwrap();
        for (writer, reader, word) in [(&space, &twin, 6), (&twin, &space, 7)] {
            for place in [at(0), at(1), private] {
                machine.write(writer, place, word).await.unwrap();
            }
            assert_eq!(machine.read(reader, at(0)).await, Ok(word));
            assert_eq!(machine.read(reader, at(1)).await, Ok(word));
        }
        assert_eq!((machine.read(&space, private).await, machine.read(&twin, private).await), (Ok(6), Ok(7)));
        drop(space);
        assert_eq!(machine.read(&twin, at(0)).await, Ok(7));
    });
}

#[test]
fn what_is_in_it_stays_as_long_as_the_memory_or_a_mapping() {
    let machine = Machine::new(100);
    block_on(async {
        let free = machine.free();
        let memory = shared(machine);
        let space = shows(machine, &memory);
        machine.write(&space, at(4), 5).await.unwrap();
        drop(space);
        let space = shows(machine, &memory);
        assert_eq!(machine.read(&space, at(4)).await, Ok(5));
        drop(memory);
        // Nobody shows the page for a while.
        space.unmap(range(address(at(4)), 1)).await.unwrap();
        let place = space.remap(range(address(at(3)), 1), 2, Placement::Anywhere).await.unwrap();
        assert_eq!(machine.read(&space, place.as_u64() + PAGE).await, Ok(5));
        let beyond = space.remap(range(address(at(5)), 1), 2, Placement::Anywhere).await;
        assert_eq!(beyond, Err(MapError::BeyondObject));
        drop(space);
        machine.memory.settle().await;
        assert_eq!(machine.free(), free);
    });
}

#[test]
fn no_more_is_mapped_than_there_is() {
    let machine = Machine::new(100);
    let memory = shared(machine);
    assert_eq!(memory.pages(), PAGES);
    let space = machine.user_space();
    for (first, pages) in [(1, PAGES), (PAGES, 1), (u64::MAX, 2)] {
        let mapped = space.map_shared(&memory, mm::PageIndex::new(first), pages, RW, placed());
        assert_eq!(mapped, Err(MapError::BeyondObject));
    }
    assert_eq!(space.stats().mappings, 0);
}

#[test]
fn its_pages_go_to_swap_and_come_back_once_for_all_who_show_them() {
    let mut scene = Swapping::without_reclaim(300, 100);
    let memory = shared(scene.machine);
    let spaces = [shows(scene.machine, &memory), shows(scene.machine, &memory)];
    let twin = scene.fork(&spaces[0]);
    for index in 0..PAGES {
        scene.write(&spaces[index as usize % 2], index, 100 + index).unwrap();
        assert_eq!(scene.read(&twin, index), Ok(100 + index));
    }
    assert_eq!(scene.swap_out(usize::MAX), PAGES as usize);
    assert_eq!((twin.stats().resident_pages, scene.stats().used_slots), (0, PAGES as usize));
    for index in 0..PAGES {
        assert_eq!(scene.read(&twin, index), Ok(100 + index));
        assert_eq!(scene.read(&spaces[0], index), Ok(100 + index));
    }
    assert_eq!(scene.stats().pages_in, PAGES);
    // Shown read-only by both, as each has its slot still: the write is seen by the other.
    scene.write(&twin, 0, 7).unwrap();
    assert_eq!((scene.read(&spaces[0], 0), scene.stats().used_slots), (Ok(7), PAGES as usize - 1));
    scene.swap_out(usize::MAX);
    drop((spaces, twin));
    scene.settle();
    assert_eq!(scene.stats().used_slots, PAGES as usize, "nobody shows it, and it is there");
    let last = shows(scene.machine, &memory);
    assert_eq!((scene.read(&last, 0), scene.read(&last, 5)), (Ok(7), Ok(105)));
    drop((last, memory));
    scene.assert_nothing_is_left();
}

#[test]
fn a_page_is_not_seen_while_a_cpu_remembers_it_as_zeros_in_another_space() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        let memory = shared(machine);
        let (one, other) = (shows(machine, &memory), shows(machine, &memory));
        assert_eq!(machine.read(&other, at(0)).await, Ok(0));
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(other.root(), at(0)), Some(0));
        let mut write = pin!(machine.write(&one, at(0), 5));
        assert!(poll_once(write.as_mut()).is_pending());
        assert_eq!(busy.reads(other.root(), at(0)), Some(0), "nobody has seen anything else");
        busy.end().await;
        assert_eq!(write.await, Ok(()));
        assert_eq!(machine.read(&other, at(0)).await, Ok(5));
    });
}

#[test]
fn what_a_cpu_of_another_space_writes_that_still_remembers_a_page_is_written_out_with_it() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        machine.memory.swap_on(mm::TestStore::new(50)).unwrap();
        let memory = shared(machine);
        let (one, other) = (shows(machine, &memory), shows(machine, &memory));
        machine.write(&one, at(0), 1).await.unwrap();
        machine.write(&other, at(0), 2).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(other.root(), at(0), 3));
        let mut out = pin!(swap_out(machine.memory, 1));
        assert!(poll_once(out.as_mut()).is_pending());
        assert!(busy.writes(other.root(), at(0), 4));
        busy.end().await;
        assert_eq!(out.await, 1);
        assert_eq!(machine.read(&one, at(0)).await, Ok(4));
    });
}

#[test]
fn it_has_no_large_pages_as_others_may_show_zeros_there() {
    const LARGE: u64 = 512;
    let machine = Machine::new(3000);
    machine.memory.set_large_pages(LargePages::Always);
    block_on(async {
        let memory = SharedMemory::try_new(machine.memory, LARGE).unwrap();
        let spaces = [machine.user_space(), machine.user_space()];
        for space in &spaces {
            space.map_shared(&memory, page(0), LARGE, RW, placed()).unwrap();
            space.advise(range(address(BASE), LARGE), Advice::Huge).await.unwrap();
        }
        assert_eq!(machine.read(&spaces[1], at(9)).await, Ok(0));
        machine.write(&spaces[0], at(0), 1).await.unwrap();
        machine.write(&spaces[0], at(9), 2).await.unwrap();
        assert_eq!(machine.read(&spaces[1], at(9)).await, Ok(2));
        assert_eq!(spaces[0].stats().resident_pages, 2);
    });
}
