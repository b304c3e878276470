//! The tour: the main thing, shown in some seconds. What it says of times and counts is measured on the way.

mod found;
mod timeline;

use alloc::{string::String, vec::Vec};
use core::{future::Future, hint::black_box, pin::pin};

use futures_util::{FutureExt, select_biased};
use mm::{PAGE_SIZE, PageIndex};

use super::{Histogram, disks, execute, input::Input, output::say, ticker, units::Time};
use crate::{
    clock,
    machine::{self, Disk},
    thread,
    trace::{self, Kind, Record},
};

const TOUCHED_MIB: u64 = 4;
const THREADS: u64 = 8;
const PARKED: u64 = 1000;
/// Keys that are shown of those that were pressed.
const MAX_TYPED: usize = 20;
/// Faults that are traced; the one of median duration is shown.
const TRACED: u64 = 9;

/// Gives the tour; returns the status of the first part that failed.
///
/// # Cancellation
/// The tour ends; threads that it started go on.
pub(super) async fn give(input: &mut Input) -> u8 {
    let up = clock::now();
    say!("\nFaultline: an asynchronous kernel, in which a page fault is an await.");
    say!("\n1. What was found at boot\n");
    found::tell(up).await;

    say!("\n2. Memory that is there when it is touched: 'touch {TOUCHED_MIB}'\n");
    let status = execute(&alloc::format!("touch {TOUCHED_MIB}")).await;
    if status != 0 {
        return status;
    }

    say!("\n3. Threads that wait for a device which does not answer: 'threads {PARKED}'\n");
    let status = execute(&alloc::format!("threads {PARKED}")).await;
    if status != 0 {
        return status;
    }

    let Some(disk) = machine::disks().iter().find(|disk| disk.name != machine::PROGRAMS) else {
        say!("\nThe rest of the tour reads a disk, and there is none: --disk FILE adds one.");
        return 0;
    };
    let command = alloc::format!("hash --threads {THREADS} --disk {}", disk.name);
    say!("\n4. A library that knows nothing of faults hashes a disk through them:");
    say!("   '{command}'\n");
    let before = ticker::lateness();
    let (status, typed) = while_typing(input, execute(&command)).await;
    if status != 0 {
        return status;
    }
    say!("\n   Meanwhile, on the same CPU:");
    tell_ticks(&ticker::lateness().since(&before)).await;
    tell_typed(&typed).await;

    say!("\n5. One of these faults, step by step\n");
    if !tell_fault(disk).await {
        say!("error: no fault could be traced");
        return 1;
    }
    say!("\nThat was the tour.");
    0
}

/// The keys that were pressed.
#[derive(Default)]
struct Typed {
    count: usize,
    first: String,
}

/// Waits for `work`, and reads what is typed meanwhile.
async fn while_typing<F: Future>(input: &mut Input, work: F) -> (F::Output, Typed) {
    let mut work = pin!(work.fuse());
    let mut typed = Typed::default();
    loop {
        select_biased! {
            output = work => return (output, typed),
            character = input.next().fuse() => {
                if typed.count < MAX_TYPED {
                    typed.first.extend(character.escape_default());
                }
                typed.count += 1;
            }
        }
    }
}

async fn tell_ticks(lateness: &Histogram) {
    if !ticker::is_running() {
        say!("   - there was no ticker (ticker=off)");
        return;
    }
    let (median, worst) = (Time(lateness.percentile(50)), Time(lateness.worst()));
    say!("   - a task that runs every 10 ms ran {} times, late by {median} in the", lateness.count());
    say!("     median, {} in 99 of 100 cases at most, {worst} at worst;", Time(lateness.percentile(99)));
}

async fn tell_typed(typed: &Typed) {
    match typed {
        Typed { count: 0, .. } => say!("   - keyboard and serial line were read; nobody pressed a key."),
        Typed { count, first } => say!("   - keyboard and serial line were read: {count} keys, \"{first}\"."),
    }
}

/// Shows the median of some faults; false when none could be traced.
async fn tell_fault(disk: &'static Disk) -> bool {
    let mut faults = Vec::new();
    for number in 0..TRACED {
        let page = disk.object.pages() * number / TRACED;
        if let Some(steps) = trace_fault(disk, page).await {
            faults.push((page, steps));
        }
    }
    faults.sort_by_key(|(_, steps)| timeline::duration(steps));
    let Some((page, steps)) = faults.get(faults.len() / 2) else { return false };
    let (trap, mut previous) = (steps[0].time, steps[0].time);
    say!("      us   after");
    for step in steps {
        let (at, after) = (step.time - trap, step.time - previous);
        previous = step.time;
        say!("{} {}  {}", micros(at), micros(after), describe(step, disk, *page));
    }
    true
}

/// Lets a thread touch a page that is not there, and picks its steps out of the trace.
async fn trace_fault(disk: &'static Disk, page: u64) -> Option<Vec<Record>> {
    let window = disks::map(disk).ok()?;
    let index = PageIndex::new(page);
    disk.object.release(index..index + 1).await;
    let recording = trace::start()?;
    let handle = thread::spawn("traced", move || {
        black_box(window.as_slice()[page as usize * PAGE_SIZE]);
    });
    let thread = match handle {
        Ok(mut handle) => {
            let _ = (&mut handle).await;
            Some(handle.thread().id().as_u64())
        }
        Err(_) => None,
    };
    let records = recording.stop();
    timeline::of_fault(&records, thread?, page)
}

/// Microseconds with a tenth, in eight columns.
fn micros(ns: u64) -> String {
    alloc::format!("{:>6}.{}", ns / 1000, ns % 1000 / 100)
}

fn describe(step: &Record, disk: &Disk, page: u64) -> String {
    let name = &disk.name;
    match step.kind {
        Kind::Trap => {
            alloc::format!("trap       thread {} touches page {page} of {name}: not there", step.words[0])
        }
        Kind::Park => "park       the thread is a pending future, the CPU is free".into(),
        Kind::Request => alloc::format!("request    {name} gets a frame to fill"),
        Kind::Interrupt => alloc::format!("interrupt  {name} has done something"),
        Kind::Complete => "complete   its task finds out what: the page has come".into(),
        Kind::Wake => "wake       the thread's future is polled again".into(),
        Kind::Map => "map        the page is in the page table".into(),
        Kind::Resume => "resume     the thread repeats the instruction".into(),
        _ => String::new(),
    }
}
