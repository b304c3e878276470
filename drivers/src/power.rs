//! The way out: power off, and the control channel to the runner.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::port::{ACPI_CONTROL, CONTROL_CHANNEL, DEBUG_EXIT};

/// True while a line is being written, so that lines of two CPUs do not mix.
static WRITING: AtomicBool = AtomicBool::new(false);

/// How often a writer looks whether the other CPU's line is done before it writes anyway.
const PATIENCE: u32 = 100_000;

/// Sends one line to the runner over the control channel (QEMU's debugcon); the line's end is added.
///
/// May be called from anywhere, also from a panic in the middle of another call: the wait for another
/// CPU's line is bounded, and a torn line is better than none.
pub fn control(line: &str) {
    let mut owned = false;
    for _ in 0..PATIENCE {
        owned = !WRITING.swap(true, Ordering::Acquire);
        if owned {
            break;
        }
        core::hint::spin_loop();
    }
    for byte in line.bytes().chain([b'\n']) {
        CONTROL_CHANNEL.write(byte);
    }
    if owned {
        WRITING.store(false, Ordering::Release);
    }
}

/// Ends the machine. May be called from anywhere; does not return.
///
/// QEMU's debug-exit device makes QEMU end at once; without it the machine is powered off by ACPI where
/// QEMU's firmwares have that register; without either, this CPU halts for good.
pub fn off() -> ! {
    x86_64::instructions::interrupts::disable();
    DEBUG_EXIT.write(0);
    // SLP_EN with sleep type 0, which is "soft off" on this chip set.
    for place in ACPI_CONTROL {
        place.write(1 << 13);
    }
    loop {
        x86_64::instructions::hlt();
    }
}
