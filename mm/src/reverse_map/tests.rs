//! The search by size class against a plain look at all mappings.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::PageTable;
use crate::window::arena;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_mappings_of_a_page_are_those_that_show_it(
        mappings in prop::collection::vec((0..60u64, 1..40u64), 1..40),
        removed in prop::collection::vec(any::<bool>(), 40),
    ) {
        let memory = arena::memory(8);
        let tables = PageTable::new_user(memory, crate::PhysAddr::new(0)).expect("room");
        let table = Arc::new(Table::new(tables));
        let mut map = ReverseMap::<()>::default();
        let at = |id: usize| VirtAddr::truncated(id as u64 * 1000 * 4096);
        for (id, &(first, pages)) in mappings.iter().enumerate() {
            let room = ReverseMap::<()>::room().expect("there is memory");
            map.insert(room, id as u64, first, Shown::new(pages, at(id), table.clone(), ()));
        }
        let mut left = Vec::new();
        for (id, &(first, pages)) in mappings.iter().enumerate() {
            if removed[id] {
                prop_assert!(map.remove(id as u64, first, pages).is_some());
                prop_assert!(map.remove(id as u64, first, pages).is_none());
            } else {
                left.push((id, first, pages));
            }
        }
        prop_assert_eq!(map.len(), left.len());
        for page in 0..110 {
            let mut told = Vec::new();
            map.for_each(page, |_, address| told.push(address));
            told.sort();
            let expected: Vec<_> = left
                .iter()
                .filter(|(_, first, pages)| (*first..first + pages).contains(&page))
                .map(|&(id, first, _)| at(id).page_add(page - first))
                .collect();
            prop_assert_eq!(told, expected);
        }
    }
}
