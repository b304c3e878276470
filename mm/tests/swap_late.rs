//! Swap that is turned on late, while memory is short already: the pages that were there before are listed first, some at
//! a time, and nobody is ended for memory before it is known whether they can leave.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::cpus::poll_once;
use common::shown::RW;
use common::tasks::block_on;
use common::victims::Spaces;
use common::{Machine, PAGE, address};
use executor::{host, spawn, time, yield_now};
use mm::{Marks, Placement, TestStore, reclaimer};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 3000;

#[test]
fn nobody_is_ended_before_all_older_memory_is_listed_however_long_others_compute_in_between() {
    let machine = Machine::with_table_frames(PAGES as usize + 40, 200);
    let frames = machine.memory.frames();
    frames.set_marks(Marks { reserve: 4, low: 10, high: 20 });
    let victims: &'static Spaces = Box::leak(Box::default());
    machine.memory.set_victims(victims);
    let clock = host::simulate_time();
    host::block_on(async {
        let space = machine.user_space();
        space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
        for page in 0..PAGES {
            machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
        }
        victims.all.lock().unwrap().push(space.clone());
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        machine.memory.swap_on(TestStore::new(PAGES)).unwrap();
        machine.forget_translations();
        let waiter = spawn(frames.alloc());
        let background = spawn(reclaimer(machine.memory));
        // Whoever is ready besides computes for a slot in each turn.
        let begun = time::now();
        while !waiter.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody is answered");
            clock.advance(Duration::from_millis(20));
            yield_now().await;
        }
        assert!(waiter.await.unwrap().is_ok());
        assert!(victims.ended.lock().unwrap().is_empty(), "its pages can leave for swap");
        assert!(begun.elapsed() > Duration::from_millis(400), "it was over too soon to show anything");
        background.abort();
    });
}

#[test]
fn pages_leave_though_another_cpu_computes_for_longer_than_a_turn_each_time() {
    const MOST_POLLS: usize = 20;
    host::block_on_cpus(2, async {
        let machine = Machine::with_cpus(300);
        let frames = machine.memory.frames();
        frames.set_marks(Marks { reserve: 4, low: 10, high: 20 });
        let victims: &'static Spaces = Box::leak(Box::default());
        machine.memory.set_victims(victims);
        machine.memory.swap_on(TestStore::new(100)).unwrap();
        let space = machine.user_space();
        space.map_anonymous(50, RW, Placement::Fixed(address(BASE))).unwrap();
        for page in 0..50 {
            machine.write(&space, BASE + page * PAGE, page + 1).await.unwrap();
        }
        victims.all.lock().unwrap().push(space.clone());
        machine.forget_translations();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        // All CPUs are waited for until the next of its polls begins.
        let here = executor::current_cpu();
        let other = executor::cpus().map(executor::CpuLocal::id).find(|&cpu| cpu != here);
        let (begins, begun) = std::sync::mpsc::channel();
        let computes = executor::Builder::new().cpu(other.unwrap()).spawn(async move {
            loop {
                machine.begin_poll();
                let _told = begins.send(());
                std::thread::sleep(Duration::from_millis(300));
                yield_now().await;
            }
        });
        while begun.try_recv().is_err() {
            yield_now().await;
        }
        let background = executor::Builder::new().cpu(here).spawn(reclaimer(machine.memory));
        let waiter = executor::Builder::new().cpu(here).spawn(frames.alloc());
        let mut polls = 0;
        while !waiter.is_finished() {
            polls += begun.try_iter().count();
            assert!(polls < MOST_POLLS, "no page leaves");
            yield_now().await;
        }
        assert!(polls > 0, "it was over too soon to show anything");
        assert!(waiter.await.unwrap().is_ok());
        assert!(victims.ended.lock().unwrap().is_empty(), "its pages can leave for swap");
        computes.abort();
        background.abort();
    });
}

#[test]
fn one_poll_lists_no_more_pages_where_there_are_many_versions() {
    const VERSIONS: u64 = 16;
    const EACH: u64 = 64;
    let machine = Machine::new(2000);
    block_on(async move {
        let space = machine.user_space();
        space.map_anonymous(EACH, RW, Placement::Fixed(address(BASE))).unwrap();
        let mut twins = Vec::new();
        for version in 0..VERSIONS {
            for page in 0..EACH {
                machine.write(&space, BASE + page * PAGE, version * 1000 + page).await.unwrap();
            }
            twins.push(space.fork(machine.empty_table()).await.unwrap());
        }
        machine.memory.swap_on(TestStore::new(VERSIONS * EACH)).unwrap();
        let listed = || machine.memory.frames().stats().anonymous as u64;
        assert!(poll_once(pin!(mm::swap_out(machine.memory, 1))).is_pending());
        assert!((1..=EACH).contains(&listed()), "{} pages are listed by one poll", listed());
        machine.forget_translations();
        let left = mm::swap_out(machine.memory, 1).await as u64;
        assert_eq!((left > 0, listed()), (true, VERSIONS * EACH - left), "each of them once");
        for (version, twin) in (0..).zip(&twins) {
            for page in 0..EACH {
                assert_eq!(machine.read(twin, BASE + page * PAGE).await, Ok(version * 1000 + page));
            }
        }
    });
}
