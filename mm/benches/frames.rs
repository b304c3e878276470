//! What a frame costs: the instructions of an operation, counted by callgrind, and its time.

#[path = "../tests/common/mod.rs"]
mod common;
mod counted;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::Machine;
use mm::FramePool;

/// Operations of the smaller run.
const OPERATIONS: usize = 20_000;
/// How often the time is taken.
const RUNS: usize = 7;

/// Frames of the machine: enough for its caches to be open.
const FRAMES: usize = 4096;

type Workload = fn(&'static FramePool, usize);

/// Name, what is done in one operation, and how.
const WORKLOADS: [(&str, &str, Workload); 4] = [
    ("one", "`try_alloc` and drop", |frames, n| {
        for _ in 0..n {
            black_box(frames.try_alloc());
        }
    }),
    ("many", "the same, 100 allocated and then dropped", |frames, n| {
        let mut taken = Vec::with_capacity(100);
        for _ in 0..n / 100 {
            taken.extend((0..100).map_while(|_| frames.try_alloc()));
            black_box(&mut taken).clear();
        }
    }),
    ("run", "a run of 8 and drop", |frames, n| {
        for _ in 0..n {
            black_box(frames.try_alloc_contiguous(8, 8));
        }
    }),
    ("block", "2 MiB and drop", |frames, n| {
        for _ in 0..n {
            black_box(frames.try_alloc_contiguous(512, 512));
        }
    }),
];

fn main() {
    if let Some(numbers) = counted::child() {
        run(numbers[0], numbers[1]);
        return;
    }
    println!("| operation | instructions | ns |\n| --- | ---: | ---: |");
    for (number, (_, what, _)) in WORKLOADS.iter().enumerate() {
        let instructions = counted::of_one(&[number], OPERATIONS);
        let best = (0..RUNS).map(|_| run(number, OPERATIONS)).min().unwrap_or_default();
        println!("| {what} | {instructions:.0} | {} |", best.as_nanos() as usize / OPERATIONS);
    }
}

fn run(workload: usize, operations: usize) -> Duration {
    let frames = Machine::new(FRAMES).memory.frames();
    let (_, _, workload) = WORKLOADS[workload];
    workload(frames, 1000);
    let start = Instant::now();
    workload(frames, operations);
    start.elapsed()
}
