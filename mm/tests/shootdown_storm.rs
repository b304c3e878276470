//! All CPUs at once: what they do is the same in every run, how it meets is not.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Machine, PAGE, address, page, range};
use executor::cpus;
use executor::host::block_on_cpus;
use mm::{AddressSpace, Placement, Protection, VmObject};

const BASE: u64 = 0x40_0000;
const RW: Protection = Protection::READ_WRITE.for_user();

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
            space.map(&object, page(0), PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
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
                    executor::Builder::new().cpu(cpu.id()).spawn(unmapping)
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
