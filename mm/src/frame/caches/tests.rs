//! What CPUs do in the middle of giving a frame back, and when the reclaimer is told.

use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::vec::Vec;

use super::*;
use crate::Frame;
use crate::window::arena;

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The cache of a CPU that is not this one.
fn other(frames: &'static FramePool) -> &'static Cache {
    &frames.caches.of_cpus[(current_cpu() as usize + 1) % CACHES]
}

/// As another CPU that has seen the caches open, and comes to its own only now.
fn give_late(frames: &'static FramePool, frame: Frame) {
    let number = frame.into_number();
    frames.checks.takes_back(number, 1);
    assert!(other(frames).lock().push(number));
}

#[test]
fn an_empty_memory_finds_a_frame_in_another_cpus_cache() {
    let frames = arena::memory(400).frames();
    let mut taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    give_late(frames, taken.pop().expect("all are taken"));
    assert_eq!(frames.stats().free, 1);
    let Poll::Ready(Ok(frame)) = poll_once(pin!(frames.alloc())) else { panic!("a frame is free") };
    taken.push(frame);
    give_late(frames, taken.pop().expect("all are taken"));
    taken.push(frames.try_alloc().expect("a frame is free"));
    assert_eq!(frames.stats().free, 0);
}

#[test]
fn who_begins_to_wait_is_promised_what_lies_in_a_cache() {
    let frames = arena::memory(400).frames();
    let mut taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    give_late(frames, taken.pop().expect("all are taken"));
    let Err(_applicant) = frames.apply() else { panic!("the lists have none") };
    assert_eq!(frames.lists.lock().applicants.promised, 1);
    assert!(frames.try_alloc().is_none());
}

#[test]
fn nobody_is_refused_while_a_frame_lies_in_a_cache() {
    let frames = arena::memory(400).frames();
    let mut taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    let mut waits = pin!(frames.alloc());
    assert!(poll_once(waits.as_mut()).is_pending());
    give_late(frames, taken.pop().expect("all are taken"));
    assert!(!frames.name_victim(), "there is a frame for the only one who waits");
    assert!(matches!(poll_once(waits.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn while_somebody_waits_or_was_promised_a_frame_caches_are_closed() {
    let frames = arena::memory(400).frames();
    let taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).collect();
    {
        let mut waits = pin!(frames.alloc());
        assert!(poll_once(waits.as_mut()).is_pending());
        drop(taken);
        assert!(!frames.caches.are_open(), "there is plenty, but one of them is promised");
        assert_eq!(frames.caches.count_all(), 0);
        assert!(matches!(poll_once(waits.as_mut()), Poll::Ready(Ok(_))));
    }
    drop(frames.try_alloc_contiguous(2, 1));
    assert!(frames.caches.are_open());
}

#[test]
fn while_somebody_looks_for_a_block_caches_stay_closed() {
    let frames = arena::memory(400).frames();
    let change = |gathering| {
        let mut guarded = frames.lists.lock();
        guarded.gathering = gathering;
        frames.close(&guarded);
    };
    assert!(frames.caches.are_open());
    change(1);
    drop(frames.try_alloc_contiguous(2, 1));
    drop(frames.try_alloc());
    assert_eq!((frames.caches.are_open(), frames.caches.count_all()), (false, 0));
    change(0);
    drop(frames.try_alloc_contiguous(2, 1));
    assert!(frames.caches.are_open());
}

#[test]
fn the_fewest_free_frames_follow_the_caches_when_they_are_read() {
    let frames = arena::memory(400).frames();
    let before = frames.stats();
    let taken: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).take(BATCH / 2).collect();
    let stats = frames.stats();
    assert!(stats.cached > 0, "the lists were visited once");
    assert_eq!(stats.least_free, before.free - BATCH / 2);
    drop(taken);
    assert_eq!(frames.stats().least_free, stats.least_free);
}

#[test]
fn the_reclaimer_is_told_at_the_low_mark_and_not_before() {
    let frames = arena::memory(700).frames();
    let stats = frames.stats();
    let mut taken = Vec::new();
    // Some lie in another CPU's cache all the while.
    let late: Vec<_> = core::iter::from_fn(|| frames.try_alloc()).take(20).collect();
    late.into_iter().for_each(|frame| give_late(frames, frame));
    let mut short = pin!(frames.wait_until_short());
    for free in (0..stats.total).rev() {
        taken.extend(frames.try_alloc());
        assert_eq!(frames.stats().free, free);
        if free < stats.low {
            assert!(poll_once(short.as_mut()).is_ready(), "{free} are free");
            break;
        }
        assert!(poll_once(short.as_mut()).is_pending(), "{free} are free");
    }
    assert_eq!(frames.stats().least_free, stats.low - 1);
}
