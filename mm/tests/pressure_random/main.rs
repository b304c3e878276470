//! Random programs with everything at once: a few frames, swap, a file that is written back, memory that is shared,
//! forks, a heap that is full at times, disks that fail, answer late or not for a while. Each process sees its own words
//! and those of others in what they share, each denial has a reason, a flush leaves on the disk what was written, every
//! wait ends, if need be by a victim, and nothing is left at the end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../limited_heap/mod.rs"]
mod limited_heap;
mod process;
mod steps;
mod world;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use common::page;
use executor::{JoinHandle, host, spawn, time};
use mm::write_back::writer;
use mm::{Marks, reclaimer};
use process::Process;
use proptest::prelude::*;
use steps::{Step, Trouble, step, trouble};
use world::{COUNTS, FILE, PATIENCE, World};

/// A program takes milliseconds of the host's time. One that takes so long goes round in circles.
const HANG: Duration = Duration::from_secs(60);

async fn all_ended(world: &World) {
    loop {
        let Some(next) = world.running.lock().unwrap().pop() else { return };
        time::timeout(PATIENCE, next).await.expect("every wait ends").unwrap();
    }
}

async fn play((frames, marks): (usize, Marks), slots: u64, steps: Vec<Step>, troubles: Vec<(u64, Trouble)>) {
    let world = World::new(frames, marks, slots);
    let memory = world.machine.memory;
    let background =
        [spawn(async move { reclaimer(memory).await }), spawn(async move { writer(memory).await })];
    memory.set_dirty_limit(FILE as usize / 2);
    world.running.lock().unwrap().push(spawn(Process::first(world).run(steps)));
    world.make(troubles).await;
    all_ended(world).await;
    let done = std::mem::take(&mut *world.done.lock().unwrap());
    for process in done {
        process.check().await;
    }
    // The first is told what could not be stored before.
    let _kept = time::timeout(PATIENCE, world.file.flush()).await.expect("every wait ends");
    time::timeout(PATIENCE, world.file.flush()).await.expect("every wait ends").expect("the disk is well");
    for (index, word) in (0..).zip(&*world.words.lock().unwrap()) {
        let stored = world.disk.backing(page(index));
        assert_eq!(stored[..8], word.to_le_bytes(), "page {index} of the file");
    }
    drop(world.shared.lock().unwrap().take());
    memory.settle().await;
    let swap = memory.swap_stats().unwrap();
    COUNTS.swapped.fetch_add(swap.pages_out as usize, Relaxed);
    assert_eq!((swap.used_slots, swap.writing), (0, 0), "slots are left over");
    assert_eq!(memory.frames().stats().anonymous, 0, "pages are left over");
    background.iter().for_each(JoinHandle::abort);
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 500,
        max_shrink_time: 120_000,
        ..common::seed::config(40)
    })]

    #[test]
    fn with_everything_at_once_each_process_sees_its_own_words_and_every_wait_ends(
        steps in prop::collection::vec(step(), 1..150),
        troubles in prop::collection::vec(trouble(), 0..12),
        frames in 60..140usize,
        (reserve, low, high) in (1..5usize, prop_oneof![1..7usize, 7..40usize], 1..16usize),
        slots in prop_oneof![Just(0u64), 10..60u64, Just(400u64)],
    ) {
        // Each has a thread, and so a clock and a run queue, of its own.
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let _clock = host::simulate_time();
            host::block_on(play((frames, Marks { reserve, low: reserve + low, high: reserve + low + high }), slots, steps, troubles));
            // Then the thread's place is another one's.
            host::run_until_idle();
            let _heard = done.send(());
        });
        prop_assert_eq!(is_done.recv_timeout(HANG), Ok(()));
        if common::seed::is_long() {
            println!("{COUNTS:?}");
        }
    }
}
