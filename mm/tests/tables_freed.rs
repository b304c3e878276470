//! Tables that are empty go, and no CPU walks into what their frames become.

mod common;

use std::pin::pin;

use common::cpus::{Busy, poll_once};
use common::shown::use_free_frames;
use common::{Machine, PAGE, address, page, range};
use executor::host::block_on_cpus;
use mm::{Placement, Protection, VmObject};

const RW: Protection = Protection::READ_WRITE.for_user();
const BASE: u64 = 0x40_0000;

#[test]
fn a_cpu_that_remembers_a_table_finds_nothing_in_it_until_it_has_forgotten_it() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        let (space, object) = (machine.user_space(), VmObject::zero(machine.memory, 2));
        space.map(&object, page(0), 2, RW, Placement::Fixed(address(BASE))).unwrap();
        for address in [BASE, BASE + PAGE] {
            machine.write(&space, address, 7).await.unwrap();
        }
        assert_eq!(space.stats().tables, 3);
        // It remembers the table, and one page.
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(space.root(), BASE), Some(7));
        let mut unmap = pin!(space.unmap(range(address(BASE), 2)));
        assert!(poll_once(unmap.as_mut()).is_pending());
        assert_eq!((space.stats().tables, machine.memory.frames().stats().quarantined), (0, 3));
        let taken = use_free_frames(machine, usize::MAX);
        assert_eq!(busy.reads(space.root(), BASE + PAGE), None);
        drop(taken);
        busy.end().await;
        unmap.await.unwrap();
        assert_eq!(machine.memory.frames().stats().quarantined, 0);
    });
}

#[test]
fn a_page_in_a_new_table_is_found_by_a_cpu_that_remembers_the_old_one() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        let (space, object) = (machine.user_space(), VmObject::zero(machine.memory, 2));
        for (at, index) in [(BASE, 0), (BASE + PAGE, 1)] {
            space.map(&object, page(index), 1, RW, Placement::Fixed(address(at))).unwrap();
        }
        machine.write(&space, BASE, 7).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert_eq!(busy.reads(space.root(), BASE), Some(7));
        let mut unmap = pin!(space.unmap(range(address(BASE), 1)));
        assert!(poll_once(unmap.as_mut()).is_pending());
        machine.write(&space, BASE + PAGE, 8).await.unwrap();
        // It looks into the old table, faults, and looks again.
        assert_eq!(busy.reads(space.root(), BASE + PAGE), None);
        assert_eq!(busy.reads(space.root(), BASE + PAGE), Some(8));
        busy.end().await;
        unmap.await.unwrap();
    });
}
