//! The frame pool: blocks, runs, waiting in order.

mod common;

use std::collections::HashSet;

use common::tasks::Tasks;
use common::{Machine, PAGE};

/// Frees frames that were turned into an address.
#[allow(unsafe_code, reason = "the pool has to trust its caller")]
fn take_back(frames: &'static mm::FramePool, address: mm::PhysAddr, count: usize) {
    // SAFETY: nobody uses the frames. A test that frees them twice is about being stopped before harm is done.
    drop(unsafe { frames.take_back(address, count) });
}

#[test]
fn every_frame_is_handed_out_once_and_comes_back() {
    let machine = Machine::new(700);
    let frames = machine.memory.frames();
    let total = machine.free();
    let mut taken = Vec::new();
    while let Some(mut frame) = frames.try_alloc() {
        frame.as_bytes_mut().fill(7);
        taken.push(frame);
    }
    assert_eq!(taken.len(), total);
    let numbers: HashSet<u64> = taken.iter().map(mm::Frame::number).collect();
    assert_eq!(numbers.len(), total);
    assert!(!numbers.contains(&0) && !numbers.contains(&1));
    assert_eq!(frames.stats().least_free, 0);
    drop(taken);
    assert_eq!(machine.free(), total);
    // All blocks merged again: a long run is there.
    assert!(frames.try_alloc_contiguous(256, 256).is_some());
    assert_eq!(machine.free(), total);
}

#[test]
fn a_run_is_contiguous_aligned_and_no_larger_than_asked() {
    let machine = Machine::new(700);
    let frames = machine.memory.frames();
    let before = machine.free();
    let mut runs = Vec::new();
    for (length, align) in [(1, 1), (3, 1), (5, 8), (33, 16), (2, 64)] {
        let mut run = frames.try_alloc_contiguous(length, align).unwrap();
        assert_eq!(run.address().as_u64() % (align as u64 * PAGE), 0);
        run.as_bytes_mut().fill(length as u8);
        runs.push((run, length));
    }
    assert_eq!(machine.free(), before - (1 + 3 + 5 + 33 + 2));
    for (run, length) in &runs {
        assert!(run.as_bytes().iter().all(|&byte| byte == *length as u8));
        assert_eq!(run.as_bytes().len(), length * PAGE as usize);
    }
    assert!(frames.try_alloc_contiguous(1 << 20, 1).is_none());
    assert!(frames.try_alloc_contiguous(usize::MAX, 1).is_none());
    drop(runs);
    assert_eq!(machine.free(), before);
}

#[test]
fn a_run_can_be_kept_as_an_address_and_given_back_in_parts() {
    let machine = Machine::new(200);
    let frames = machine.memory.frames();
    let before = machine.free();
    let address = frames.try_alloc_contiguous(6, 1).unwrap().into_address();
    assert_eq!(machine.free(), before - 6);
    take_back(frames, address, 2);
    take_back(frames, mm::PhysAddr::new(address.as_u64() + 2 * PAGE), 4);
    assert_eq!(machine.free(), before);
}

#[test]
fn a_large_page_is_cut_and_put_together_again() {
    let machine = Machine::new(3300);
    let frames = machine.memory.frames();
    let before = machine.free();
    let mut page = frames.try_alloc_large().unwrap();
    let address = page.address();
    assert!(page.is_large());
    page.as_bytes_mut().fill(1);
    let rest = page.split_off(200).unwrap();
    assert!(page.split_off(0).is_none() && page.split_off(200).is_none());
    assert_eq!((page.frames(), rest.frames()), (200, 312));
    assert_eq!(rest.address().as_u64(), address.as_u64() + 200 * PAGE);
    assert!(!page.is_large() && rest.as_bytes().iter().all(|&byte| byte == 1));
    let mut last = rest;
    let end = last.split_off(1).unwrap();
    let middle = std::mem::replace(&mut last, end);
    // Only what follows is put behind.
    let last = page.append(last).unwrap_err();
    assert_eq!((page.frames(), last.frames()), (200, 311));
    page.append(middle).unwrap();
    page.append(last).unwrap();
    assert!(page.is_large() && page.address() == address);
    let mut parts = page.into_frames();
    assert_eq!(parts.len(), 512);
    let kept: Vec<_> = parts.by_ref().take(5).collect();
    assert_eq!(kept[4].address().as_u64(), address.as_u64() + 4 * PAGE);
    drop(parts);
    assert_eq!(machine.free(), before - 5);
    drop(kept);
    assert_eq!(machine.free(), before);
    let mut longer = frames.try_alloc_contiguous(1024, 512).unwrap();
    let mut shifted = longer.split_off(1).unwrap();
    drop(shifted.split_off(512));
    assert_eq!((shifted.frames(), shifted.is_large()), (512, false), "it is no multiple of its size");
    drop((longer, shifted));
    let pages: Vec<_> = std::iter::from_fn(|| frames.try_alloc_large()).collect();
    assert!(pages.iter().any(|page| page.address() == address), "all is one again");
}

#[test]
fn runs_of_two_machines_are_not_put_together() {
    let [mut one, two] = [400, 400].map(|frames| {
        let frames = Machine::new(frames).memory.frames();
        frames.try_alloc_contiguous(8, 8).unwrap()
    });
    assert_eq!(one.address(), two.address());
    let rest = one.split_off(4).unwrap();
    let mut two = two;
    let alien = two.split_off(4).unwrap();
    assert!(one.append(alien).is_err());
    assert!(one.append(rest).is_ok());
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "nobody owned it")]
fn freeing_twice_is_noticed() {
    let machine = Machine::new(200);
    let frames = machine.memory.frames();
    let address = frames.try_alloc_contiguous(1, 1).unwrap().into_address();
    take_back(frames, address, 1);
    take_back(frames, address, 1);
}

#[test]
fn a_zeroed_frame_is_zero_whatever_was_in_it() {
    let machine = Machine::new(400);
    let frame = machine.memory.frames().try_alloc_zeroed().unwrap();
    assert!(frame.as_bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn who_waits_for_a_frame_is_served_in_order() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let mut tasks = Tasks::default();
    let waiters: Vec<_> = (0..4).map(|_| tasks.spawn(frames.alloc())).collect();
    tasks.run();
    assert_eq!(frames.stats().waiting, 4);
    tasks.kill(&waiters[1]);
    assert_eq!(frames.stats().waiting, 3);
    for next in [0, 2, 3] {
        assert!(!waiters[next].is_done());
        taken.pop();
        tasks.run();
        let frame = waiters[next].take().unwrap_or_else(|| panic!("waiter {next}"));
        taken.push(frame.unwrap());
    }
}

#[test]
fn a_latecomer_does_not_overtake() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let mut tasks = Tasks::default();
    let early = tasks.spawn(frames.alloc());
    tasks.run();
    let late = tasks.spawn(frames.alloc());
    taken.pop();
    // The latecomer is polled first.
    tasks.run_by(|woken| woken[woken.len() - 1]);
    assert!(early.is_done() && !late.is_done());
}

#[test]
fn a_waiter_that_goes_after_it_was_woken_passes_its_turn_on() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let mut tasks = Tasks::default();
    let first = tasks.spawn(frames.alloc());
    let second = tasks.spawn(frames.alloc());
    tasks.run();
    taken.pop();
    tasks.kill(&first);
    tasks.run();
    assert!(matches!(second.take(), Some(Ok(_))));
}

#[test]
fn a_frame_promised_to_one_who_is_gone_is_anybodys() {
    let machine = Machine::new(400);
    let frames = machine.memory.frames();
    let mut taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let mut tasks = Tasks::default();
    let gone = tasks.spawn(frames.alloc());
    tasks.run();
    taken.pop();
    assert!(frames.try_alloc().is_none(), "it is promised");
    tasks.kill(&gone);
    taken.push(frames.try_alloc().expect("the promise is void"));
    // Nothing of it is left that another one could take for an answer.
    let next = tasks.spawn(frames.alloc());
    tasks.run();
    assert!(!next.is_done());
    taken.pop();
    tasks.run();
    assert!(matches!(next.take(), Some(Ok(_))));
}
