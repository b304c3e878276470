//! What was found at boot.

use alloc::string::String;
use core::arch::x86_64::__cpuid;

use super::super::{
    output::say,
    units::{Bytes, Kilohertz, Time},
};
use crate::{arch::apic, boot, clock, cpus, machine, memory};

/// CPUID leaves with the processor's name, 16 bytes each (Intel SDM vol. 2A, CPUID).
const NAME_LEAVES: core::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

pub(super) async fn tell(up: u64) {
    let frames = memory::memory().frames().stats();
    let (all, free) = (Bytes::of_pages(frames.total as u64), Bytes::of_pages(frames.free as u64));
    say!("  firmware  {}", boot::firmware());
    say!("  memory    {all} in frames of 4 KiB, {free} free");
    say!("  CPUs      {} found, {} in use: {}", apic::cpus(), cpus::online(), cpu_name());
    let (counter, timer) = (Kilohertz(clock::tsc_khz().into()), Kilohertz(clock::timer_khz()));
    say!("  clocks    time stamps {counter}, timer {timer}, measured against the PIT");
    for disk in machine::disks() {
        let rights = if disk.device.read_only() { ", read-only" } else { "" };
        say!(
            "  {:<9} {} behind virtio-blk at {}{rights}",
            disk.name,
            Bytes(disk.bytes),
            disk.device.address()
        );
    }
    say!("  up        {} so far, since the clocks were measured", Time(up));
}

fn cpu_name() -> String {
    if __cpuid(0x8000_0000).eax < *NAME_LEAVES.end() {
        return "no name".into();
    }
    let registers = NAME_LEAVES.map(__cpuid).flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes = registers.flat_map(u32::to_le_bytes);
    let printable = bytes.filter(|byte| byte.is_ascii_graphic() || *byte == b' ').map(char::from);
    String::from(printable.collect::<String>().trim())
}
