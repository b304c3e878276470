use std::vec::Vec;

use super::*;
use crate::PageState;
use crate::trace::ObjectName;

fn map(pages: u64) -> PageIndexMap {
    let owner = Owner { memory: crate::window::arena::memory(64), name: ObjectName::object(0) };
    PageIndexMap::new(owner, pages)
}

fn loaded(frame: u64) -> PageEntry {
    PageEntry::new(PageState::Loaded { frame })
}

fn enter(map: &mut PageIndexMap, index: u64) {
    map.make_room(index).expect("there is memory");
    map.set(index, PageEvent::Move, loaded(index & 0xffff));
}

#[test]
fn used_pages_are_found_in_order_and_only_within_the_range() {
    const LAST: u64 = (1 << 51) - 1;
    let mut map = map(LAST + 1);
    for index in [3, 63, 64, 1000, LAST] {
        enter(&mut map, index);
    }
    assert_eq!(map.next_used(0..u64::MAX).map(|found| found.0), Some(3));
    assert_eq!(map.next_used(4..1000).map(|found| found.0), Some(63));
    assert_eq!(map.next_used(64..65).map(|found| found.0), Some(64));
    assert_eq!(map.next_used(65..1000).map(|found| found.0), None);
    assert_eq!(map.next_used(65..65).map(|found| found.0), None);
    assert_eq!(map.next_used(1001..u64::MAX).map(|found| found.0), Some(LAST));
    let told = |range| {
        let mut told = Vec::new();
        map.for_each_in(range, |index, entry| told.push((index, entry)));
        assert!(told.iter().all(|&(index, entry)| entry == map.get(index)));
        told.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
    };
    assert_eq!(told(0..u64::MAX), [3, 63, 64, 1000, LAST]);
    assert_eq!(told(4..1000), [63, 64]);
    assert_eq!(told(64..65), [64]);
    assert!(told(65..1000).is_empty() && told(65..65).is_empty());
    assert_eq!(told(1000..LAST), [1000]);
    assert_eq!(map.next_used(1001..LAST).map(|found| found.0), None);
    assert_eq!(map.get(1000).state(), PageState::Loaded { frame: 1000 });
}

#[test]
fn pages_are_told_a_few_chunks_at_a_time() {
    let mut map = map(1 << 40);
    let pages = [3, 63, 64, 1000, 1001, 5000, 1 << 30, (1 << 40) - 1];
    pages.iter().for_each(|&index| enter(&mut map, index));
    let mut told = std::vec::Vec::new();
    let next = map.for_some(0, 15, |index, _| told.push(index));
    assert_eq!((&told[..], next), (&pages[..5], Some(5000)));
    assert_eq!(map.for_some(5000, 3, |index, _| told.push(index)), Some(1 << 30));
    assert_eq!(map.for_some(5001, 3, |index, _| told.push(index)), Some((1 << 40) - 1));
    assert_eq!(map.for_some(1 << 31, 3, |index, _| told.push(index)), None);
    assert_eq!(told, pages);
    assert_eq!(map.for_some(64, 0, |index, _| assert_eq!(index, 64)), Some(1000));
}

#[test]
fn an_object_of_any_size_has_room_for_its_pages_and_nothing_beyond() {
    for pages in [1, 2, 63, 64, 65, 4096, 4097, 1 << 51] {
        let mut map = map(pages);
        enter(&mut map, 0);
        enter(&mut map, pages - 1);
        assert!(map.get(pages - 1) == loaded((pages - 1) & 0xffff), "{pages}");
        assert_eq!(map.next_used(1..u64::MAX).map(|found| found.0), (pages > 1).then_some(pages - 1));
        for beyond in [map.end, 1 << 60, u64::MAX] {
            assert!(map.get(beyond) == PageEntry::ABSENT);
            map.set(beyond, PageEvent::Move, PageEntry::ABSENT);
        }
    }
}

#[test]
fn pages_that_are_changed_together_are_found_in_any_order_each_in_its_chunk() {
    let mut map = map(1 << 30);
    for index in [1, 2, 63, 64, 4096] {
        enter(&mut map, index);
    }
    let mut seen = [1, 2, 64, 63, 63, 5, 4096, 4097, 1 << 40].map(|index| (index, None));
    map.update_each(
        &mut seen,
        |page| page.0,
        |page, entry| {
            page.1 = Some(entry);
            // A chunk keeps one of its pages, the others lose all they have.
            (entry != PageEntry::ABSENT && page.0 != 2).then_some((PageEvent::Move, PageEntry::ABSENT))
        },
    );
    let seen = seen.map(|(_, entry)| entry.map(|entry: PageEntry| entry.frame()));
    let gone = Some(None);
    assert_eq!(seen[..4], [1, 2, 64, 63].map(|frame| Some(Some(frame))));
    assert_eq!(seen[4..], [gone, gone, Some(Some(4096)), gone, None]);
    assert_eq!((map.len(), map.next_used(0..u64::MAX).map(|found| found.0)), (1, Some(2)));
    map.update(2, |_| Some((PageEvent::Move, PageEntry::ABSENT)));
    assert!(map.is_empty() && map.root.is_none(), "the last page of a chunk goes with it");
}

#[test]
fn a_chunk_without_pages_costs_nothing() {
    for pages in [64, 1 << 30] {
        let mut map = map(pages);
        enter(&mut map, 7);
        enter(&mut map, 8);
        map.set(7, PageEvent::Move, PageEntry::ABSENT);
        assert!(map.root.is_some());
        map.set(8, PageEvent::Move, PageEntry::ABSENT);
        map.set(8, PageEvent::Move, PageEntry::ABSENT);
        assert!(map.root.is_none());
        map.make_room(9).expect("there is memory");
        map.give_up_room(9);
        assert!(map.root.is_none());
    }
}

#[test]
fn pages_are_entered_some_at_a_time_up_to_the_end_of_a_chunk() {
    let mut map = map(1 << 30);
    enter(&mut map, 62);
    let mut pages = 60..70;
    let mut seen = Vec::new();
    let set = |index| Enter::Set(PageEvent::Move, loaded(index));
    let entered = map.enter_some(&mut pages, |index, entry| {
        seen.push(index);
        if entry == PageEntry::ABSENT { set(index) } else { Enter::Leave }
    });
    assert_eq!((entered, pages.clone(), &seen[..]), (Ok(()), 64..70, &[60, 61, 62, 63][..]));
    let entered = map.enter_some(&mut pages, |index, _| if index < 66 { set(index) } else { Enter::Enough });
    assert_eq!((entered, pages.clone(), map.len()), (Ok(()), 66..70, 6));
    let mut far = 1000..1002;
    assert_eq!(map.enter_some(&mut far, |_, _| Enter::Enough), Ok(()));
    assert_eq!((far, map.next_used(66..u64::MAX)), (1000..1002, None), "the room was given up");
    (60..66).for_each(|index| map.set(index, PageEvent::Move, PageEntry::ABSENT));
    assert!(map.is_empty() && map.root.is_none());
}
