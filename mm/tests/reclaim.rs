//! Memory pressure: clean pages go, dirty ones stay, waits for memory end.

mod common;

use std::sync::Arc;

use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, content, page};
use executor::host;
use mm::{AddressSpace, Denial, PageState, Placement, Protection, VirtAddr, VmObject, reclaim, reclaimer};

const RW: Protection = Protection::READ_WRITE;

fn at(start: VirtAddr, page: u64) -> u64 {
    start.as_u64() + page * PAGE
}

fn read(machine: &'static Machine, space: &Arc<AddressSpace>, at: u64) -> u64 {
    let space = space.clone();
    block_on(async move { machine.read(&space, at).await }).unwrap()
}

/// 32 pages of a pager, mapped, the first 16 of them read.
fn scene() -> (&'static Machine, Arc<VmObject>, Arc<AddressSpace>, VirtAddr) {
    let machine = Machine::new(512);
    let object = VmObject::new(machine.memory, machine.pager(), 32);
    let space = machine.window();
    let start = space.map(&object, page(0), 32, RW, Placement::Anywhere).unwrap();
    for index in 0..16 {
        read(machine, &space, at(start, index));
    }
    (machine, object, space, start)
}

#[test]
fn clean_pages_are_given_back_and_come_again() {
    let (machine, object, space, start) = scene();
    let before = machine.free();
    assert_eq!(machine.memory.frames().stats().clean, 16);
    assert_eq!(block_on(reclaim(machine.memory, 5)), 5);
    assert_eq!((machine.free(), object.stats().resident), (before + 5, 11));
    assert_eq!(block_on(reclaim(machine.memory, usize::MAX)), 11);
    assert_eq!((machine.free(), space.stats().resident_pages), (before + 16, 0));
    for index in 0..16 {
        assert_eq!(read(machine, &space, at(start, index)), content(index));
    }
    assert_eq!(machine.memory.stats().evictions, 16);
    assert_eq!(machine.memory.stats().loads_started, 32);
}

#[test]
fn a_page_that_was_used_lately_gets_a_second_chance() {
    let (machine, object, space, start) = scene();
    // Two rounds: one clears the marks that the loads and reads left, one takes the first page.
    assert_eq!(block_on(reclaim(machine.memory, 1)), 1);
    assert_eq!(object.state(page(0)), PageState::Absent);
    // The processor remembers the pages and would not set their accessed bits again.
    machine.forget_translations();
    for index in 1..8 {
        read(machine, &space, at(start, index));
    }
    assert_eq!(block_on(reclaim(machine.memory, 8)), 8);
    for index in 1..8 {
        assert!(matches!(object.state(page(index)), PageState::Loaded { .. }), "page {index}");
    }
}

#[test]
fn dirty_pages_and_zero_pages_stay() {
    let (machine, object, space, start) = scene();
    let zero = VmObject::zero(machine.memory, 4);
    let anonymous = space.map(&zero, page(0), 4, RW, Placement::Anywhere).unwrap();
    let (writer, at_anonymous, at_file) = (space.clone(), anonymous.as_u64(), at(start, 3));
    block_on(async move {
        machine.write(&writer, at_anonymous, 1).await.unwrap();
        machine.write(&writer, at_file, 2).await.unwrap();
    });
    assert_eq!(block_on(reclaim(machine.memory, usize::MAX)), 15);
    assert_eq!((object.stats().resident, zero.stats().resident), (1, 1));
    assert_eq!((read(machine, &space, at_anonymous), read(machine, &space, at_file)), (1, 2));
}

#[test]
fn a_page_that_the_page_table_says_was_written_is_dirty_and_stays() {
    let (machine, object, space, start) = scene();
    machine.set_dirty_bit(&space, at(start, 2));
    assert_eq!(block_on(reclaim(machine.memory, usize::MAX)), 15);
    assert!(matches!(object.state(page(2)), PageState::Dirty { .. }));
    machine.set_dirty_bit(&space, at(start, 2));
    // The same when it is unmapped.
    read(machine, &space, at(start, 4));
    machine.set_dirty_bit(&space, at(start, 4));
    let all = space.clone();
    block_on(async move { all.unmap(common::range(start, 32)).await }).unwrap();
    assert!(matches!(object.state(page(4)), PageState::Dirty { .. }));
}

#[test]
fn a_page_shown_in_many_places_is_taken_out_of_all() {
    let machine = Machine::new(512);
    let object = VmObject::new(machine.memory, machine.pager(), 8);
    let spaces: Vec<_> = (0..3).map(|_| machine.user_space()).collect();
    for (number, space) in spaces.iter().enumerate() {
        // Another part in each, so that page 3 is at another place.
        let first = number as u64;
        let start = space.map(&object, page(first), 8 - first, RW.for_user(), Placement::Anywhere).unwrap();
        assert_eq!(read(machine, space, at(start, 3 - first)), content(3));
    }
    assert_eq!(machine.memory.stats().loads_started, 1);
    assert_eq!(block_on(reclaim(machine.memory, 1)), 1);
    assert!(spaces.iter().all(|space| space.stats().resident_pages == 0));
}

#[test]
fn a_file_larger_than_memory_is_read_through() {
    /// A pager like a device's: a task of its own for each request, which waits for its frame.
    struct Device;
    impl mm::Pager for Device {
        fn name(&self) -> &str {
            "device"
        }
        fn load(&self, mut request: mm::PageRequest) {
            drop(executor::spawn(async move {
                request.attach(request.memory().frames().alloc().await.unwrap());
                let word = content(request.index().as_u64()).to_le_bytes();
                request.frame_mut().unwrap().as_bytes_mut()[..8].copy_from_slice(&word);
                executor::yield_now().await;
                request.complete(Ok(()));
            }));
        }
    }
    let machine = Machine::new(100);
    let object = VmObject::new(machine.memory, Arc::new(Device), 2000);
    let space = machine.window();
    let start = space.map(&object, page(0), 2000, Protection::READ, Placement::Anywhere).unwrap();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        let readers: Vec<_> = (0..8)
            .map(|part| {
                let space = space.clone();
                executor::spawn(async move {
                    for index in part * 250..(part + 1) * 250 {
                        assert_eq!(machine.read(&space, at(start, index)).await, Ok(content(index)));
                        executor::yield_now().await;
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        background.abort();
    });
    assert_eq!(machine.memory.stats().loads_started, 2000);
    assert!(machine.memory.stats().evictions > 1800);
}

#[test]
fn when_nothing_can_be_freed_one_is_told_and_the_others_go_on() {
    let machine = Machine::new(100);
    let object = VmObject::zero(machine.memory, 1000);
    let space = machine.window();
    let start = space.map(&object, page(0), 1000, RW, Placement::Anywhere).unwrap();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        let writers: Vec<_> = (0..4)
            .map(|part| {
                let (space, object) = (space.clone(), object.clone());
                executor::spawn(async move {
                    let pages = part * 30..(part + 1) * 30;
                    for index in pages.clone() {
                        if let Err(why) = machine.write(&space, at(start, index), 1).await {
                            // What the end of a thread does.
                            object.release(page(pages.start)..page(pages.end)).await;
                            return Err(why);
                        }
                        executor::yield_now().await;
                    }
                    Ok(())
                })
            })
            .collect();
        let mut results = Vec::new();
        for writer in writers {
            results.push(writer.await.unwrap());
        }
        background.abort();
        let denied = results.iter().filter(|result| **result == Err(Denial::OutOfMemory)).count();
        assert_eq!((denied, results.len()), (1, 4), "{results:?}");
    });
}

#[test]
fn a_load_under_way_is_hope_enough_to_go_on_waiting() {
    let machine = Machine::new(100);
    let frames = machine.memory.frames();
    // A pager that has a frame for its request but has not filled it yet.
    struct Slow(std::sync::Mutex<Option<mm::PageRequest>>);
    impl mm::Pager for Slow {
        fn name(&self) -> &str {
            "slow"
        }
        fn load(&self, mut request: mm::PageRequest) {
            request.attach(request.memory().frames().try_alloc().unwrap());
            *self.0.lock().unwrap() = Some(request);
        }
    }
    let slow = Arc::new(Slow(std::sync::Mutex::new(None)));
    let object = VmObject::new(machine.memory, slow.clone(), 1);
    let mut tasks = Tasks::default();
    let reading = object.clone();
    let reader = tasks.spawn(async move { reading.read(0, &mut [0]).await });
    tasks.run();
    let taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        let waiter = executor::spawn(frames.alloc());
        executor::time::sleep(core::time::Duration::from_secs(1)).await;
        assert!(!waiter.is_finished());
        slow.0.lock().unwrap().take().unwrap().complete(Ok(()));
        assert!(waiter.await.unwrap().is_ok());
        background.abort();
    });
    tasks.kill(&reader);
    drop(taken);
}

#[test]
fn a_victim_that_is_gone_leaves_nothing_for_the_next() {
    let machine = Machine::new(100);
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        let mut tasks = Tasks::default();
        let victim = tasks.spawn(frames.alloc());
        tasks.run();
        // It is named, but goes before it hears of it.
        executor::time::sleep(core::time::Duration::from_millis(1)).await;
        tasks.kill(&victim);
        assert_eq!(frames.stats().waiting, 0);
        background.abort();
        let next = tasks.spawn(frames.alloc());
        tasks.run();
        assert!(!next.is_done());
        taken.pop();
        tasks.run();
        assert!(matches!(next.take(), Some(Ok(_))));
    });
}
