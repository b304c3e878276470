//! `pressure`: a workload that wants more memory than there is.

use alloc::boxed::Box;

use super::{super::Command, bench};
use crate::memory;

const MAX_MIB: u64 = 1 << 20;
const PAGES_PER_MIB: u64 = (1 << 20) / mm::PAGE_SIZE as u64;

pub(super) static PRESSURE: Command = Command {
    name: "pressure",
    usage: "[MIB]",
    help: "threads that use MIB of memory at random, and disk0; twice what there is, if not said",
    run: |mut arguments| {
        Box::pin(async move {
            let mib = arguments.number("MIB", 1, MAX_MIB)?;
            arguments.end()?;
            let twice = 2 * memory::memory().frames().stats().total as u64;
            bench::pressure(mib.map_or(twice, |mib| mib * PAGES_PER_MIB)).await
        })
    },
};
