use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::*;

type Value = [u64; 68];

fn slab<T: 'static>() -> &'static Slab<T> {
    Box::leak(Box::new(Slab::new()))
}

/// Pages that have a free place, and their places that are taken.
fn open<T: 'static>(slab: &Slab<T>) -> Vec<u32> {
    let first = *slab.open.lock();
    // SAFETY: nobody else uses the slab now.
    let pages = core::iter::successors(first, |page| unsafe { page.as_ref() }.head.next);
    // SAFETY: as above.
    pages.map(|page| unsafe { page.as_ref() }.head.taken.count_ones()).collect()
}

#[test]
fn a_page_is_shared_until_it_is_full_and_goes_when_it_is_empty_but_the_last() {
    let slab = slab::<Value>();
    let places = Slab::<Value>::PLACES as u64;
    let mut values: Vec<_> = (0..places).map(|number| slab.try_place(|| [number; 68]).unwrap()).collect();
    assert_eq!(open(slab), []);
    values.push(slab.try_place(|| [places; 68]).unwrap());
    assert_eq!(open(slab), [1]);
    assert!((0..).zip(&values).all(|(number, value)| **value == [number; 68]));
    // The full page is found by its place, and comes first.
    values.swap_remove(3);
    assert_eq!(open(slab), [places as u32 - 1, 1]);
    values.swap_remove(3);
    values.truncate(1);
    assert_eq!(open(slab).iter().sum::<u32>(), 1);
    values.clear();
    assert_eq!(open(slab), [0]);
    values.push(slab.try_place(|| [places; 68]).unwrap());
    assert_eq!(open(slab), [1]);
}

#[test]
fn a_value_is_dropped_with_its_place() {
    let slab = slab::<(Arc<()>, Value)>();
    let counted = Arc::new(());
    let places: Vec<_> = (0..20).map(|_| slab.try_place(|| (counted.clone(), [0; 68])).unwrap()).collect();
    assert_eq!(Arc::strong_count(&counted), 21);
    drop(places);
    assert_eq!((Arc::strong_count(&counted), open(slab)), (1, vec![0]));
}

#[test]
fn places_that_are_taken_are_nobody_elses_whatever_the_order() {
    let slab = slab::<Value>();
    let mut random = 1_u64;
    let mut values: Vec<(u64, Place<Value>)> = Vec::new();
    for step in 0..10_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (random >> 33) as usize;
        // Grows, and shrinks to nothing, some times.
        if values.is_empty() || place % 100 < 40 + step / 250 % 2 * 20 {
            values.push((random, slab.try_place(|| [random; 68]).unwrap()));
        } else {
            let (expected, value) = values.swap_remove(place % values.len());
            assert_eq!(*value, [expected; 68]);
        }
    }
    assert!(values.iter().all(|(expected, value)| **value == [*expected; 68]));
    drop(values);
    assert_eq!(open(slab), [0]);
}

#[test]
fn threads_take_places_of_the_same_pages() {
    let slab = slab::<Value>();
    let work = |thread: u64| {
        let mut values = Vec::new();
        for round in 0..500 {
            values.extend((0..5).map(|_| slab.try_place(|| [thread; 68]).unwrap()));
            values.drain(..if round % 7 == 0 { values.len() } else { 3 });
            assert!(values.iter().all(|value| **value == [thread; 68]));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || work(thread));
        }
    });
    assert_eq!(open(slab), [0]);
}
