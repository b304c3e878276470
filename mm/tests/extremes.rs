//! Numbers that nothing can have so many of: an error or nothing at all, and never a panic.

use executor::host::block_on;
use mm::{DrawError, ManualObject, OutOfMemory, PageIndex, SharedMemory, SubPool, VmObject};
use mm_simulator::{Machine, page};

/// More pages than an object may have.
const TOO_MANY: [u64; 2] = [(1 << 51) + 1, u64::MAX];

#[test]
fn objects_have_at_most_as_many_pages_as_have_an_offset() {
    let machine = Machine::new(400);
    let free = machine.free();
    for pages in TOO_MANY {
        assert_eq!(VmObject::try_new(machine.memory, machine.pager(), pages).err(), Some(OutOfMemory));
        assert_eq!(VmObject::try_zero(machine.memory, pages).err(), Some(OutOfMemory));
        assert_eq!(SharedMemory::try_new(machine.memory, pages).err(), Some(OutOfMemory));
    }
    let largest = VmObject::zero(machine.memory, 1 << 51);
    block_on(largest.write((1 << 63) - 8, &[1; 8])).expect("the last page has memory");
    drop(largest);
    assert!(SharedMemory::try_new(machine.memory, 1 << 51).is_ok());
    assert_eq!(machine.free(), free);
}

#[test]
fn what_is_done_to_pages_that_an_object_has_not_changes_nothing() {
    let machine = Machine::new(400);
    let base = VmObject::new(machine.memory, machine.pager(), 4);
    let overlay = VmObject::overlay(base.clone());
    block_on(overlay.write(0, &[1; 8])).expect("the page can be loaded");
    let last = PageIndex::new(u64::MAX);
    for object in [&base, &overlay] {
        block_on(async {
            object.invalidate(page(4)).await;
            object.invalidate(last).await;
            object.release(page(4)..last).await;
            object.discard(last..page(0)).await;
            assert_eq!(object.mark(page(1)..last).await, 0);
            assert_eq!(object.store(last..page(0)).await, Ok(()));
            assert_eq!(object.store_and_mark(page(4)..last).await, Ok(0));
            assert!(!object.evict(last).await);
        });
    }
    let mut read = [0; 8];
    block_on(overlay.read(0, &mut read)).expect("the page is there");
    assert_eq!(read, [1; 8]);
}

#[test]
fn there_is_no_run_of_no_frames_or_at_multiples_of_what_is_no_power_of_two() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let pool = SubPool::new("few", frames, 4);
    let free = machine.free();
    for (pages, align) in [(0, 1), (1, 0), (1, 3), (usize::MAX, 1), (1, 1 << 63)] {
        assert!(frames.try_alloc_contiguous(pages, align).is_none());
        assert_eq!(ManualObject::try_contiguous(machine.memory, pages, align).err(), Some(OutOfMemory));
        let drawn = pool.try_alloc_contiguous(pages, align).err();
        assert_eq!(drawn, Some(if pages > 4 { DrawError::AtLimit } else { DrawError::OutOfMemory }));
        assert_eq!((machine.free(), pool.in_use()), (free, 0));
    }
}
