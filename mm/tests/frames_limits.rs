//! Pools with limits of their own.

mod common;

use std::sync::{Arc, Barrier};

use common::Machine;
use common::tasks::Tasks;
use mm::{DrawError, FramePool, OutOfMemory, SubPool};

fn pool(frames: &'static FramePool, limit: usize) -> &'static SubPool {
    Box::leak(Box::new(SubPool::new("test", frames, limit)))
}

#[test]
fn a_pool_gives_no_more_than_its_limit_and_what_comes_back_again() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let pool = pool(frames, 5);
    let before = machine.free();
    let mut drawn: Vec<_> = (0..5).map(|_| pool.try_alloc().unwrap()).collect();
    assert_eq!(pool.try_alloc().unwrap_err(), DrawError::AtLimit);
    assert_eq!((pool.in_use(), pool.limit(), machine.free()), (5, 5, before - 5));
    drawn.pop();
    drawn.push(pool.try_alloc().unwrap());
    assert_eq!(pool.try_alloc().unwrap_err(), DrawError::AtLimit);
    drop(drawn);
    assert_eq!((pool.in_use(), machine.free()), (0, before));
}

#[test]
fn a_run_counts_with_all_its_frames() {
    let frames = Machine::new(400).memory.frames();
    let pool = pool(frames, 10);
    let run = pool.try_alloc_contiguous(8, 8).unwrap();
    assert_eq!(pool.in_use(), 8);
    assert_eq!(pool.try_alloc_contiguous(3, 1).unwrap_err(), DrawError::AtLimit);
    assert_eq!(pool.try_alloc_contiguous(usize::MAX, 1).unwrap_err(), DrawError::AtLimit);
    drop(run);
    assert!(pool.try_alloc_contiguous(3, 1).is_ok());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_pool_at_its_limit_harms_nobody_else() {
    let frames = Machine::new(400).memory.frames();
    let (full, other) = (pool(frames, 1), pool(frames, 1));
    let held = full.try_alloc().unwrap();
    let mut tasks = Tasks::default();
    let waits = tasks.spawn(full.alloc());
    tasks.run();
    assert!(!waits.is_done());
    assert_eq!(frames.stats().waiting, 0, "nobody waits for the machine's memory");
    assert!(other.try_alloc().is_ok() && frames.try_alloc().is_some());
    drop(held);
    tasks.run();
    assert!(waits.take().is_some_and(|frame| frame.is_ok()));
}

#[test]
fn who_waits_at_the_limit_is_served_in_order_and_may_go() {
    let frames = Machine::new(400).memory.frames();
    let pool = pool(frames, 1);
    let mut held = Some(pool.try_alloc().unwrap());
    let mut tasks = Tasks::default();
    let waits: Vec<_> = (0..3).map(|_| tasks.spawn(pool.alloc())).collect();
    tasks.run();
    tasks.kill(&waits[1]);
    for next in [0, 2] {
        assert!(!waits[next].is_done());
        drop(held.take());
        tasks.run();
        held = waits[next].take().map(Result::unwrap);
        assert!(held.is_some(), "waiter {next}");
    }
    drop(held);
    assert_eq!(pool.check(), Ok(()));
}

#[test]
fn a_pool_below_its_limit_finds_and_waits_for_the_machines_memory() {
    let frames = Machine::new(400).memory.frames();
    let pool = pool(frames, 2);
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    assert_eq!(pool.try_alloc().unwrap_err(), DrawError::OutOfMemory);
    assert_eq!(pool.in_use(), 0, "what was not drawn does not count");
    let mut tasks = Tasks::default();
    let waits = tasks.spawn(pool.alloc());
    tasks.run();
    assert_eq!((pool.in_use(), frames.stats().waiting), (1, 1));
    tasks.kill(&waits);
    assert_eq!((pool.in_use(), frames.stats().waiting), (0, 0));
    let waits = tasks.spawn(pool.alloc());
    tasks.run();
    taken.pop();
    tasks.run();
    assert!(waits.take().is_some_and(|frame| frame.is_ok()));
}

#[test]
fn a_frame_that_leaves_the_pool_is_the_machines() {
    let machine = Machine::new(400);
    let pool = pool(machine.memory.frames(), 1);
    let before = machine.free();
    let mut drawn = pool.try_alloc().unwrap();
    drawn.as_bytes_mut().fill(3);
    let frame = drawn.into_inner();
    assert_eq!((pool.in_use(), machine.free()), (0, before - 1));
    assert!(pool.try_alloc().is_ok());
    assert!(frame.as_bytes().iter().all(|&byte| byte == 3));
}

#[test]
fn a_pool_of_nothing_has_nothing_and_nobody_waits_for_it() {
    let pool = pool(Machine::new(400).memory.frames(), 0);
    assert_eq!(pool.try_alloc().unwrap_err(), DrawError::AtLimit);
    assert_eq!(common::tasks::block_on(pool.alloc()).unwrap_err(), OutOfMemory);
}

#[test]
fn many_cpus_never_draw_more_than_the_limit() {
    const LIMIT: usize = 7;
    let machine = Machine::new(700);
    let pool = pool(machine.memory.frames(), LIMIT);
    let before = machine.free();
    let barrier = Arc::new(Barrier::new(4));
    let threads = (0..4).map(|_| {
        let barrier = barrier.clone();
        std::thread::spawn(move || {
            barrier.wait();
            let mut most = 0;
            for round in 0..2_000 {
                let drawn: Vec<_> = (0..1 + round % LIMIT).map_while(|_| pool.try_alloc().ok()).collect();
                most = most.max(pool.in_use());
                drop(drawn);
            }
            most
        })
    });
    let threads: Vec<_> = threads.collect();
    let most = threads.into_iter().map(|thread| thread.join().unwrap()).max();
    assert!(most <= Some(LIMIT), "{most:?}");
    assert_eq!((pool.in_use(), machine.free()), (0, before));
}
