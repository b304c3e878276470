//! `mem`: frames, heap, mappings, disks.

use alloc::boxed::Box;

use mm::PAGE_SIZE;

use super::super::{
    Command,
    output::say,
    table::Table,
    units::Bytes,
};
use crate::{heap, machine, memory};

pub(super) const MEM: Command = Command {
    name: "mem",
    usage: "",
    help: "frames, the heap, what is mapped, and the disks",
    run: |arguments| {
        Box::pin(async move {
            arguments.end()?;
            say!("{}", table_of_memory());
            if !machine::disks().is_empty() {
                say!("\n{}", table_of_disks());
            }
            Ok(0)
        })
    },
};

fn table_of_memory() -> Table {
    let mut table = Table::new(&["memory", ">frames", ">bytes", "what"]);
    let mut frames = |name: &str, count: u64, what: &str| {
        table.row(&[&name, &count, &Bytes(count * PAGE_SIZE as u64), &what]);
    };
    let stats = memory::memory().frames().stats();
    let heap = heap::stats();
    let window = memory::kernel_space().stats();
    frames("all", stats.total as u64, "");
    frames("free", stats.free as u64, "");
    frames("", stats.least_free as u64, "the fewest that ever were");
    frames("clean", stats.clean as u64, "pages that can be given back");
    frames("marks", stats.low as u64, "free: giving back begins");
    frames("", stats.high as u64, "free: giving back ends");
    frames("heap", heap.claimed.div_ceil(PAGE_SIZE) as u64, "taken from the frames");
    table.row(&[&"", &"", &Bytes(heap.used as u64), &alloc::format!("in {} allocations", heap.allocations)]);
    let mappings = alloc::format!("in {} mappings", window.mappings);
    table.row(&[&"window", &window.mapped_pages, &Bytes(window.mapped_pages * PAGE_SIZE as u64), &mappings]);
    let resident = window.resident_pages;
    table.row(&[&"", &resident, &Bytes(resident * PAGE_SIZE as u64), &"of them in the page tables"]);
    table.row(&[&"waiting", &stats.waiting, &"", &"who wait for a frame"]);
    table
}

fn table_of_disks() -> Table {
    let heads = &["disk", ">bytes", ">pages", ">resident", ">requests", ">errors", ">now", ">most", ">interrupts"];
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
