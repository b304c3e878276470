//! What an operation of the executor costs, beside other executors.
//!
//! `cargo bench -p executor` runs every workload with every executor that has what it needs, in processes of their
//! own: under callgrind for the instructions, and by itself for the time. An operation's instructions are
//! (those of 2 n operations - those of n) / n, so set-up cancels out; they hardly change between runs of the same
//! build. Its time is the shortest of several runs of 2 n operations. The run fails where ours needs more
//! instructions, or a task more memory, than its limit; times have none. `.ci/run` runs it for ours alone.
//!
//! | file | what |
//! | --- | --- |
//! | `workload` | the workloads, written once for every executor that spawns |
//! | `ours`, `smol`, `plain`, `tokio`, `futures_rs`, `embassy` | the executors, and what only some of them have |
//! | `meter` | measures the piece of a run that counts |
//! | `child` | one workload with one executor in a process of its own |
//! | `table` | the figures of a run, side by side |
//!
//! Words after `--` choose workloads and executors by parts of their names; `--keep FOLDER` keeps callgrind's files
//! there, for `callgrind_annotate`.

mod child;
mod embassy;
mod futures_rs;
mod meter;
mod ours;
mod plain;
mod smol;
mod table;
mod tokio;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use meter::Meter;
use table::{Figure, Table};
use workload::TaskMemory;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    SpawnSeq,
    SpawnBatch,
    PingPong,
    Yield,
    ExtWake,
    Mutex,
    MutexContended,
    Channel,
    TimerInsert,
    TimerCancel,
    TimerFire,
    Memory,
}

impl Workload {
    const ALL: [Workload; 12] = [
        Workload::SpawnSeq,
        Workload::SpawnBatch,
        Workload::PingPong,
        Workload::Yield,
        Workload::ExtWake,
        Workload::Mutex,
        Workload::MutexContended,
        Workload::Channel,
        Workload::TimerInsert,
        Workload::TimerCancel,
        Workload::TimerFire,
        Workload::Memory,
    ];

    /// Its name, how many operations n are, and how many instructions one of ours may need: the only place where the
    /// limits stand.
    fn facts(self) -> (&'static str, usize, u64) {
        match self {
            Workload::SpawnSeq => ("spawn_seq", 10_000, 450),
            Workload::SpawnBatch => ("spawn_batch", 10_000, 530),
            Workload::PingPong => ("pingpong", 20_000, 180),
            Workload::Yield => ("yield", 100_000, 125),
            Workload::ExtWake => ("ext_wake", 20_000, 165),
            Workload::Mutex => ("mutex", 20_000, 45),
            Workload::MutexContended => ("mutex contended", 20_000, 400),
            Workload::Channel => ("mpsc 64", 20_000, 170),
            Workload::TimerInsert => ("timer insert", 50_000, 100),
            Workload::TimerCancel => ("timer cancel", 50_000, 150),
            Workload::TimerFire => ("timer fire", 50_000, 130),
            // The limit is in bytes; there may be one allocation.
            Workload::Memory => ("task memory", 0, 64),
        }
    }

    fn name(self) -> &'static str {
        self.facts().0
    }
}

/// With which executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Ours,
    /// With a clock that stands: what is missing from ours is what reading the clock costs.
    OursStill,
    Smol,
    Plain,
    Tokio,
    Pool,
    Unordered,
    Embassy,
}

impl Who {
    const ALL: [Who; 8] = [
        Who::Ours,
        Who::OursStill,
        Who::Smol,
        Who::Plain,
        Who::Tokio,
        Who::Pool,
        Who::Unordered,
        Who::Embassy,
    ];

    fn name(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::OursStill => "no clock",
            Who::Smol => "smol",
            Who::Plain => "async-task",
            Who::Tokio => "tokio",
            Who::Pool => "LocalPool",
            Who::Unordered => "Unordered",
            Who::Embassy => "embassy",
        }
    }
}

/// A workload with an executor.
struct Case {
    who: Who,
    workload: Workload,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Run(fn(&mut Meter, usize)),
    Memory(fn() -> TaskMemory),
}

impl Case {
    fn run(who: Who, workload: Workload, run: fn(&mut Meter, usize)) -> Self {
        Case { who, workload, what: What::Run(run) }
    }

    fn memory(who: Who, memory: fn() -> TaskMemory) -> Self {
        Case { who, workload: Workload::Memory, what: What::Memory(memory) }
    }

    fn is_chosen(&self, words: &[String]) -> bool {
        let name = format!("{} {}", self.who.name(), self.workload.name());
        words.is_empty() || words.iter().all(|word| name.contains(word.as_str()))
    }
}

fn cases() -> impl Iterator<Item = Case> {
    ours::cases()
        .chain(smol::cases())
        .chain(plain::cases())
        .chain(tokio::cases())
        .chain(futures_rs::cases())
        .chain(embassy::cases())
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [first, number, mode] = words.as_slice()
        && first == "--child"
    {
        return child::run(number, mode);
    }
    let keep = words.iter().position(|word| word == "--keep").map(|at| {
        words.remove(at);
        PathBuf::from(if at < words.len() { words.remove(at) } else { ".".into() })
    });
    match figures(&words, keep) {
        Ok(table) => {
            print!("{table}");
            if table.is_within_limits() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn figures(words: &[String], keep: Option<PathBuf>) -> Result<Table, String> {
    let chosen: Vec<(usize, Case)> = cases().enumerate().filter(|(_, case)| case.is_chosen(words)).collect();
    if chosen.is_empty() {
        return Err(format!("nothing is called {}", words.join(" ")));
    }
    let mut table = Table::default();
    for (number, case) in &chosen {
        let figure = match case.what {
            What::Run(_) => Figure { nanos: Some(child::time(*number)?), ..Figure::default() },
            What::Memory(memory) => Figure::of(memory()),
        };
        table.put(case, figure);
    }
    // Instructions do not depend on what else runs, so all processors may count.
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Ok(table));
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((number, case)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !matches!(case.what, What::Run(_)) {
                        continue;
                    }
                    let counted = child::count(*number, case, keep.as_deref());
                    let Ok(mut table) = table.lock() else { return };
                    match (counted, table.as_mut()) {
                        (Ok(instructions), Ok(table)) => table.instructions(case, instructions),
                        (Err(why), Ok(_)) => *table = Err(why),
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    table.into_inner().map_err(|_| "a thread ended early".to_owned())?
}
