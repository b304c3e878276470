//! Orders of ready tasks. The order is one for the whole process, so this is one test.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use executor::host::{block_on, run_until_idle};
use executor::{Builder, Class, Order, TaskRef, set_order, yield_now};

/// By the first letter of the name.
struct ByName;

impl Order for ByName {
    fn rank(&self, task: &TaskRef) -> u64 {
        task.name().bytes().next().map_or(0, u64::from)
    }
}

/// Spawns tasks of these names, each of which writes its own down twice.
fn tasks(names: &[&'static str], log: &Arc<Mutex<Vec<&'static str>>>) {
    for &name in names {
        let log = Arc::clone(log);
        let twice = async move {
            for _ in 0..2 {
                log.lock().unwrap().push(name);
                yield_now().await;
            }
        };
        drop(Builder::new().name(name).spawn(twice));
    }
}

fn taken(log: &Mutex<Vec<&'static str>>) -> String {
    std::mem::take(&mut *log.lock().unwrap()).concat()
}

#[test]
fn an_order_says_who_is_polled_next() {
    let log = Arc::default();
    tasks(&["c", "a1", "b", "a2"], &log);
    run_until_idle();
    assert_eq!(taken(&log), "ca1ba2ca1ba2", "without one it is the order in which they were ready");

    set_order(Some(&ByName));
    tasks(&["c", "a1", "b", "a2"], &log);
    run_until_idle();
    assert_eq!(taken(&log), "a1a2a1a2bbcc", "who yields and has the lowest rank goes on; equals take turns");

    // What a task spawns may come before those that were ready first.
    let inner = Arc::clone(&log);
    drop(Builder::new().name("b").spawn(async move { tasks(&["a", "c"], &inner) }));
    tasks(&["d"], &log);
    run_until_idle();
    assert_eq!(taken(&log), "aaccdd");

    // Threads have their turn even though a task is always ready.
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let thread = async move {
        for _ in 0..3 {
            counted.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    };
    drop(Builder::new().class(Class::Thread).spawn(thread));
    let waits = Arc::clone(&turns);
    block_on(async move {
        let mut polls = 0;
        while waits.load(Ordering::Relaxed) < 3 {
            polls += 1;
            assert!(polls < 100, "the thread starves");
            yield_now().await;
        }
    });

    set_order(None);
    tasks(&["b", "a"], &log);
    run_until_idle();
    assert_eq!(taken(&log), "baba");
}
