//! Frames for tables: none is lost when there are none, and all come back.

use std::vec::Vec;

use super::*;
use crate::Frame;

/// Frames that are free, or will be when all CPUs were waited for.
fn free(table: &PageTable) -> usize {
    let stats = table.memory.frames().stats();
    stats.free + stats.quarantined
}

/// Leaves this many frames free; the rest is given back with what is returned.
fn leave(table: &PageTable, frames: usize) -> Vec<Frame> {
    let pool = table.memory.frames();
    let mut taken: Vec<_> = core::iter::from_fn(|| pool.try_alloc()).collect();
    taken.truncate(taken.len().saturating_sub(frames));
    taken
}

/// Lets a change run out of frames at its first, second, third allocation and so on, until it needs no more. Each
/// time nothing is seen of it, what was made is accounted for, and the same change succeeds with frames.
fn fails_at_each(
    prepare: impl Fn(&mut PageTable),
    change: impl Fn(&mut PageTable) -> Result<(), MapError>,
) -> usize {
    for frames in 0.. {
        let mut table = tables(64, PageSize::Size1GiB);
        let before = free(&table);
        prepare(&mut table);
        let shown = std::format!("{table}");
        let resident = table.resident();
        let taken = leave(&table, frames);
        let result = change(&mut table);
        if result.is_err() {
            assert_eq!(result, Err(MapError::NoMemory));
            assert_eq!(
                (without_sizes(&table), table.resident()),
                (without_sizes_of(&shown, &prepare), resident)
            );
            assert_eq!(free(&table), 0, "what was free is in use");
        }
        table.audit();
        drop(taken);
        assert_eq!(free(&table) as u64 + table.tables(), before as u64);
        assert_eq!(change(&mut table), Ok(()));
        let done = std::format!("{table}");
        table.unmap_segment(range(0x1000, 0x7fff_ffff_0000)).expect("it is all covered");
        assert_eq!((table.audit(), table.resident(), free(&table)), (0, 0, before));
        if result.is_ok() {
            let mut fresh = tables(64, PageSize::Size1GiB);
            prepare(&mut fresh);
            change(&mut fresh).expect("room");
            assert_eq!(done, std::format!("{fresh}"));
            return frames;
        }
    }
    unreachable!()
}

/// What some addresses lead to, whatever the size of the pages.
fn without_sizes(table: &PageTable) -> Vec<Option<(PhysAddr, Protection, MemoryType)>> {
    let offsets = [0, 0x1000, 2 * MIB - 0x1000, 2 * MIB, 3 * MIB, GIB - 0x1000, GIB, GIB + 2 * MIB, 2 * GIB];
    let shown = offsets.map(|offset| table.walk(at(BASE + offset)));
    shown.iter().map(|walk| walk.map(|walk| (walk.address, walk.protection, walk.memory_type))).collect()
}

fn without_sizes_of(
    shown: &str,
    prepare: &impl Fn(&mut PageTable),
) -> Vec<Option<(PhysAddr, Protection, MemoryType)>> {
    let mut fresh = tables(64, PageSize::Size1GiB);
    prepare(&mut fresh);
    assert_eq!(std::format!("{fresh}"), shown);
    without_sizes(&fresh)
}

#[test]
fn a_segment_that_runs_out_of_frames_at_any_point_shows_nothing() {
    // Level 3; level 2 and 1 at either end.
    let crossing = |table: &mut PageTable| segment(table, BASE + 0x1000, GIB, 0x1000);
    assert_eq!(fails_at_each(|_| (), crossing), 5);
    let huge = |table: &mut PageTable| segment(table, BASE, GIB, 0);
    assert_eq!(fails_at_each(|_| (), huge), 1);
}

#[test]
fn a_large_page_that_cannot_be_split_stays_as_it_was() {
    let prepare = |table: &mut PageTable| segment(table, BASE, 2 * GIB, 0).expect("room");
    let unmap = |table: &mut PageTable| table.unmap_segment(range(BASE + 0x1000, 2 * GIB - 0x2000));
    assert_eq!(fails_at_each(prepare, unmap), 4);
    let protect = |table: &mut PageTable| table.protect_segment(range(BASE + 2 * MIB, MIB), READ);
    assert_eq!(fails_at_each(prepare, protect), 2);
    // The same frames with less rights.
    let again = |table: &mut PageTable| {
        let part = range(BASE + GIB - 0x1000, 0x2000);
        table.map_segment(part, PhysAddr::new(GIB - 0x1000), READ, MemoryType::Uncached)
    };
    assert_eq!(fails_at_each(prepare, again), 4);
}

#[test]
fn tables_ahead_of_time_are_all_that_pages_take() {
    let add = |table: &mut PageTable| table.add_tables(range(BASE + 2 * MIB - 0x1000, 0x2000));
    assert_eq!(fails_at_each(|_| (), add), 4);
    let mut table = tables(64, PageSize::Size4KiB);
    add(&mut table).expect("room");
    let taken = leave(&table, 0);
    for page in [BASE + 2 * MIB - 0x1000, BASE + 2 * MIB] {
        assert_eq!(table.map(at(page), 5, RW, &mut None), Ok(()));
    }
    assert_eq!(table.map(at(BASE + 4 * MIB), 5, RW, &mut None), Err(NeedsFrame));
    drop(taken);
    assert_eq!(table.audit(), 4);
}

#[test]
fn a_page_takes_each_missing_table_from_the_spare_frame_or_the_pool() {
    let mut table = tables(64, PageSize::Size4KiB);
    let before = free(&table);
    let mut spares: Vec<_> = (0..3).map(|_| table.memory.frames().try_alloc()).collect();
    let taken = leave(&table, 0);
    // Each try gets one table further.
    for (made, spare) in spares.iter_mut().enumerate() {
        let result = table.map(at(BASE), 5, RW, spare);
        assert_eq!(result, if made == 2 { Ok(()) } else { Err(NeedsFrame) });
        assert_eq!((table.audit(), spare.is_none()), (made as u64 + 1, true));
    }
    drop(taken);
    assert_eq!(table.unmap(at(BASE)).map(|leaf| leaf.frame), Some(5));
    assert_eq!((table.audit(), free(&table)), (0, before));
}

#[test]
fn a_table_goes_with_its_last_page_and_not_before() {
    let mut table = tables(64, PageSize::Size4KiB);
    let pages = [BASE, BASE + 0x1000, BASE + 2 * MIB, BASE + GIB, BASE + 512 * GIB];
    for page in pages {
        table.map(at(page), 5, RW, &mut None).expect("room");
    }
    let mut left = Vec::from([9, 9, 8, 6, 3]);
    for page in pages {
        assert_eq!(table.audit(), left.remove(0));
        assert!(table.unmap(at(page)).is_some());
        assert!(table.unmap(at(page)).is_none());
    }
    assert_eq!(table.audit(), 0);
}

#[test]
fn the_kernels_tables_stay() {
    let (window, usable) = arena::arena(400);
    let memory = Box::leak(Box::new(Memory::new(window, &[usable], &Sized(PageSize::Size2MiB))));
    // Page 1 is empty, but for what a boot loader left in the lower half.
    let root = PhysAddr::new(0x1000);
    window.table(root)[3].store(0x7003, Ordering::Relaxed);
    let mut table = PageTable::new_kernel(memory, ExistingRoot(root)).expect("room");
    assert_eq!(table.walk(at(3 << 39)), None);
    assert_eq!(window.table(root)[3].load(Ordering::Relaxed), 0, "the lower half is not taken over");
    let user = PageTable::new_user(memory, root).expect("room");
    let start = 0xffff_e000_0000_0000;
    table.map(at(start), 5, Protection::READ_WRITE, &mut None).expect("room");
    assert_eq!(user.walk(at(start)), table.walk(at(start)));
    assert!(table.unmap(at(start)).is_some());
    assert_eq!(table.tables(), 2);
    segment(&mut table, start, 2 * MIB + 0x1000, 0x20_0000).expect("room");
    table.make_permanent(range(start + 2 * MIB, 0x1000)).expect("it is there");
    let both = range(start, 2 * MIB + 0x1000);
    assert_eq!(table.unmap_segment(both.clone()), Err(MapError::Permanent));
    assert_eq!(table.protect_segment(both.clone(), Protection::READ), Err(MapError::Permanent));
    assert_eq!(segment(&mut table, start, 2 * MIB + 0x1000, 0x20_0000), Err(MapError::Permanent));
    assert!(user.walk(at(start + 2 * MIB)).is_some_and(|walk| walk.permanent));
    assert_eq!(table.unmap_segment(range(start, 2 * MIB)), Ok(()));
    assert_eq!((user.walk(at(start)), table.tables()), (None, 3));
    // What is copied into all roots stays as it is.
    for index in 256..512 {
        let [own, copy] = [root, user.root()].map(|root| window.table(root)[index].load(Ordering::Relaxed));
        assert_eq!(own, copy);
    }
    assert_eq!(table.write_protect(both), Err(MapError::OutOfRange));
}

#[test]
fn ranges_that_make_no_sense_are_errors() {
    let mut table = tables(64, PageSize::Size2MiB);
    let mut map = |start, end, physical, rights| {
        table.map_segment(at(start)..at(end), PhysAddr::new(physical), rights, MemoryType::WriteBack)
    };
    assert_eq!(map(0x1000, 0x1000, 0, RW), Err(MapError::Empty));
    assert_eq!(map(0x2000, 0x1000, 0, RW), Err(MapError::Empty));
    assert_eq!(map(0x1000, 0x1800, 0, RW), Err(MapError::Unaligned));
    assert_eq!(map(0x1000, 0x2000, 0x800, RW), Err(MapError::Unaligned));
    assert_eq!(map(0xffff_8000_0000_0000, 0xffff_8000_0000_1000, 0, RW), Err(MapError::OutOfRange));
    assert_eq!(map(0x1000, 0xffff_8000_0000_1000, 0, RW), Err(MapError::OutOfRange));
    assert_eq!(map(0x1000, 0x3000, (1 << 52) - 0x1000, RW), Err(MapError::OutOfRange));
    assert_eq!(map(0x1000, 0x3000, u64::MAX - 0xfff, RW), Err(MapError::OutOfRange));
    assert_eq!(map(0x1000, 0x2000, 0, Protection::default()), Err(MapError::Unreadable));
    assert_eq!(map(0x1000, 0x2000, 0x1000, RW), Ok(()));
    assert_eq!(map(0x1000, 0x2000, 0x2000, RW), Err(MapError::Overlap));
    assert_eq!(map(0, 2 * MIB, 0, READ), Ok(()));
    assert_eq!(table.make_permanent(at(0x1000)..at(0x2000)), Err(MapError::OutOfRange));
    assert_eq!(
        table.protect_segment(at(0x1000)..at(0x2000), Protection::default()),
        Err(MapError::Unreadable)
    );
}
