//! What debug builds notice about frames: freed twice, written to after that, never given back.
#![cfg(debug_assertions)]

mod common;

use common::tasks::block_on;
use common::{Machine, PAGE};
use mm::{FramePool, FrameRun, PhysAddr, SubPool};

/// A frame as whoever keeps using it sees it when it is somebody else's.
#[allow(unsafe_code, reason = "the pool has to trust its caller")]
fn alias(frames: &'static FramePool, address: PhysAddr) -> FrameRun {
    // SAFETY: it is a frame of the pool's arena, and one thread uses it. That it is not the caller's any more is what the
    // tests are about.
    unsafe { frames.take_back(address, 1) }
}

/// Writes to a frame that may be somebody else's.
fn write(frames: &'static FramePool, address: PhysAddr, at: usize, byte: u8) {
    let mut alias = alias(frames, address);
    alias.as_bytes_mut()[at] = byte;
    alias.into_address();
}

/// Allocates all frames, and so the one in question.
fn take_all(frames: &'static FramePool) {
    std::iter::from_fn(|| frames.try_alloc()).for_each(std::mem::forget);
}

/// A frame whose name is known.
fn frame_1000(frames: &'static FramePool) -> PhysAddr {
    let all: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    let frame = all.into_iter().find(|frame| frame.number() == 0x3e8).expect("it is one of them");
    FrameRun::from(frame).into_address()
}

#[test]
#[should_panic(expected = "frame 0x3e8 is freed but nobody owned it")]
fn a_frame_that_is_freed_twice_is_named() {
    let frames = Machine::new(1500).memory.frames();
    let address = frame_1000(frames);
    drop(alias(frames, address));
    drop(alias(frames, address));
}

#[test]
#[should_panic(expected = "frame 0x3e8 is freed but nobody owned it")]
fn so_is_one_that_lies_in_a_cache() {
    let frames = Machine::new(1500).memory.frames();
    let address = frame_1000(frames);
    alias(frames, address).into_frames().for_each(drop);
    assert!(frames.stats().cached > 0);
    alias(frames, address).into_frames().for_each(drop);
}

#[test]
#[should_panic(expected = "frame 0x3e8 was written to after it was freed: 0x7 at address 0x3e8064")]
fn a_write_to_a_freed_frame_is_found_when_the_frame_is_allocated() {
    let frames = Machine::new(1500).memory.frames();
    let address = frame_1000(frames);
    drop(alias(frames, address));
    write(frames, address, 100, 7);
    take_all(frames);
}

#[test]
#[should_panic(expected = "frame 0x3e8 was written to after it was freed: 0x0 at address 0x3e8fff")]
fn so_is_one_to_the_last_byte_of_a_frame_in_the_middle_of_a_run() {
    let frames = Machine::new(1500).memory.frames();
    let address = frame_1000(frames);
    drop(alias(frames, address));
    write(frames, address, 4095, 0);
    while frames.try_alloc_contiguous(32, 1).map(FrameRun::into_address).is_some() {}
}

#[test]
#[should_panic(expected = "was written to after it was freed: 0x1 at address")]
fn so_is_one_to_a_frame_that_was_cleared_ahead() {
    let frames = Machine::new(700).memory.frames();
    assert!(frames.prepare_zeroed());
    let owned: Vec<_> = frames.owned().collect();
    // Nothing else in the arena is full of zeros and nobody's.
    let is_zero = |address: &PhysAddr| {
        let frame = alias(frames, *address);
        let is_zero = frame.as_bytes().iter().all(|&byte| byte == 0);
        frame.into_address();
        is_zero
    };
    let all = (2..900).map(|number| PhysAddr::new(number * PAGE));
    let prepared = all.filter(|address| !owned.contains(address)).find(is_zero).expect("there is one");
    write(frames, prepared, 8, 1);
    take_all(frames);
}

#[test]
fn frames_that_are_not_given_back_are_listed() {
    let frames = Machine::new(700).memory.frames();
    let before: Vec<_> = frames.owned().collect();
    let kept = frames.try_alloc().unwrap();
    let run = frames.try_alloc_contiguous(3, 1).unwrap();
    drop(frames.try_alloc());
    let mut lost: Vec<_> = frames.owned().filter(|frame| !before.contains(frame)).collect();
    let mut expected = vec![kept.address()];
    expected.extend((0..3).map(|at| PhysAddr::new(run.address().as_u64() + at * PAGE)));
    lost.sort();
    expected.sort();
    assert_eq!(lost, expected);
}

#[test]
#[should_panic(expected = "2 frames of the pool \"leaky\" were not returned")]
fn a_pool_that_is_dropped_says_how_many_frames_it_misses() {
    let frames = Machine::new(700).memory.frames();
    let pool = SubPool::new("leaky", frames, 5);
    for _ in 0..2 {
        std::mem::forget(pool.try_alloc().unwrap());
    }
    drop(pool.try_alloc().unwrap());
}

#[test]
fn a_pool_whose_frames_are_back_says_nothing() {
    let frames = Machine::new(700).memory.frames();
    let pool: &'static SubPool = Box::leak(Box::new(SubPool::new("whole", frames, 5)));
    let frame = block_on(pool.alloc()).unwrap();
    assert_eq!(pool.check().unwrap_err().to_string(), "1 frames of the pool \"whole\" were not returned");
    drop(frame);
    assert_eq!(pool.check(), Ok(()));
}
