//! What a frame costs: the instructions of an operation, counted by callgrind, and its time.
//!
//! Each workload runs in a process of its own with n operations and with 2 n: the difference, divided by n, is one
//! operation's share, whatever the set-up costs.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
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
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--child") {
        let mut number =
            || words.next().and_then(|word| word.parse::<usize>().ok()).expect("two numbers follow");
        let (workload, operations) = (number(), number());
        println!("{}", run(workload, operations).as_nanos());
        return;
    }
    println!("| operation | instructions | ns |\n| --- | ---: | ---: |");
    for (number, (_, what, _)) in WORKLOADS.iter().enumerate() {
        let one = instructions(number, OPERATIONS);
        let instructions = (instructions(number, 2 * OPERATIONS) - one) as f64 / OPERATIONS as f64;
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

/// All instructions of a process that does so many operations.
fn instructions(workload: usize, operations: usize) -> u64 {
    let this = std::env::current_exe().expect("this program has a path");
    let file = std::env::temp_dir().join(format!("frames-{}-{workload}-{operations}", std::process::id()));
    let status = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(this)
        .args(["--child", &workload.to_string(), &operations.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "valgrind fails; ./setup.sh installs it");
    let text = fs::read_to_string(&file).expect("callgrind writes its file");
    // What is left of it is in the temporary files.
    let _ = fs::remove_file(&file);
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind has counted")
}
