//! `ps`: what each CPU does, who is there, and what everybody waits for.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use executor::{Class, TaskRef, TaskState, WaitReason};

use super::super::{
    Command,
    output::{output, say},
    table::Table,
    units::Time,
};
use crate::{
    clock, cpus,
    thread::{self, Thread},
};

/// The most lines of a table; the rest is counted.
const MAX_ROWS: usize = 200;

pub(super) static PS: Command = Command {
    name: "ps",
    usage: "",
    help: "CPUs: busy, idle, whose poll was longest; threads and tasks: state, what each waits for",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            say!("up {}", Time(clock::now()));
            output().table(&table_of_cpus()).await;
            say!("");
            let mut threads = Vec::with_capacity(MAX_ROWS);
            thread::list(&mut threads);
            if threads.is_empty() {
                say!("no threads");
            } else {
                output().table(&table_of_threads(&threads)).await;
                rest(thread::count()).await;
            }
            drop(threads);
            say!("");
            let is_task = |task: &TaskRef| task.class() == Class::Task;
            output().table(&table_of_tasks(executor::tasks().filter(is_task))).await;
            rest(executor::tasks().filter(is_task).count()).await;
            Ok(0)
        })
    },
};

/// A CPU's kicks are the interrupts that the others sent it.
fn table_of_cpus() -> Table {
    let heads = &[">cpu", ">busy", ">idle", ">polls", ">steals", ">kicks", ">timer", ">longest", "whose"];
    let mut table = Table::new(heads);
    let now = clock::now();
    for cpu in cpus::all() {
        let counters = cpu.local().counters();
        let (up, idle) = cpu.times(now);
        table.row(&[
            &cpu.number(),
            &Time(up - idle),
            &Time(idle),
            &counters.polls,
            &counters.steals,
            &counters.kicks,
            &cpu.counters().timer_interrupts,
            &Time(counters.longest_poll_ns),
            &counters.longest_poll.unwrap_or_default(),
        ]);
    }
    table
}

async fn rest(rows: usize) {
    if rows > MAX_ROWS {
        say!("... and {} more", rows - MAX_ROWS);
    }
}

fn table_of_threads(threads: &[Arc<Thread>]) -> Table {
    let heads = &[">thread", "name", "state", "waits for", ">since", ">faults", ">parks", ">parked"];
    let mut table = Table::new(heads);
    for thread in threads {
        let task = thread.task();
        let state = task.map_or("new", |task| match task.state() {
            TaskState::Waiting => "parked",
            state => name(state),
        });
        let (reason, since) = wait(task.and_then(TaskRef::wait));
        let stats = thread.stats();
        table.row(&[
            &thread.id(),
            &thread.name(),
            &state,
            &reason,
            &since,
            &stats.faults,
            &stats.parks,
            &Time(stats.parked_ns),
        ]);
    }
    table
}

fn table_of_tasks(tasks: impl Iterator<Item = TaskRef>) -> Table {
    let mut table = Table::new(&[">task", "name", "state", "waits for", ">since", ">polls", ">longest"]);
    for task in tasks.take(MAX_ROWS) {
        let (reason, since) = wait(task.wait());
        let longest =
            task.longest_poll_ns().map_or_else(String::new, |nanos| alloc::format!("{}", Time(nanos)));
        table.row(&[&task.id(), &task.name(), &name(task.state()), &reason, &since, &task.polls(), &longest]);
    }
    table
}

fn name(state: TaskState) -> &'static str {
    match state {
        TaskState::Ready => "ready",
        TaskState::Running => "running",
        TaskState::Waiting => "waiting",
        TaskState::Done => "done",
    }
}

/// What somebody waits for, and for how long already.
pub(super) fn wait(wait: Option<(WaitReason, u64)>) -> (String, String) {
    wait.map_or_else(Default::default, |(reason, since)| {
        (alloc::format!("{reason}"), alloc::format!("{}", Time(clock::now().saturating_sub(since))))
    })
}
