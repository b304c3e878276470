//! `faults`: page faults since boot, and how long they took.

use alloc::boxed::Box;

use super::super::{
    Command, Histogram,
    output::{output, say},
    table::Table,
    units::Time,
};
use crate::{
    arch::cpu,
    fault_stats::{self, FaultKind},
    memory,
};

pub(super) static FAULTS: Command = Command {
    name: "faults",
    usage: "",
    help: "page faults since boot by kind; how long they parked threads, by kind",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            let times = fault_stats::snapshot();
            let mm = memory::memory().stats();
            let mut table = Table::new(&[">count", "since boot"]);
            table.row(&[&cpu::counters().page_faults, &"page faults that the processor raised"]);
            table.row(&[&times.at_once, &"  served at once, without parking the thread"]);
            table.row(&[&times.parked, &"  parked the thread"]);
            table.row(&[&mm.denied, &"  denied"]);
            table.row(&[&mm.zero_fills, &"pages filled with zeros at their first touch"]);
            table.row(&[&mm.loads_started, &"loads asked of a pager"]);
            table.row(&[&mm.loads_shared, &"  joined by another fault on the same page"]);
            table.row(&[&mm.loads_failed, &"  failed"]);
            table.row(&[&mm.loads_invalidated, &"  thrown away, as the page was dropped meanwhile"]);
            table.row(&[&mm.retries, &"faults that started over, as the mapping changed meanwhile"]);
            table.row(&[&mm.evictions, &"clean pages given back"]);
            output().table(&table).await;
            match times.shortest {
                None => say!("no thread has been parked in a fault"),
                Some(shortest) => say!(
                    "parked for {} at least, {} in the mean, {} at most",
                    Time(shortest),
                    Time(times.mean),
                    Time(times.longest)
                ),
            }
            if times.parked > 0 {
                say!("");
                output().table(&table_of_times()).await;
            }
            Ok(0)
        })
    },
};

/// How long threads were parked, by what they did: the bounds are four times as long each time.
fn table_of_times() -> Table {
    const FIRST: u64 = 1_000;
    const STEP: u64 = 4;
    let heads = &[">parked up to", ">reading", ">writing", ">executing", ">stack"];
    let mut table = Table::new(heads);
    let histograms = FaultKind::ALL.map(fault_stats::histogram);
    let worst = histograms.iter().map(Histogram::worst).max().unwrap_or(0);
    let (mut over, mut up_to) = (0, FIRST);
    loop {
        let end = if up_to >= worst { u64::MAX } else { up_to };
        let [read, write, execute, stack] = histograms.each_ref().map(|all| all.between(over, end));
        if read + write + execute + stack > 0 {
            table.row(&[&Time(up_to), &read, &write, &execute, &stack]);
        }
        if end == u64::MAX {
            break;
        }
        (over, up_to) = (up_to, up_to.saturating_mul(STEP));
    }
    for percent in [50, 99] {
        let times = histograms.each_ref().map(|all| Time(all.percentile(percent)));
        table.row(&[&format_args!("{percent} % up to"), &times[0], &times[1], &times[2], &times[3]]);
    }
    let longest = histograms.each_ref().map(|all| Time(all.worst()));
    table.row(&[&"the longest", &longest[0], &longest[1], &longest[2], &longest[3]]);
    table
}
