//! `mem`: frames, heap, mappings, disks.

use alloc::boxed::Box;
use core::fmt;

use mm::{Ages, PAGE_SIZE, PageKind, SwapStats};

use super::super::{
    Command,
    output::{output, say},
    table::Table,
    units::Bytes,
};
use crate::{heap, machine, memory};

pub(super) static MEM: Command = Command {
    name: "mem",
    usage: "",
    help: "frames, the heap, what is mapped, and the disks",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            output().table(&table_of_memory()).await;
            say!("");
            output().table(&table_of_lists()).await;
            say!("the policy of reclaim is {}", memory::memory().policy().name());
            if let Some(stats) = memory::memory().swap_stats() {
                say!("");
                output().table(&table_of_swap(&stats)).await;
            }
            if !machine::disks().is_empty() {
                say!("");
                output().table(&table_of_disks()).await;
            }
            Ok(0)
        })
    },
};

fn table_of_memory() -> Table {
    let stats = memory::memory().frames().stats();
    let heap = heap::stats();
    let space = memory::kernel_space().stats();
    let mut table = Table::new(&[">frames", ">bytes", "memory"]);
    let mut line = |frames: usize, what: &dyn fmt::Display| {
        table.row(&[&frames, &Bytes::of_pages(frames as u64), what]);
    };
    line(stats.total, &"all frames");
    line(stats.free, &"free");
    line(stats.least_free, &"free, when they were fewest");
    line(stats.clean, &"clean pages, which can be given back");
    let back = memory::memory().write_back_stats();
    let (writing, limit, parked) = (back.writing, back.limit, back.parked);
    line(
        back.dirty,
        &format_args!(
            "dirty pages, {writing} of them being stored; above {limit}, writes wait: {parked} now"
        ),
    );
    line(stats.quarantined, &"in quarantine: free when all CPUs have forgotten them");
    line(stats.reserve, &"free: kept for writing pages out");
    line(stats.low, &"free: pages wait, and clean ones begin to be given back");
    line(stats.high, &"free: enough have been");
    let (used, allocations) = (Bytes(heap.used as u64), heap.allocations);
    let frames = heap.claimed.div_ceil(PAGE_SIZE);
    line(frames, &format_args!("the heap's, {used} of it in use by {allocations} allocations"));
    let (pages, mappings) = (Bytes::of_pages(space.mapped_pages), space.mappings);
    let resident = space.resident_pages as usize;
    line(resident, &format_args!("shown in the window and as stacks ({pages} in {mappings} mappings)"));
    line(stats.waiting, &"wanted by somebody who waits for one");
    table
}

/// The lists that reclaim looks through, by kind and age.
fn table_of_lists() -> Table {
    let mut table = Table::new(&[">new", ">old", ">young", "pages, by age"]);
    let kinds = [
        (PageKind::Clean, "clean: their pagers can load them again"),
        (PageKind::Dirty, "dirty: to be stored before they go"),
        (PageKind::Anonymous, "without a pager: for swap, where there is some"),
    ];
    for (kind, what) in kinds {
        let Ages { new, old, young } = memory::memory().frames().ages(kind);
        table.row(&[&new, &old, &young, &what]);
    }
    table
}

fn table_of_swap(stats: &SwapStats) -> Table {
    let mut table = Table::new(&[">pages", ">bytes", "swap"]);
    let mut line = |pages: u64, what: &str| table.row(&[&pages, &Bytes::of_pages(pages), &what]);
    line(stats.used_slots as u64, "in slots");
    line(stats.free_slots as u64, "free slots");
    line(stats.pages_out, "written so far");
    line(stats.clean_out, "that left because their slots had them still");
    line(stats.zeros_out, "that left because they were zeros");
    line(stats.pages_in, "read so far");
    line(stats.pages_ahead, "of these, before anybody asked for them");
    line(stats.writing as u64, "being written");
    line(stats.failed_out, "that could not be written");
    line(stats.failed_in, "that could not be read");
    table
}

fn table_of_disks() -> Table {
    let heads =
        &["disk", ">bytes", ">pages", ">resident", ">requests", ">errors", ">now", ">most", ">interrupts"];
    let mut table = Table::new(heads);
    for disk in machine::disks() {
        let device = disk.device.stats();
        table.row(&[
            &disk.name,
            &disk.bytes,
            &disk.object.pages(),
            &disk.object.stats().resident,
            &device.requests,
            &device.errors,
            &device.in_flight,
            &device.max_in_flight,
            &device.interrupts,
        ]);
    }
    table
}
