//! The spin lock.
#![cfg(not(loom))]

use std::sync::Arc;

use executor::lock::{SpinLock, held_guard, without_interrupts};

#[test]
fn the_innermost_guard_is_named() {
    let (outer, inner) = (SpinLock::new("outer", 1), SpinLock::new("inner", 2));
    assert_eq!(held_guard(), None);
    let first = outer.lock();
    assert_eq!(held_guard(), Some("outer"));
    {
        let _second = inner.lock();
        assert_eq!(held_guard(), Some("inner"));
    }
    assert_eq!(held_guard(), Some("outer"));
    assert!(outer.try_lock().is_none());
    assert_eq!(held_guard(), Some("outer"));
    drop(first);
    assert_eq!(held_guard(), None);
}

#[test]
fn guards_dropped_out_of_order_leave_no_name_of_a_lock_that_is_gone() {
    let (a, b, c) = (SpinLock::new("a", ()), SpinLock::new("b", ()), SpinLock::new("c", ()));
    let (in_a, in_b, in_c) = (a.lock(), b.lock(), c.lock());
    drop(in_b);
    assert_ne!(held_guard(), Some("b"));
    drop(in_c);
    assert_ne!(held_guard(), Some("b"));
    assert!(held_guard().is_some());
    drop(in_a);
    assert_eq!(held_guard(), None);
}

#[test]
fn threads_exclude_one_another() {
    let lock = Arc::new(SpinLock::new("count", 0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                for _ in 0..10_000 {
                    *lock.lock() += 1;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*lock.lock(), 40_000);
}

#[test]
fn sections_without_interrupts_nest() {
    let lock = SpinLock::new("nested", 5);
    assert_eq!(without_interrupts(|| without_interrupts(|| *lock.lock())), 5);
}
