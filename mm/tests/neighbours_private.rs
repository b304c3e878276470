//! Private mappings of an object show its pages that are there beside the one that is touched.

mod common;

use std::ops::Range;
use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, content, page};
use mm::{AddressSpace, PageState, Placement, VmObject};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 128;
const WRITTEN: u64 = 7;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

/// A machine, and an object whose pages are all there.
async fn there() -> (&'static Machine, Arc<VmObject>) {
    let machine = Machine::new(1024);
    let pager = machine.pager();
    pager.set_pages_at_once(32);
    let object = VmObject::new(machine.memory, pager, PAGES);
    object.read(0, &mut vec![0; (PAGES * PAGE) as usize]).await.unwrap();
    (machine, object)
}

/// A space that has all of it as private memory.
fn private(machine: &'static Machine, object: &Arc<VmObject>) -> Arc<AddressSpace> {
    let space = machine.user_space();
    space.map_private(object, page(0), PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    space
}

/// The pages that are shown, and whether they may be written.
fn shown(space: &AddressSpace) -> Vec<(u64, bool)> {
    let walk = |index| space.walk(address(at(index)));
    (0..PAGES).filter_map(|index| Some((index, walk(index)?.protection.write))).collect()
}

fn read_only(pages: Range<u64>) -> Vec<(u64, bool)> {
    pages.map(|index| (index, false)).collect()
}

#[test]
fn sixteen_pages_are_shown_for_reading_with_one_fault_and_each_write_copies() {
    block_on(async {
        let (machine, object) = there().await;
        let space = private(machine, &object);
        // One that the object has to store is as the others.
        object.write(20 * PAGE, &content(20).to_le_bytes()).await.unwrap();
        assert_eq!(machine.read(&space, at(21)).await, Ok(content(21)));
        assert_eq!(shown(&space), read_only(16..32));
        for index in 16..32 {
            assert_eq!(machine.read(&space, at(index)).await, Ok(content(index)));
        }
        assert_eq!(machine.memory.stats().minor_faults, 1);
        for index in 16..32 {
            machine.write(&space, at(index), WRITTEN).await.unwrap();
        }
        assert!(matches!(object.state(page(21)), PageState::Loaded { .. }), "the object's stays as it is");
        assert_eq!(machine.memory.stats().minor_faults, 1 + 16);
    });
}

#[test]
fn pages_of_its_own_are_left_out_and_those_around_them_are_shown() {
    block_on(async {
        let (machine, object) = there().await;
        let space = private(machine, &object);
        machine.write(&space, at(40), WRITTEN).await.unwrap();
        let mut expected = read_only(32..48);
        expected[8].1 = true;
        assert_eq!(shown(&space), expected);
        // It is not in the table, and the object has another one.
        let child = space.fork(machine.empty_table()).await.unwrap();
        assert_eq!(machine.read(&child, at(41)).await, Ok(content(41)));
        expected.remove(8);
        assert_eq!(shown(&child), expected);
        assert_eq!(machine.read(&child, at(40)).await, Ok(WRITTEN));
        machine.write(&child, at(42), WRITTEN + 1).await.unwrap();
        let grandchild = child.fork(machine.empty_table()).await.unwrap();
        assert_eq!(machine.read(&grandchild, at(47)).await, Ok(content(47)));
        expected.remove(9);
        assert_eq!(shown(&grandchild), expected);
    });
}

#[test]
fn a_page_that_the_mapping_shows_in_part_is_left_out() {
    block_on(async {
        let (machine, object) = there().await;
        let space = machine.user_space();
        let at_word = Placement::Fixed(address(at(3) + 8));
        space.map_part(&object, 3 * PAGE + 8, 6 * PAGE, 7 * PAGE, RW, at_word).unwrap();
        assert_eq!(machine.read(&space, at(5)).await, Ok(content(5)));
        assert_eq!(shown(&space), read_only(4..9));
        assert_eq!(machine.read(&space, at(9)).await, Ok(content(9)));
        assert_eq!(machine.read(&space, at(3)).await, Ok(0), "zeros before the part");
    });
}

#[test]
fn a_sequence_of_reads_reads_on() {
    block_on(async {
        let machine = Machine::new(1024);
        let pager = machine.pager();
        pager.set_pages_at_once(32);
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        let space = private(machine, &object);
        for index in 0..50 {
            assert_eq!(machine.read(&space, at(index)).await, Ok(content(index)));
        }
        let stats = machine.memory.stats();
        assert!(stats.major_faults + stats.minor_faults < 10);
        assert_eq!(pager.loads(), 96, "the turn that begins at 64 was not waited for");
    });
}
