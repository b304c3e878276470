//! The order of visits, and the text.

use core::ops::ControlFlow;
use std::string::ToString;
use std::vec::Vec;

use super::*;

/// Level, whole, kind of each visit, with the first address as a distance from `BASE`.
fn visits(table: &PageTable, range: Range<VirtAddr>) -> Vec<(u64, u32, bool, char)> {
    let mut seen = Vec::new();
    let end = table.for_each(range, |visit| {
        let kind = match visit.found {
            Found::Hole => '-',
            Found::Page(_) => 'p',
            Found::Table { .. } => 't',
        };
        seen.push((visit.start.as_u64().wrapping_sub(BASE), visit.level, visit.whole, kind));
        ControlFlow::<()>::Continue(())
    });
    assert!(end.is_continue());
    seen
}

#[test]
fn what_is_below_an_entry_is_visited_before_it() {
    let mut table = tables(64, PageSize::Size2MiB);
    segment(&mut table, BASE, 2 * MIB, 0x4000_0000).expect("room");
    segment(&mut table, BASE + 4 * MIB, 0x2000, 0x1000).expect("room");
    let expected = [
        (0, 2, true, 'p'),
        (2 * MIB, 2, true, '-'),
        (4 * MIB, 1, true, 'p'),
        (4 * MIB + 0x1000, 1, true, 'p'),
        (4 * MIB + 0x2000, 1, true, '-'),
        (4 * MIB, 2, false, 't'),
        (0, 3, false, 't'),
        (0u64.wrapping_sub(BASE), 4, false, 't'),
    ];
    assert_eq!(visits(&table, range(BASE, 4 * MIB + 0x3000)), expected);
    // From within a large page to the whole of a table.
    let seen = visits(&table, range(BASE + MIB, 5 * MIB));
    assert_eq!(seen[0], (0, 2, false, 'p'));
    assert_eq!(seen[2..].iter().filter(|visit| visit.1 == 1).count(), 512);
    assert_eq!(seen[514], (4 * MIB, 2, true, 't'));
}

#[test]
fn a_hole_is_visited_once_however_large() {
    let mut table = tables(64, PageSize::Size2MiB);
    assert_eq!(visits(&table, range(BASE, 3 * GIB)), [(0u64.wrapping_sub(BASE), 4, false, '-')]);
    segment(&mut table, BASE, 2 * MIB, 0).expect("room");
    let seen = visits(&table, at(BASE)..at(0x8000_0000_0000));
    assert_eq!(seen.iter().filter(|visit| visit.3 == '-').count(), 511 + 511 - 256 + 255);
    assert!(visits(&table, at(BASE)..at(BASE)).is_empty());
    // Both halves at once; nothing lies between.
    let seen = visits(&table, at(0x7fff_ffff_f000)..at(0xffff_8000_0000_1000));
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_visit_that_breaks_is_the_last() {
    let mut table = tables(64, PageSize::Size2MiB);
    segment(&mut table, BASE, 0x10_000, 0x1000).expect("room");
    let mut seen = 0;
    let end = table.for_each(range(BASE, GIB), |visit| {
        seen += 1;
        assert_eq!(visit.level, 1);
        if seen == 5 { ControlFlow::Break(visit.start) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((end, seen), (ControlFlow::Break(at(BASE + 0x4000)), 5));
}

#[test]
fn visits_tell_what_all_levels_allow_together() {
    let mut table = tables(64, PageSize::Size2MiB);
    segment(&mut table, BASE, 0x1000, 0x1000).expect("room");
    // 64 pages and more: the entry above them is protected, and not they.
    segment(&mut table, BASE + 0x1000, 0xff_000, 0x2000).expect("room");
    assert_eq!(table.write_protect(range(BASE, MIB)), Ok(true));
    let mut pages = 0;
    let end: ControlFlow<()> = table.for_each(range(BASE, MIB), |visit| {
        match visit.found {
            Found::Page(page) => {
                assert_eq!(page, table.walk(visit.start).expect("it is there"));
                assert_eq!(page.protection, READ);
                pages += 1;
            }
            Found::Table { protection, .. } => assert_eq!(protection.write, visit.level > 2),
            Found::Hole => unreachable!(),
        }
        ControlFlow::Continue(())
    });
    assert!(end.is_continue());
    assert_eq!(pages, 256);
}

#[test]
fn pages_that_are_alike_are_one_line() {
    let mut table = tables(64, PageSize::Size1GiB);
    segment(&mut table, BASE, GIB + 2 * MIB + 0x2000, GIB).expect("room");
    table.protect_segment(range(BASE + GIB + 2 * MIB, 0x1000), READ).expect("it is there");
    for (page, frame) in [(0, 9), (1, 7), (2, 8)] {
        let page = at(BASE + 0x1_0000_0000 + page * PAGE_BYTES);
        table.map(page, frame, Protection { execute: true, ..READ }, &mut None).expect("room");
    }
    // Side by side, but not in a row in memory.
    segment(&mut table, BASE + 0x1_8000_0000, 4 * MIB, 8 * MIB).expect("room");
    segment(&mut table, BASE + 0x1_8000_0000 + 4 * MIB, 2 * MIB, 2 * MIB).expect("room");
    segment(&mut table, BASE + 0x1_c000_0000, 0x3000, 0x9000).expect("room");
    segment(&mut table, BASE + 0x1_c000_3000, 0x2000, 0x2000).expect("room");
    let (physical, protection) = (PhysAddr::new(0xfd00_0000), Protection::READ_WRITE);
    let framebuffer = range(BASE + 0x2_0000_0000, 4 * MIB);
    table.map_segment(framebuffer, physical, protection, MemoryType::WriteCombining).expect("room");
    let expected = "\
0x0000004000000000..0x0000004040000000        1 x 1 GiB at 0x40000000 rw- user
0x0000004040000000..0x0000004040200000        1 x 2 MiB at 0x80000000 rw- user
0x0000004040200000..0x0000004040201000        1 x 4 KiB at 0x80200000 r-- user
0x0000004040201000..0x0000004040202000        1 x 4 KiB at 0x80201000 rw- user
0x0000004100000000..0x0000004100003000        3 x 4 KiB scattered r-x user
0x0000004180000000..0x0000004180400000        2 x 2 MiB at 0x800000 rw- user
0x0000004180400000..0x0000004180600000        1 x 2 MiB at 0x200000 rw- user
0x00000041c0000000..0x00000041c0003000        3 x 4 KiB at 0x9000 rw- user
0x00000041c0003000..0x00000041c0005000        2 x 4 KiB at 0x2000 rw- user
0x0000004200000000..0x0000004200400000        2 x 2 MiB at 0xfd000000 rw- write-combining
";
    assert_eq!(table.to_string(), expected);
}
