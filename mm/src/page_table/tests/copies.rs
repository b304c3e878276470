//! Copy on write at upper levels: which entries are protected, and how the first write undoes it.

use std::vec::Vec;

use super::*;
use crate::page_entry::{PRESENT, WRITABLE};

/// Pages of 4 KiB in a row, all writable.
fn pages(table: &mut PageTable, start: u64, pages: u64) {
    segment(table, start, pages * PAGE_BYTES, 0x4000_0000).expect("room");
}

fn is_writable(table: &PageTable, address: u64) -> bool {
    table.walk(at(address)).is_some_and(|walk| walk.protection.write)
}

/// How many present entries of each level lack the right to write, the lowest first.
fn protected(table: &PageTable) -> [usize; 4] {
    fn below(table: &PageTable, entries: &[AtomicU64], level: u32, found: &mut [usize; 4]) {
        for entry in entries {
            let value = entry.load(Ordering::Relaxed);
            if value & PRESENT != 0 {
                found[level as usize - 1] += usize::from(value & WRITABLE == 0);
                if level > 1 && value & 128 == 0 {
                    let lower = PhysAddr::new(value & 0xf_ffff_ffff_f000);
                    below(table, table.entries(lower), level - 1, found);
                }
            }
        }
    }
    let mut found = [0; 4];
    below(table, &table.entries(table.root)[..UPPER_HALF], 4, &mut found);
    found
}

const ALL: Range<VirtAddr> = VirtAddr::truncated(0x1_0000)..VirtAddr::truncated(0x7fff_ffff_f000);

fn write(table: &mut PageTable, address: u64) {
    let frame = table.walk(at(address)).expect("it is there").address.as_u64() / PAGE_BYTES;
    table.map(at(address), frame, RW, &mut None).expect("the tables are there");
    assert!(is_writable(table, address));
}

#[test]
fn a_table_with_few_pages_is_entered_and_one_with_many_is_not() {
    for (count, expected) in [(63, [63, 0, 0, 0]), (64, [0, 1, 0, 0]), (513, [1, 1, 0, 0])] {
        let mut table = tables(64, PageSize::Size4KiB);
        pages(&mut table, BASE, count);
        assert_eq!(table.write_protect(ALL), Ok(true));
        assert_eq!(protected(&table), expected, "{count} pages");
        assert_eq!(table.write_protect(ALL), Ok(false));
    }
}

#[test]
fn few_pages_of_a_full_table_are_protected_by_themselves() {
    let mut table = tables(64, PageSize::Size4KiB);
    pages(&mut table, BASE, 512);
    assert_eq!(table.write_protect(range(BASE + 0x1000, 0x3000)), Ok(true));
    assert_eq!(protected(&table), [3, 0, 0, 0]);
    // More of them, and the table as a whole: pages beside the range as well.
    assert_eq!(table.write_protect(range(BASE + 0x1000, 64 * PAGE_BYTES)), Ok(true));
    assert_eq!(protected(&table), [3, 1, 0, 0]);
    assert!(!is_writable(&table, BASE));
    write(&mut table, BASE);
    assert_eq!(protected(&table), [511, 0, 0, 0]);
}

#[test]
fn a_gibibyte_is_one_entry_and_what_is_scattered_is_bounded() {
    let mut table = tables(700, PageSize::Size4KiB);
    pages(&mut table, BASE, GIB / PAGE_BYTES);
    assert_eq!(table.write_protect(ALL), Ok(true));
    assert_eq!(protected(&table), [0, 0, 1, 0]);
    // 40 gibibytes with 2 pages each, in tables of their own.
    let mut table = tables(200, PageSize::Size4KiB);
    for index in 0..40 {
        pages(&mut table, BASE + index * GIB, 1);
        pages(&mut table, BASE + index * GIB + 4 * MIB, 1);
    }
    assert_eq!(table.write_protect(ALL), Ok(true));
    let protected = protected(&table);
    assert!(protected[..2].iter().sum::<usize>() < 64, "{protected:?}");
    assert!((0..40).all(|index| !is_writable(&table, BASE + index * GIB)));
}

#[test]
fn a_first_write_pushes_the_protection_down_to_its_page() {
    let mut table = tables(64, PageSize::Size2MiB);
    // Three pages in each of two tables, and 64 gibibytes so that the root's entry is protected.
    for start in [BASE, BASE + 2 * MIB, BASE + 4 * MIB] {
        pages(&mut table, start, 3);
    }
    table.entries(table.root)[0].fetch_and(!WRITABLE, Ordering::Relaxed);
    table.restrict(at(BASE + 0x2000), READ);
    assert!(!is_writable(&table, BASE) && !is_writable(&table, BASE + 2 * MIB));
    // Entering a page without the right needs none of it.
    table.map(at(BASE + 0x5000), 5, READ, &mut None).expect("room");
    assert_eq!(protected(&table), [2, 0, 0, 1]);
    write(&mut table, BASE + 0x1000);
    // The other two tables are protected as a whole.
    assert_eq!(protected(&table), [3, 2, 0, 0]);
    for page in [BASE, BASE + 0x2000, BASE + 0x5000, BASE + 2 * MIB, BASE + 4 * MIB + 0x2000] {
        assert!(!is_writable(&table, page));
    }
    write(&mut table, BASE + 4 * MIB);
    assert_eq!(protected(&table), [5, 1, 0, 0]);
    assert!(is_writable(&table, BASE + 0x1000));
    table.audit();
}

#[test]
fn pages_below_a_protected_entry_are_looked_at_restricted_and_taken_out_as_ever() {
    let mut table = tables(64, PageSize::Size4KiB);
    pages(&mut table, BASE, 512);
    let leaf = table.deepest(BASE).0;
    leaf.fetch_or(0x60, Ordering::Relaxed);
    assert_eq!(table.write_protect(ALL), Ok(true));
    let used = Leaf { frame: 0x4_0000, accessed: true, dirty: true };
    assert_eq!(table.take_accessed(at(BASE), used.frame + 1), None, "it shows another frame");
    assert_eq!(table.take_accessed(at(BASE), used.frame), Some(used));
    assert_eq!(table.take_accessed(at(BASE), used.frame), Some(Leaf { accessed: false, ..used }));
    assert!(table.restrict(at(BASE), READ), "its own entry allows more");
    assert!(!table.restrict(at(BASE), READ));
    assert_eq!(table.unmap_shown(at(BASE), used.frame + 1), None, "it shows another frame");
    assert_eq!(table.unmap_shown(at(BASE), used.frame), Some(Leaf { accessed: false, ..used }));
    // Another frame, with the right to write: nothing else gets it.
    table.map(at(BASE), 5, RW, &mut None).expect("room");
    let writable: Vec<_> = (0..512).filter(|page| is_writable(&table, BASE + page * PAGE_BYTES)).collect();
    assert_eq!(writable, [0]);
}

#[test]
#[should_panic(expected = "shows another frame already")]
fn a_page_below_a_protected_entry_does_not_change_its_frame() {
    let mut table = tables(64, PageSize::Size4KiB);
    pages(&mut table, BASE, 512);
    table.write_protect(ALL).expect("a range");
    table.map(at(BASE), 5, RW, &mut None).ok();
}

#[test]
fn a_large_page_is_protected_whole_and_keeps_rights_and_type_when_it_is_split() {
    let mut table = tables(64, PageSize::Size1GiB);
    let how = Protection { execute: true, ..RW };
    let (physical, wc) = (PhysAddr::new(GIB), MemoryType::WriteCombining);
    table.map_segment(range(BASE, GIB), physical, how, wc).expect("room");
    table.deepest(BASE).0.fetch_or(0x40, Ordering::Relaxed);
    table.protect_segment(range(BASE + 0x1000, 0x1000), READ).expect("room");
    for (offset, size, protection) in
        [(0, 0x1000, how), (0x1000, 0x1000, READ), (0x2000, 0x1000, how), (2 * MIB, 2 * MIB, how)]
    {
        let walk = table.walk(at(BASE + offset)).expect("it is there");
        assert_eq!((walk.page_size, walk.protection), (size, protection));
        assert_eq!((walk.address.as_u64(), walk.memory_type, walk.dirty), (GIB + offset, wc, true));
    }
    assert_eq!(table.write_protect(range(BASE + 4 * MIB, 0x1000)), Ok(true));
    assert!(!is_writable(&table, BASE + 4 * MIB + 0x1000), "the whole page of 2 MiB");
    assert!(is_writable(&table, BASE + 2 * MIB));
}
