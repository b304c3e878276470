//! All CPUs at once: what they do is the same in every run, how it meets is not.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::cpus::polls;
use common::shown::{BASE, PAGES, RW, at_base, use_free_frames};
use common::{Machine, PAGE, address, content, page, range};
use executor::host::block_on_cpus;
use executor::{Builder, cpus, spawn, yield_now};
use mm::{AddressSpace, Denial, Placement, Protection, VmObject, reclaim, reclaimer};

/// Unmaps a range when all are ready, and counts the pages that are still there when that is done.
async fn unmap_and_look(
    space: Arc<AddressSpace>,
    pages: std::ops::Range<u64>,
    ready: Arc<AtomicU64>,
) -> usize {
    ready.fetch_sub(1, Ordering::SeqCst);
    while ready.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    let start = address(BASE + pages.start * PAGE);
    space.unmap(range(start, pages.end - pages.start)).await.unwrap();
    pages.filter(|index| space.walk(address(BASE + index * PAGE)).is_some()).count()
}

#[test]
fn unmappings_that_meet_end_when_no_page_is_left() {
    const PAGES: u64 = 256;
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(400);
        let object = VmObject::zero(machine.memory, PAGES);
        let space = machine.user_space();
        for round in 0..200 {
            space.map(&object, page(0), PAGES, RW, at_base()).unwrap();
            for index in 0..PAGES {
                machine.write(&space, BASE + index * PAGE, round).await.unwrap();
            }
            let ready = Arc::new(AtomicU64::new(2));
            // The same range, one that lies within the other's, or one that overlaps.
            let second = [0..PAGES, PAGES - 64..PAGES, 128..PAGES][round as usize % 3].clone();
            let first = if round % 2 == 0 { 0..PAGES } else { 0..200 };
            let tasks: Vec<_> = cpus()
                .zip([first, second])
                .map(|(cpu, pages)| {
                    let unmapping = unmap_and_look(space.clone(), pages, ready.clone());
                    Builder::new().cpu(cpu.id()).spawn(unmapping)
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), 0, "in round {round}");
            }
            assert_eq!((space.stats().mappings, space.stats().resident_pages), (0, 0));
            assert_eq!(object.stats().mappings, 0);
        }
    });
}

/// Reads the file's pages and counts in a page of its own, in long polls. False when it found something wrong.
async fn read_and_count(machine: &'static Machine, space: &AddressSpace, number: u64, over: &Storm) -> bool {
    const STEPS: u64 = 1000;
    let own = BASE + (PAGES + number) * PAGE;
    let mut counted = 0;
    while !over.over.load(Ordering::Relaxed) {
        for index in 0..PAGES {
            match machine.read(space, BASE + index * PAGE).await {
                Ok(value) if value == content(index) => {}
                Err(Denial::NoMapping | Denial::Protection(_)) => {}
                _ => return false,
            }
        }
        if machine.read(space, own).await != Ok(counted) {
            return false;
        }
        over.seen.fetch_add(1, Ordering::Relaxed);
        // A poll that is long enough for the others to do something meanwhile.
        yield_now().await;
        for step in 0..STEPS {
            let index = (step + number) % PAGES;
            let found = machine.try_read(space.root(), BASE + index * PAGE);
            if found.is_some_and(|value| value != content(index)) {
                return false;
            }
            counted += u64::from(machine.try_write(space.root(), own, counted + 1).is_some());
        }
    }
    true
}

#[derive(Default)]
struct Storm {
    over: AtomicBool,
    /// Rounds of all readers.
    seen: AtomicU64,
    /// Readers that found something wrong.
    wrong: AtomicU64,
}

#[test]
fn readers_on_all_cpus_never_see_what_is_not_theirs() {
    const READERS: u64 = 3;
    const ROUNDS: u64 = 60;
    block_on_cpus(4, async {
        let machine = Machine::with_cpus(100);
        let file = VmObject::new(machine.memory, machine.pager(), PAGES);
        let lazy = VmObject::zero(machine.memory, READERS);
        let space = machine.user_space();
        let background = spawn(reclaimer(machine.memory));
        space.map(&lazy, page(0), READERS, RW, Placement::Fixed(address(BASE + PAGES * PAGE))).unwrap();
        let storm = Arc::new(Storm::default());
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (space, storm) = (space.clone(), storm.clone());
                spawn(polls(machine, async move {
                    if !read_and_count(machine, &space, number, &storm).await {
                        storm.wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }))
            })
            .collect();
        let all = range(address(BASE), PAGES);
        for round in 0..ROUNDS {
            space.map(&file, page(0), PAGES, RW, at_base()).unwrap();
            let before = storm.seen.load(Ordering::Relaxed);
            while storm.seen.load(Ordering::Relaxed) < before + READERS {
                assert_eq!(storm.wrong.load(Ordering::Relaxed), 0, "in round {round}");
                yield_now().await;
            }
            let evicting = spawn(reclaim(machine.memory, 3));
            match round % 4 {
                0 => yield_now().await,
                1 => file.release(page(0)..page(PAGES)).await,
                2 => drop(file.release(page(1)..page(3))),
                _ => space.protect(all.clone(), Protection::default().for_user()).await.unwrap(),
            }
            // What is free is somebody else's.
            for _ in 0..20 {
                drop(use_free_frames(machine, 80));
            }
            space.unmap(all.clone()).await.unwrap();
            drop(use_free_frames(machine, 80));
            evicting.await.unwrap();
        }
        storm.over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(storm.wrong.load(Ordering::Relaxed), 0);
        background.abort();
    });
}
