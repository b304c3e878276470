//! The guest tests: each boots a machine of its own. See the crate `faultline_tests` for how they are run, and
//! `--list` for what there is.
use std::process::ExitCode;

use faultline::launcher;
use faultline_tests::Suite;

mod console;
mod examples;
mod gdb;
mod hash;
mod kernels;
mod power;
mod programs;
mod record;
mod runner;
mod screen;
mod trace;
mod watching;

fn main() -> ExitCode {
    launcher::become_child_if_asked();
    let mut cases = kernels::cases();
    cases.extend(power::cases());
    cases.extend(console::cases());
    cases.extend(screen::cases());
    cases.extend(watching::cases());
    cases.extend(hash::cases());
    cases.extend(programs::cases());
    let mut runner_tests = runner::tests();
    runner_tests.extend(trace::tests());
    runner_tests.extend(record::tests());
    runner_tests.extend(examples::tests());
    runner_tests.extend(gdb::tests());
    Suite::new(cases, runner_tests).run()
}
