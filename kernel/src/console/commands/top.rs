//! `top`: what CPUs, threads and tasks do at this moment, again and again.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::time::Duration;

use executor::{
    Class, Spent, TaskRef,
    sync::MutexGuard,
    time::{self, Instant},
};
use futures_util::{FutureExt, select_biased};

use super::{
    super::{
        Command,
        input::{self, Input},
        output::{output, say},
        table::Table,
        units::Time,
    },
    ps,
};
use crate::{
    clock, cpus, fault_stats, heap,
    thread::{self, Thread},
};

/// Between two pictures.
const PERIOD: Duration = Duration::from_secs(1);
/// Threads, and tasks, that are shown: those that did most.
const ROWS: usize = 12;
/// Threads, and tasks, that are looked at.
const MOST: usize = 1000;
const MOST_PICTURES: u64 = 100_000;
/// Terminals: to the first place, and erase what follows.
const BEGIN: &str = "\x1b[H\x1b[J";

pub(super) static TOP: Command = Command {
    name: "top",
    usage: "[N]",
    help: "who is busy, every second: CPUs, threads, tasks; ends by a key, or after N times",
    run: |mut arguments| {
        Box::pin(async move {
            let pictures = arguments.number("N", 1, MOST_PICTURES)?;
            let input = if arguments.is_behind() { None } else { input::try_take() };
            arguments.end()?;
            watch(pictures, input).await;
            Ok(0)
        })
    },
};

/// What everybody had done at one moment.
struct Picture {
    at: u64,
    /// Up and idle, by CPU.
    cpus: Vec<(u64, u64)>,
    /// By their numbers, and so are the tasks.
    threads: Vec<(Arc<Thread>, thread::ThreadStats, Spent)>,
    tasks: Vec<(TaskRef, Spent)>,
    at_once: u64,
    parked: u64,
}

impl Picture {
    /// Who does not fit into memory is left out.
    fn take() -> Self {
        let now = clock::now();
        let faults = fault_stats::snapshot();
        let mut picture = Self {
            at: now,
            cpus: cpus::all().map(|cpu| cpu.times(now)).collect(),
            threads: Vec::new(),
            tasks: Vec::new(),
            at_once: faults.at_once,
            parked: faults.parked,
        };
        let mut threads = Vec::new();
        let room = heap::has_room().is_ok()
            && threads.try_reserve(MOST).is_ok()
            && picture.threads.try_reserve(MOST).is_ok()
            && picture.tasks.try_reserve(MOST).is_ok();
        if room {
            thread::list(&mut threads);
            picture.threads.extend(threads.into_iter().map(|thread| {
                let (stats, spent) = (thread.stats(), thread.task().map(TaskRef::spent));
                (thread, stats, spent.unwrap_or_default())
            }));
            picture.threads.sort_unstable_by_key(|(thread, ..)| thread.id());
            let tasks = executor::tasks().filter(|task| task.class() == Class::Task).take(MOST);
            picture.tasks.extend(tasks.map(|task| {
                let spent = task.spent();
                (task, spent)
            }));
            picture.tasks.sort_unstable_by_key(|(task, _)| task.id());
        }
        picture
    }

    async fn show(&self, before: &Self) {
        let took = self.at.saturating_sub(before.at).max(1);
        say!(
            "up {}; in the last {}: {} faults served at once, {} that parked a thread",
            Time(self.at),
            Time(took),
            self.at_once - before.at_once,
            self.parked.saturating_sub(before.parked)
        );
        output().table(&self.table_of_cpus(before)).await;
        say!("");
        output().table(&self.table_of_threads(before)).await;
        say!("");
        output().table(&self.table_of_tasks(before)).await;
    }

    fn table_of_cpus(&self, before: &Self) -> Table {
        let mut table = Table::new(&[">cpu", ">busy %"]);
        for (number, (now, then)) in self.cpus.iter().zip(&before.cpus).enumerate() {
            let up = now.0.saturating_sub(then.0).max(1);
            let busy = up.saturating_sub(now.1.saturating_sub(then.1));
            table.row(&[&number, &(busy * 100 / up)]);
        }
        table
    }

    /// Those that ran longest come first.
    fn table_of_threads(&self, before: &Self) -> Table {
        let heads =
            &[">thread", "name", ">ran", ">polls", ">faults", ">parks", ">parked", "waits for", ">since"];
        let mut table = Table::new(heads);
        let mut rows: Vec<_> = (self.threads.iter())
            .map(|(thread, stats, spent)| {
                let same = before.threads.binary_search_by_key(&thread.id(), |(other, ..)| other.id());
                let (stats_then, spent_then) = same
                    .map_or_else(|_| Default::default(), |at| (before.threads[at].1, before.threads[at].2));
                (thread, stats, stats_then, spent.since(spent_then))
            })
            .collect();
        rows.sort_unstable_by_key(|(.., spent)| core::cmp::Reverse(spent.nanos));
        for (thread, stats, stats_then, spent) in rows.into_iter().take(ROWS) {
            let (reason, since) = ps::wait(thread.task().and_then(TaskRef::wait));
            table.row(&[
                &thread.id(),
                &thread.name(),
                &Time(spent.nanos),
                &spent.polls,
                &stats.faults.wrapping_sub(stats_then.faults),
                &stats.parks.wrapping_sub(stats_then.parks),
                &Time(stats.parked_ns.saturating_sub(stats_then.parked_ns)),
                &reason,
                &since,
            ]);
        }
        table
    }

    fn table_of_tasks(&self, before: &Self) -> Table {
        let mut table = Table::new(&[">task", "name", ">ran", ">polls", "waits for", ">since"]);
        let mut rows: Vec<_> = (self.tasks.iter())
            .map(|(task, spent)| {
                let same = before.tasks.binary_search_by_key(&task.id(), |(other, _)| other.id());
                (task, spent.since(same.map_or_else(|_| Spent::default(), |at| before.tasks[at].1)))
            })
            .collect();
        rows.sort_unstable_by_key(|(_, spent)| core::cmp::Reverse(spent.nanos));
        for (task, spent) in rows.into_iter().take(ROWS) {
            let (reason, since) = ps::wait(task.wait());
            table.row(&[&task.id(), &task.name(), &Time(spent.nanos), &spent.polls, &reason, &since]);
        }
        table
    }
}

/// Shows pictures until a key is pressed, or so many. Without input and a number, one.
async fn watch(pictures: Option<u64>, mut input: Option<MutexGuard<'_, Input>>) {
    let pictures = pictures.unwrap_or(if input.is_some() { u64::MAX } else { 1 });
    let mut before = Picture::take();
    for _ in 0..pictures {
        if key_within(&mut input, PERIOD).await {
            break;
        }
        let now = Picture::take();
        executor::yield_now().await;
        if output().is_terminal() {
            output().write(BEGIN).await;
        }
        now.show(&before).await;
        before = now;
    }
}

/// Waits for a key, for so long at most. Whether there was one.
async fn key_within(input: &mut Option<MutexGuard<'_, Input>>, limit: Duration) -> bool {
    let mut end = core::pin::pin!(time::sleep_until(Instant::now() + limit).fuse());
    let Some(input) = input else {
        end.await;
        return false;
    };
    select_biased! {
        () = input.any_key().fuse() => true,
        () = end => false,
    }
}
