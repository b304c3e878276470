//! A kernel that is a test: `test=NAME` on its command line says which, `storm=FACTOR` how much longer its
//! storms are. A name with `_on_N_cpus` behind it is the same test on a machine with N CPUs.
//!
//! A test returns what it found; a panic is found by the host. Where the host has to do something (type a
//! key, let a disk go), the test says so by a word on the control channel and then waits for the effect.
#![no_std]
#![no_main]

extern crate alloc;

mod changes;
mod check;
mod circles;
mod cpus;
mod crawl;
mod crew;
mod denials;
mod flight;
mod forks;
mod full;
mod kills;
mod loads;
mod nmi;
mod pages;
mod panics;
mod power;
mod pressed;
mod quiet;
mod reclaim;
mod recordings;
mod ring3;
mod slots;
mod stacks;
mod stores;
mod storms;
mod swap;
mod tasks;
mod unmap;
mod usage;
mod victims;
mod vmscript;
mod waits;
mod wild;
mod write_errors;

use alloc::boxed::Box;
use core::pin::Pin;

use check::Outcome;

kernel::entry!(main);

type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A test's name, and how to begin it.
type Test = (&'static str, fn() -> Run);

/// A list of tests that are `async fn()`s.
macro_rules! tests {
    ($($module:ident::$test:ident),* $(,)?) => {
        &[$((stringify!($test), || Box::pin($module::$test()))),*]
    };
}

const TESTS: &[Test] = tests![
    loads::one_page_is_loaded_once,
    loads::one_disk_page_is_read_once,
    loads::failed_load_reaches_everyone,
    loads::failing_sector_reaches_everyone,
    loads::disk_error_storm,
    flight::loads_are_in_flight_together,
    flight::killed_loads_are_finished,
    circles::pager_thread_faults_on_its_own_page,
    unmap::unmap_during_a_load,
    unmap::unmap_storm,
    changes::invalidate_storm,
    crawl::crawling_disk_delays_nobody,
    quiet::parked_threads_poll_nothing,
    recordings::recordings_do_not_end_one_another,
    recordings::memory_tells_recordings_until_the_last_one_ends,
    kills::killed_threads_leak_nothing,
    kills::killed_before_the_first_instruction,
    kills::kill_storm,
    nmi::nmi_storm,
    denials::denied_accesses_end_the_thread,
    denials::exceptions_end_the_thread,
    denials::denied_accesses_end_a_program,
    stacks::stacks_grow_as_they_are_touched,
    stacks::stack_overflow_is_a_clean_end,
    full::stack_waits_for_memory,
    full::half_of_the_heap_reserve_is_for_writing_pages_out,
    full::heap_reserve_is_kept_for_stacks,
    full::flush_needs_no_room_in_the_heap,
    waits::threads_wait_for_what_tasks_wait_for,
    waits::kill_ends_a_wait,
    slots::computing_threads_share_the_cpu,
    slots::faulting_threads_share_the_cpu,
    slots::woken_task_runs_before_the_thread,
    tasks::million_wakes,
    tasks::ten_thousand_timers,
    tasks::abort_storm,
    tasks::tasks_share_the_cpus,
    slots::heap_storm,
    storms::thread_storm,
    storms::program_storm,
    stores::store_storm,
    stores::file_outgrows_memory,
    write_errors::write_errors_reach_the_flush_that_covers_them,
    power::flushed_pages_survive_power_cuts,
    power::flushes_left_out_are_found_by_power_cuts,
    power::flushes_before_the_last_store_are_found_by_power_cuts,
    stores::flush_is_one_command_of_the_device,
    forks::fork_storm,
    forks::one_page_fork_storm,
    forks::protect_storm,
    reclaim::readers_outgrow_memory,
    swap::memory_goes_through_swap,
    swap::shared_memory_goes_through_swap,
    swap::errors_of_swap,
    pressed::memory_and_a_file_outgrow_memory_at_once,
    pressed::full_machine_with_a_crawling_disk_goes_on,
    pressed::full_machine_with_a_crawling_file_goes_on,
    victims::a_hog_is_the_one_victim,
    vmscript::scenarios_are_played_as_on_the_host,
    cpus::all_cpus_are_up,
    cpus::clock_never_goes_back,
    cpus::sleeping_cpu_is_woken,
    cpus::threads_use_all_cpus,
    cpus::panic_on_another_cpu,
    cpus::panic_on_all_cpus,
    panics::fault_with_a_guard_held,
    panics::wait_with_a_guard_held,
    panics::fault_in_a_task,
    panics::fault_while_a_fault_is_answered,
    panics::panic_in_a_thread,
    panics::triple_fault,
    panics::silence,
];

async fn main() {
    let (name, short, _) = check::asked_test();
    let outcome = match TESTS.iter().find(|(test, _)| *test == short) {
        Some((_, test)) => test().await,
        None => Err(check::Failure::new("this kernel has no such test".into())),
    };
    match outcome {
        Ok(()) => drivers::power::control(&alloc::format!("test {name} ok")),
        Err(why) => drivers::power::control(&alloc::format!("test {name} failed: {why}")),
    }
    kernel::exit(0)
}
