//! The way to the page before is believed only as long as it leads there.

use super::*;

fn enter(table: &mut PageTable, address: u64, frame: u64) {
    table.map(at(address), frame, RW, &mut None).expect("there are frames");
}

fn shown(table: &PageTable, address: u64) -> Option<(u64, bool)> {
    table.walk(at(address)).map(|walk| (walk.address.as_u64() / PAGE_BYTES, walk.protection.write))
}

#[test]
fn a_page_beside_one_whose_table_went_gets_a_table_that_is_shown() {
    let mut table = tables(64, PageSize::Size4KiB);
    enter(&mut table, BASE, 7);
    enter(&mut table, BASE + 0x1000, 8);
    table.unmap(at(BASE)).expect("it is there");
    table.unmap(at(BASE + 0x1000)).expect("it is there");
    enter(&mut table, BASE + 0x2000, 9);
    assert_eq!(shown(&table, BASE + 0x2000), Some((9, true)));
    table.audit();
}

#[test]
fn a_page_beside_one_that_was_protected_above_can_be_written() {
    let mut table = tables(64, PageSize::Size4KiB);
    for page in 0..100 {
        enter(&mut table, BASE + page * PAGE_BYTES, 100 + page);
    }
    let all = at(0)..at(0x7fff_ffff_f000);
    assert_eq!(table.write_protect(all.clone()), Ok(true));
    assert_eq!(shown(&table, BASE), Some((100, false)));
    // A page that is read does not open the way for one that is written.
    table.map(at(BASE + 200 * PAGE_BYTES), 300, READ, &mut None).expect("the table is there");
    enter(&mut table, BASE + 201 * PAGE_BYTES, 301);
    assert_eq!(shown(&table, BASE + 201 * PAGE_BYTES), Some((301, true)));
    assert_eq!(shown(&table, BASE), Some((100, false)), "what was protected stays so");
}

#[test]
fn a_page_in_another_table_is_not_taken_for_one_beside() {
    let mut table = tables(64, PageSize::Size4KiB);
    for (address, frame) in [(BASE, 7), (BASE + 2 * MIB, 8), (BASE + GIB, 9), (BASE + 512 * GIB, 10)] {
        enter(&mut table, address, frame);
        enter(&mut table, address + 0x1000, frame + 100);
    }
    for (address, frame) in [(BASE, 7), (BASE + 2 * MIB, 8), (BASE + GIB, 9), (BASE + 512 * GIB, 10)] {
        assert_eq!(shown(&table, address), Some((frame, true)));
        assert_eq!(shown(&table, address + 0x1000), Some((frame + 100, true)));
    }
    table.audit();
}
