//! Page tables as the processor sees them.

mod common;

use common::tasks::block_on;
use common::{Machine, PAGE, address, page, range};
use mm::{PhysAddr, Placement, Protection, VmObject, Walk};

const RW: Protection = Protection::READ_WRITE;

#[test]
fn every_upper_entry_exists_from_the_start_and_all_roots_share_it() {
    let machine = Machine::new(64);
    let before = machine.user_space();
    let window = machine.window();
    let object = VmObject::zero(machine.memory, 1);
    for start in [common::KERNEL_RANGE.start, common::KERNEL_RANGE.end - PAGE] {
        window.map(&object, page(0), 1, RW, Placement::Fixed(address(start))).unwrap();
        let space = window.clone();
        block_on(async move { machine.write(&space, start, 5).await }).unwrap();
        // Spaces from before and after the kernel's mapping see it without any copying.
        assert!(before.walk(address(start)).is_some());
        assert!(machine.user_space().walk(address(start)).is_some());
    }
    for index in 256..512 {
        assert_eq!(machine.root_entry(window.root(), index) & 1, 1, "entry {index}");
        assert_eq!(machine.root_entry(window.root(), index), machine.root_entry(before.root(), index));
    }
}

#[test]
fn a_walk_takes_all_levels_together() {
    let machine = Machine::new(64);
    let window = machine.window();
    let object = VmObject::zero(machine.memory, 1);
    let start = window.map(&object, page(0), 1, RW, Placement::Anywhere).unwrap();
    let space = window.clone();
    block_on(async move { machine.write(&space, start.as_u64() + 8, 5).await }).unwrap();
    let inside = address(start.as_u64() + 0x123);
    let walk = window.walk(inside).unwrap();
    assert_eq!((walk.page_size, walk.protection, walk.accessed, walk.dirty), (PAGE, RW, true, true));
    assert_eq!(walk.address.as_u64() & (PAGE - 1), 0x123);
    machine.change_root_entry(window.root(), start, |entry| (entry & !2) | 1 << 63);
    assert_eq!(window.walk(inside).unwrap().protection, Protection::READ);
    assert!(window.walk(range(start, 2).start).is_some());
    assert!(window.walk(address(start.as_u64() + PAGE)).is_none());
}

#[test]
fn a_walk_understands_large_pages() {
    let machine = Machine::new(64);
    let window = machine.window();
    // 1 GiB at 0xffff_c000_0000_0000, 2 MiB in the gibibyte after it.
    let base = 0xffff_c000_0000_0000;
    machine.enter_large_pages(window.root(), base, 0x1_4000_0000, 0x60_0000);
    let seen = |at: u64| window.walk(address(at)).map(|Walk { address, page_size, .. }| (address, page_size));
    assert_eq!(seen(base + 0x1234_5678), Some((PhysAddr::new(0x1_5234_5678), 1 << 30)));
    assert_eq!(seen(base + (1 << 30) + 0x12_3456), Some((PhysAddr::new(0x72_3456), 2 << 20)));
    assert_eq!(seen(base + (1 << 30) + (2 << 20)), None);
}
