use std::collections::BTreeMap;
use std::vec::Vec;

use super::{Node, OrderedMap, Room};

fn enter(map: &mut OrderedMap<u64, u64>, key: u64, value: u64) {
    map.insert(Room::try_new().expect("there is memory"), key, value);
}

/// How many nodes lie on the longest way down, after a look whether keys and ranks are in order.
fn depth(map: &OrderedMap<u64, u64>) -> usize {
    fn below(node: Option<&Node<u64, u64>>, keys: &mut Vec<u64>) -> usize {
        let Some(node) = node else { return 0 };
        let lower =
            |other: &Option<_>| other.as_deref().is_none_or(|other: &Node<_, _>| other.rank <= node.rank);
        assert!(lower(&node.left) && lower(&node.right));
        let left = below(node.left.as_deref(), keys);
        keys.push(node.key);
        1 + left.max(below(node.right.as_deref(), keys))
    }
    let mut keys = Vec::new();
    let depth = below(map.root.as_deref(), &mut keys);
    assert!(keys.is_sorted() && keys.len() == map.len());
    depth
}

#[test]
fn it_says_what_the_standard_librarys_says() {
    let (mut map, mut model) = (OrderedMap::default(), BTreeMap::new());
    let mut random = 1_u64;
    for step in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = random >> 33 & 0x1ff;
        if random >> 62 == 0 {
            assert_eq!(map.remove(&key), model.remove(&key));
        } else if let Some(value) = map.get_mut(&key) {
            *value = step;
            assert!(model.insert(key, step).is_some());
        } else {
            enter(&mut map, key, step);
            assert_eq!(model.insert(key, step), None);
        }
        assert_eq!(map.len(), model.len());
        let near = random >> 20 & 0x1ff;
        assert_eq!(map.get(&near), model.get(&near));
        assert_eq!(
            map.at_or_before(&near),
            model.range(..=near).next_back().map(|(key, value)| (*key, value))
        );
        assert_eq!(map.at_or_after(&near), model.range(near..).next().map(|(key, value)| (*key, value)));
    }
    depth(&map);
    while let Some(first) = map.pop_first() {
        assert_eq!(Some(first), model.pop_first());
    }
    assert!(model.is_empty());
}

#[test]
fn it_is_not_deep_in_whatever_order_keys_come() {
    const KEYS: u64 = 10_000;
    let orders: [fn(u64) -> u64; 3] = [|key| key, |key| KEYS - 1 - key, |key| key * 7919 % KEYS];
    for order in orders {
        let mut map = OrderedMap::default();
        (0..KEYS).for_each(|key| enter(&mut map, order(key), key));
        assert!(depth(&map) < 50, "{}", depth(&map));
        (0..KEYS / 2).for_each(|key| assert!(map.remove(&(2 * key)).is_some()));
        assert!(depth(&map) < 50, "{}", depth(&map));
    }
}

#[test]
fn what_is_taken_out_leaves_its_memory_for_another() {
    let mut map = OrderedMap::default();
    for key in [5, 1, 9, 7] {
        enter(&mut map, key, key);
    }
    let (value, room) = map.take(&5).expect("it is there");
    map.insert(room, 6, 60);
    assert_eq!((value, map.get(&5), map.get(&6), map.len()), (5, None, Some(&60), 4));
    assert!([1, 7, 9].iter().all(|key| map.get(key) == Some(key)));
}
