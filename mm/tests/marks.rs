//! Marks of a pool: who takes frames down to which mark, and who is served first.

mod common;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, content, page};
use executor::host;
use mm::{AddressSpace, Frame, Marks, Placement, Protection, Victims, VmObject, reclaimer};

const MARKS: Marks = Marks { reserve: 10, low: 20, high: 40 };

fn machine() -> &'static Machine {
    let machine = Machine::new(200);
    machine.memory.frames().set_marks(MARKS);
    machine
}

/// Takes what does not wait until so many frames are free.
fn take_until(machine: &'static Machine, free: usize) -> Vec<Frame> {
    let all =
        std::iter::from_fn(|| (machine.free() > free).then(|| machine.memory.frames().try_alloc()).flatten());
    let taken: Vec<_> = all.collect();
    assert_eq!(machine.free(), free);
    taken
}

#[test]
fn a_pool_begins_without_a_reserve() {
    let frames = Machine::new(700).memory.frames();
    let (marks, stats) = (frames.marks(), frames.stats());
    assert_eq!(marks, Marks::of(stats.total).without_reserve());
    assert_eq!((stats.reserve, stats.low, stats.high), (0, marks.low, marks.high));
    assert!(marks.low >= 4 && marks.high > marks.low);
}

#[test]
fn only_who_writes_pages_out_gets_frames_of_the_reserve() {
    let machine = machine();
    let frames = machine.memory.frames();
    let taken = take_until(machine, 10);
    assert!(frames.try_alloc().is_none() && frames.try_alloc_zeroed().is_none());
    assert!(frames.try_alloc_contiguous(1, 1).is_none());
    let mut tasks = Tasks::default();
    let waiting = tasks.spawn(frames.alloc());
    tasks.run();
    assert!(!waiting.is_done());
    let reserved: Vec<_> = std::iter::from_fn(|| frames.try_alloc_reserved()).collect();
    assert_eq!((reserved.len(), machine.free()), (10, 0));
    tasks.kill(&waiting);
    drop((taken, reserved));
    // The others stop above it when frames lie in the caches of CPUs, too.
    let runs: Vec<_> = std::iter::from_fn(|| frames.try_alloc_contiguous(16, 1)).collect();
    let single: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
    assert_eq!(machine.free(), 10, "beside {} runs and {} frames", runs.len(), single.len());
}

#[test]
fn what_comes_back_fills_the_reserve_before_those_who_wait() {
    let machine = machine();
    let frames = machine.memory.frames();
    let mut taken = take_until(machine, 10);
    let mut reserved: Vec<_> = (0..3).map(|_| frames.try_alloc_reserved().unwrap()).collect();
    let mut tasks = Tasks::default();
    let waiting = [tasks.spawn(frames.alloc()), tasks.spawn(frames.alloc())];
    tasks.run();
    // Whoever gives them back: three fill the reserve.
    reserved.pop();
    taken.truncate(taken.len() - 2);
    tasks.run();
    assert_eq!((machine.free(), waiting[0].is_done()), (10, false));
    reserved.pop();
    tasks.run();
    let [first, second] = &waiting;
    assert!(matches!(first.take(), Some(Ok(_))) && !second.is_done());
    // Frames of the reserve are for writing out also while somebody waits.
    assert!(frames.try_alloc_reserved().is_some());
    tasks.kill(second);
}

#[test]
fn who_writes_pages_out_leaves_a_frame_that_was_promised() {
    let machine = machine();
    let frames = machine.memory.frames();
    let mut taken = take_until(machine, 10);
    let mut tasks = Tasks::default();
    let waiting = tasks.spawn(frames.alloc());
    tasks.run();
    taken.pop();
    let reserved: Vec<_> = std::iter::from_fn(|| frames.try_alloc_reserved()).collect();
    assert_eq!((reserved.len(), machine.free()), (10, 1));
    tasks.run();
    assert!(matches!(waiting.take(), Some(Ok(_))));
}

#[test]
fn a_smaller_reserve_serves_those_who_wait_in_order() {
    let machine = machine();
    let frames = machine.memory.frames();
    let _taken = take_until(machine, 10);
    let mut tasks = Tasks::default();
    let waiting: Vec<_> = (0..3).map(|_| tasks.spawn(frames.alloc())).collect();
    tasks.run();
    // Those that are promised by the first are not promised again by the second.
    frames.set_marks(Marks { reserve: 8, ..MARKS });
    frames.set_marks(Marks { reserve: 8, ..MARKS });
    tasks.run();
    let served: Vec<_> = waiting.iter().map(|waiter| waiter.is_done()).collect();
    assert_eq!(served, [true, true, false]);
    frames.set_marks(Marks::NONE);
    tasks.run();
    assert!(waiting[2].is_done());
}

#[test]
#[should_panic(expected = "marks in order")]
fn a_reserve_above_the_low_mark_is_refused() {
    Machine::new(100).memory.frames().set_marks(Marks { reserve: 21, ..MARKS });
}

#[test]
fn where_nobody_reclaims_the_low_mark_holds_nobody_up() {
    let machine = machine();
    let frames = machine.memory.frames();
    let _taken = take_until(machine, 12);
    let got = block_on(async { [frames.alloc().await, frames.alloc().await] });
    assert!(got.iter().all(Result::is_ok));
    assert_eq!(machine.free(), 10);
}

#[test]
fn below_the_low_mark_a_page_waits_and_what_cannot_wait_does_not() {
    let machine = machine();
    let frames = machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        executor::yield_now().await;
        let _taken = take_until(machine, 20);
        let mut tasks = Tasks::default();
        let first = tasks.spawn(frames.alloc());
        tasks.run();
        let urgent = frames.try_alloc();
        assert!(!first.is_done() && urgent.is_some());
        assert_eq!(frames.stats().waiting, 1);
        // There is nothing to give back, so it gets what is free above the reserve, and is no victim.
        executor::time::sleep(core::time::Duration::from_millis(1)).await;
        tasks.run();
        assert!(matches!(first.take(), Some(Ok(_))));
        background.abort();
    });
}

#[test]
fn pages_leave_what_is_below_the_low_mark_to_others_while_anything_can_be_given_back() {
    let machine = machine();
    let object = VmObject::new(machine.memory, machine.pager(), 1000);
    let space = machine.window();
    let start = space.map(&object, page(0), 1000, Protection::READ, Placement::Anywhere).unwrap();
    // The tables are there before.
    let touched = space.clone();
    block_on(async move {
        for index in (0..1000).step_by(400) {
            machine.read(&touched, start.as_u64() + index * PAGE).await.unwrap();
        }
    });
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        executor::yield_now().await;
        let readers: Vec<_> = (0..4)
            .map(|part| {
                let space = space.clone();
                executor::spawn(async move {
                    for index in part * 250..(part + 1) * 250 {
                        let read = machine.read(&space, start.as_u64() + index * PAGE).await;
                        assert_eq!(read, Ok(content(index)));
                        executor::yield_now().await;
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        background.abort();
    });
    assert!(machine.memory.stats().evictions > 700);
    let least = machine.memory.frames().stats().least_free;
    // The first look finds all pages in use, and each of the readers gets one of those below the mark.
    assert!(least >= MARKS.low - 4, "{least} were free");
}

#[test]
fn all_who_wait_are_served_where_one_round_of_reclaim_is_not_enough() {
    let machine = machine();
    let frames = machine.memory.frames();
    let object = VmObject::new(machine.memory, machine.pager(), 100);
    let _clock = host::simulate_time();
    host::block_on(async move {
        for index in 0..100 {
            object.read(index * PAGE, &mut [0; 8]).await.unwrap();
        }
        let background = executor::spawn(reclaimer(machine.memory));
        executor::yield_now().await;
        let mut pages = Vec::new();
        while machine.free() > MARKS.low {
            pages.push(frames.alloc().await.unwrap());
        }
        let waiting: Vec<_> = (0..50).map(|_| executor::spawn(frames.alloc())).collect();
        for frame in waiting {
            let frame = executor::time::timeout(Duration::from_secs(10), frame).await;
            pages.push(frame.expect("nobody is left behind").unwrap().unwrap());
        }
        background.abort();
    });
}

/// Knows of nobody who could give way, and notes how many frames are free when that is asked for the first time.
struct Nobody {
    machine: &'static Machine,
    free: OnceLock<usize>,
}

impl Victims for Nobody {
    fn each_space(&self, _told: &mut dyn FnMut(&Arc<AddressSpace>)) {
        self.free.get_or_init(|| self.machine.free());
    }

    fn end(&self, _space: &Arc<AddressSpace>, _pages: u64) {
        unreachable!("it was told of none");
    }
}

#[test]
fn pages_leave_half_of_what_is_above_the_reserve_unless_nobody_gives_way() {
    let machine = machine();
    let frames = machine.memory.frames();
    let nobody: &'static Nobody = Box::leak(Box::new(Nobody { machine, free: OnceLock::new() }));
    machine.memory.set_victims(nobody);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        executor::yield_now().await;
        let mut pages = Vec::new();
        while let Ok(frame) = frames.alloc().await {
            pages.push(frame);
        }
        assert_eq!((nobody.free.get(), machine.free()), (Some(&15), 10));
        assert!(frames.try_alloc().is_none(), "the rest is the reserve");
        background.abort();
    });
}
