//! Rounds: in which order tasks and threads are polled, and how often those with a nice factor.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::host::run_until_idle;
use executor::{Builder, Class, spawn, yield_now};

#[test]
fn one_thread_is_polled_after_each_round_of_tasks() {
    let order = Arc::new(std::sync::Mutex::new(String::new()));
    let worker = |class, letter: char, turns: usize| {
        let order = Arc::clone(&order);
        drop(Builder::new().class(class).spawn(async move {
            for _ in 0..turns {
                order.lock().unwrap().push(letter);
                yield_now().await;
            }
        }));
    };
    worker(Class::Thread, 'T', 2);
    worker(Class::Thread, 'U', 2);
    worker(Class::Task, 'a', 3);
    worker(Class::Task, 'b', 3);
    run_until_idle();
    assert_eq!(*order.lock().unwrap(), "abTabUabTU");
}

#[test]
fn a_nice_factor_gives_that_many_slots_a_round() {
    for class in [Class::Task, Class::Thread] {
        let order = Arc::new(std::sync::Mutex::new(String::new()));
        for (letter, nice) in [('a', 0), ('b', 3), ('c', 1)] {
            let order = Arc::clone(&order);
            drop(Builder::new().class(class).nice(nice).spawn(async move {
                for _ in 0..6 {
                    order.lock().unwrap().push(letter);
                    yield_now().await;
                }
            }));
        }
        run_until_idle();
        assert_eq!(*order.lock().unwrap(), "abbbcabbbcacacacac");
    }
}

#[test]
fn tasks_in_between_do_not_give_a_nice_thread_more_slots() {
    let order = Arc::new(std::sync::Mutex::new(String::new()));
    let count = Arc::new(());
    for (letter, nice) in [('b', 2), ('c', 1)] {
        let (order, count) = (Arc::clone(&order), Arc::clone(&count));
        drop(Builder::new().class(Class::Thread).nice(nice).spawn(async move {
            let _count = count;
            for _ in 0..4 {
                order.lock().unwrap().push(letter);
                yield_now().await;
            }
        }));
    }
    drop(spawn(async move {
        while Arc::strong_count(&count) > 1 {
            yield_now().await;
        }
    }));
    run_until_idle();
    assert_eq!(*order.lock().unwrap(), "bbcbbccc");
}

#[test]
fn a_task_of_an_absurd_nice_factor_starves_nobody() {
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let greedy = Builder::new().nice(255).spawn(async move {
        while seen.load(Ordering::Relaxed) < 2 {
            yield_now().await;
        }
    });
    for class in [Class::Task, Class::Thread] {
        let done = Arc::clone(&done);
        drop(Builder::new().class(class).spawn(async move {
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    assert!(run_until_idle() < 2_000);
    assert!(greedy.is_finished());
}

#[test]
fn work_that_is_ready_is_reported_without_threads() {
    drop(Builder::new().class(Class::Thread).spawn(async {}));
    assert!(!executor::has_work());
    assert!(executor::has_ready_thread());
    drop(spawn(async {}));
    assert!(executor::has_work());
    run_until_idle();
    assert!(!executor::has_work());
    assert!(!executor::has_ready_thread());
}

#[test]
fn a_panic_leaves_those_behind_it_ready_in_their_order() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let worker = |number: u32| {
        let order = Arc::clone(&order);
        drop(spawn(async move {
            order.lock().unwrap().push(number);
            assert!(number != 3, "the third");
        }));
    };
    // More than are dealt at a time: some stand in the queue behind those in the hand.
    (0..40).for_each(worker);
    let panicked = std::panic::catch_unwind(run_until_idle);
    assert!(panicked.is_err());
    run_until_idle();
    assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

#[test]
fn who_yields_lets_those_go_first_that_it_has_woken() {
    // Alone, and in a round with another one.
    for others in [0, 1] {
        let order = Arc::new(std::sync::Mutex::new(String::new()));
        let note = |letter: char| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(letter)
        };
        let woken = Arc::new(executor::sync::Notify::new());
        let (waiter, reached) = (Arc::clone(&woken), note('b'));
        drop(spawn(async move {
            waiter.notified().await;
            reached();
        }));
        run_until_idle();
        let [before, after] = [note('a'), note('c')];
        drop(spawn(async move {
            woken.notify_one();
            before();
            yield_now().await;
            after();
        }));
        (0..others).for_each(|_| drop(spawn(async {})));
        run_until_idle();
        assert_eq!(*order.lock().unwrap(), "abc", "with {others} others");
    }
}

#[test]
fn a_run_loop_that_ends_leaves_the_task_that_was_alone_in_its_queue() {
    let ended = Arc::new(AtomicUsize::new(0));
    let end = Arc::clone(&ended);
    drop(spawn(async move {
        for _ in 0..10 {
            yield_now().await;
        }
        end.store(1, Ordering::Relaxed);
    }));
    while ended.load(Ordering::Relaxed) == 0 {
        assert!(executor::has_work());
        assert!(executor::poll_one());
    }
    assert!(!executor::poll_one());
}

#[test]
fn a_drop_of_an_output_belongs_to_its_task() {
    struct Noisy(Arc<std::sync::Mutex<Option<&'static str>>>);
    impl Drop for Noisy {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = executor::current_task().map(|task| task.name());
        }
    }
    let seen = Arc::new(std::sync::Mutex::new(None));
    let noisy = Noisy(Arc::clone(&seen));
    drop(Builder::new().name("noisy").spawn(async move { noisy }));
    run_until_idle();
    assert_eq!(*seen.lock().unwrap(), Some("noisy"));
    assert!(executor::current_task().is_none());
}
