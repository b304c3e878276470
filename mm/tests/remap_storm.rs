//! All CPUs at once: threads count in pages that move, are forked, cut and stored meanwhile, and in frames that are replaced.
//! No count is lost, and nobody reaches what is not theirs.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::cpus::polls;
use common::shown::{BASE, PAGES, RW, use_free_frames};
use common::{Machine, PAGE, address, page, range};
use executor::host::block_on_cpus;
use executor::{JoinHandle, spawn, yield_now};
use mm::{AddressSpace, Denial, ManualObject, Placement, TestPager, VmObject, reclaimer};

const WRITERS: u64 = 3;
const ROUNDS: u64 = 40;
/// The places that the pages are moved between.
const PLACES: [u64; 3] = [BASE, BASE + 64 * PAGE, BASE + 128 * PAGE];

#[derive(Default)]
struct Storm {
    over: AtomicBool,
    /// Writes of all writers.
    seen: AtomicU64,
    /// Writers that found something wrong.
    wrong: AtomicU64,
}

/// Counts in a page of its own, wherever that is now, in long polls; answers how far. `None` when it found something wrong.
async fn count(machine: &'static Machine, space: &AddressSpace, number: u64, storm: &Storm) -> Option<u64> {
    const STEPS: u64 = 300;
    let mut counted = 0;
    while !storm.over.load(Ordering::Relaxed) {
        // Also when there is nothing to count in.
        yield_now().await;
        for place in PLACES {
            let at = place + number * PAGE;
            match machine.read(space, at).await {
                Ok(value) if value == counted => {}
                Err(Denial::NoMapping | Denial::ManualPageMissing) => continue,
                _ => return None,
            }
            // A poll that is long enough for the others to do something meanwhile.
            yield_now().await;
            for _ in 0..STEPS {
                if machine.try_read(space.root(), at).is_some_and(|value| value != counted) {
                    return None;
                }
                counted += u64::from(machine.try_write(space.root(), at, counted + 1).is_some());
            }
            match machine.write(space, at, counted + 1).await {
                Ok(()) => counted += 1,
                Err(Denial::NoMapping | Denial::ManualPageMissing) => {}
                Err(_) => return None,
            }
            storm.seen.fetch_add(1, Ordering::Relaxed);
        }
    }
    Some(counted)
}

/// A task for each writer that counts in its page.
fn writers(
    machine: &'static Machine,
    space: &Arc<AddressSpace>,
    storm: &Arc<Storm>,
) -> Vec<JoinHandle<Option<u64>>> {
    let writer = |number| {
        let (space, storm) = (space.clone(), storm.clone());
        spawn(polls(machine, async move {
            let counted = count(machine, &space, number, &storm).await;
            storm.wrong.fetch_add(u64::from(counted.is_none()), Ordering::Relaxed);
            counted
        }))
    };
    (0..WRITERS).map(writer).collect()
}

/// Waits until all have counted for some time.
async fn some_counts(storm: &Storm, round: u64) {
    let before = storm.seen.load(Ordering::Relaxed);
    while storm.seen.load(Ordering::Relaxed) < before + WRITERS {
        assert_eq!(storm.wrong.load(Ordering::Relaxed), 0, "in round {round}");
        yield_now().await;
    }
}

/// The writers end; each page has what its writer has counted.
async fn end(
    machine: &'static Machine,
    space: &AddressSpace,
    at: u64,
    storm: &Storm,
    writers: Vec<JoinHandle<Option<u64>>>,
) {
    storm.over.store(true, Ordering::Relaxed);
    for (number, writer) in (0..).zip(writers) {
        let counted = writer.await.unwrap();
        assert!(counted.is_some(), "writer {number} found something wrong");
        assert_eq!(machine.read(space, at + number * PAGE).await.ok(), counted);
    }
}

#[test]
fn no_write_is_lost_in_pages_that_move() {
    for private in [false, true] {
        block_on_cpus(4, async {
            let machine = Machine::with_cpus(150);
            let space = machine.user_space();
            let zeros = TestPager::new(machine.memory, Box::new(|_, bytes| bytes.fill(0)));
            let file = VmObject::new(machine.memory, zeros, PAGES);
            let background = spawn(reclaimer(machine.memory));
            let first = Placement::Fixed(address(PLACES[0]));
            if private {
                space.map_private(&file, page(0), PAGES, RW, first).unwrap();
            } else {
                space.map(&file, page(0), PAGES, RW, first).unwrap();
            }
            let storm = Arc::new(Storm::default());
            let writers = writers(machine, &space, &storm);
            let mut from = PLACES[0];
            for round in 0..ROUNDS {
                some_counts(&storm, round).await;
                let to = PLACES[(round + 1) as usize % PLACES.len()];
                let moving = space.remap(range(address(from), PAGES), PAGES, Placement::Fixed(address(to)));
                match round % 3 {
                    0 => drop(file.store_and_mark(page(0)..page(PAGES)).await.unwrap()),
                    1 if private => drop(space.fork(machine.empty_table()).await.unwrap()),
                    _ => {}
                }
                assert_eq!(moving.await, Ok(address(to)));
                drop(use_free_frames(machine, 60));
                from = to;
            }
            end(machine, &space, from, &storm, writers).await;
            background.abort();
        });
    }
}

#[test]
fn no_write_goes_to_a_frame_that_was_replaced() {
    block_on_cpus(4, async {
        let machine = Machine::with_cpus(100);
        let space = machine.user_space();
        let object = ManualObject::try_contiguous(machine.memory, WRITERS as usize, 1).unwrap();
        let at = PLACES[0];
        space.map_manual(&object, page(0), WRITERS, RW, Placement::Fixed(address(at))).unwrap();
        let storm = Arc::new(Storm::default());
        let writers = writers(machine, &space, &storm);
        let mut counted = 0;
        for round in 0..ROUNDS {
            some_counts(&storm, round).await;
            let number = round % WRITERS;
            // While the page has no frame, nobody counts.
            let here = address(at + number * PAGE);
            let old = space.remap_manual(here, None).await.unwrap().unwrap();
            let mut new = machine.memory.frames().try_alloc().unwrap();
            new.as_bytes_mut().copy_from_slice(old.as_bytes());
            assert!(space.remap_manual(here, Some(new)).await.unwrap().is_none());
            counted += u64::from_le_bytes(old.as_bytes()[..8].try_into().unwrap());
        }
        end(machine, &space, at, &storm, writers).await;
        assert!(counted > 0);
    });
}
