//! `faults`: page faults since boot, and how long they took.

use alloc::boxed::Box;

use super::super::{
    Command,
    output::{output, say},
    table::Table,
    units::Time,
};
use crate::{arch::cpu, fault_stats, memory};

pub(super) const FAULTS: Command = Command {
    name: "faults",
    usage: "",
    help: "page faults since boot by kind; shortest, mean and longest time parked",
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
            Ok(0)
        })
    },
};
