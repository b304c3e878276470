//! What can be typed, a command a file.

mod bench;
mod faults;
mod hash;
mod log;
mod machine;
mod mem;
mod pressure;
mod ps;
mod run;
mod sync;
mod threads;
mod ticks;
mod top;
mod touch;
mod trace;

use super::Command;

/// All commands, as `help` lists them.
///
/// Statics, not constants: whatever names a constant has a copy of its closures, with all that they await, to compile.
pub(super) static COMMANDS: &[&Command] = &[
    &machine::HELP,
    &ps::PS,
    &top::TOP,
    &mem::MEM,
    &faults::FAULTS,
    &trace::TRACE,
    &hash::HASH,
    &touch::TOUCH,
    &sync::SYNC,
    &ticks::TICKS,
    &log::LOG,
    &pressure::PRESSURE,
    &threads::THREADS,
    &run::RUN,
    &bench::BENCH,
    &machine::PANIC,
    &machine::EXIT,
];
