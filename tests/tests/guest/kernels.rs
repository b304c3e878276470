//! The test kernels: one line a test. What each does stands in the package `faultline-test-kernels`.
use std::fs::File;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use faultline::Outcome;
use faultline::disk::Failing;
use faultline_tests::{Case, Kernel, Report, Session, Setup, TestDisk};
use serde_json::json;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Every test that a test kernel judges itself.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("one_page_is_loaded_once").traced(),
        case("one_disk_page_is_read_once").on(|| with(TestDisk::offsets(64 * PAGE).limited(1))),
        case("failed_load_reaches_everyone"),
        case("failing_sector_reaches_everyone").on(failing_loads),
        case("failing_sector_reaches_everyone_on_4_cpus").on(|| Setup { cpus: 4, ..failing_loads() }),
        case("disk_error_storm").on(broken).traced(),
        case("loads_are_in_flight_together").on(stalled).driven(disk_keeper),
        case("killed_loads_are_finished").on(stalled).driven(disk_keeper),
        case("pager_thread_faults_on_its_own_page"),
        case("unmap_during_a_load"),
        case("unmap_storm").traced(),
        case("invalidate_storm").traced(),
        case("crawling_disk_delays_nobody")
            .on(|| with(TestDisk::offsets(1000 * PAGE).limited(10)))
            .driven(typist)
            .alone()
            .within(90),
        case("parked_threads_poll_nothing").on(|| with(TestDisk::offsets(1200 * PAGE).limited(1))),
        case("recordings_do_not_end_one_another"),
        case("memory_tells_recordings_until_the_last_one_ends"),
        case("killed_threads_leak_nothing"),
        case("killed_before_the_first_instruction"),
        case("kill_storm").traced(),
        case("nmi_storm").driven(interrupter),
        case("denied_accesses_end_the_thread"),
        case("exceptions_end_the_thread"),
        case("denied_accesses_end_a_program"),
        case("stacks_grow_as_they_are_touched"),
        case("stack_overflow_is_a_clean_end"),
        case("stack_waits_for_memory").on(small),
        case("half_of_the_heap_reserve_is_for_writing_pages_out").on(small),
        case("heap_reserve_is_kept_for_stacks").on(small),
        case("flush_needs_no_room_in_the_heap")
            .on(|| Setup { memory_mib: 40, ..with(TestDisk::offsets(8 * PAGE).writable()) }),
        case("threads_wait_for_what_tasks_wait_for"),
        case("kill_ends_a_wait"),
        case("computing_threads_share_the_cpu").on(counted),
        case("faulting_threads_share_the_cpu").on(counted),
        case("woken_task_runs_before_the_thread"),
        case("heap_storm"),
        case("thread_storm"),
        case("program_storm"),
        case("store_storm").on(|| with(TestDisk::offsets(48 * PAGE).writable())).traced(),
        case("flush_is_one_command_of_the_device").on(|| with(TestDisk::offsets(8 * PAGE).writable())),
        case("memory_goes_through_swap").on(|| swapping(1)).within(300),
        case("memory_goes_through_swap_on_4_cpus").on(|| swapping(4)).within(300),
        case("shared_memory_goes_through_swap").on(|| swapping(1)).within(300),
        case("shared_memory_goes_through_swap_on_4_cpus").on(|| swapping(4)).within(300),
        case("errors_of_swap").on(failing_swap).traced(),
        case("errors_of_swap_on_4_cpus").on(|| Setup { cpus: 4, ..failing_swap() }).traced(),
        case("write_errors_reach_the_flush_that_covers_them").on(failing_stores).traced(),
        case("write_errors_reach_the_flush_that_covers_them_on_4_cpus")
            .on(|| Setup { cpus: 4, ..failing_stores() })
            .traced(),
        case("file_outgrows_memory").on(|| outgrown(1)).within(300).driven(rewritten),
        case("file_outgrows_memory_on_4_cpus").on(|| outgrown(4)).within(300).driven(rewritten),
        case("memory_and_a_file_outgrow_memory_at_once")
            .on(|| outgrown_twice(1))
            .within(400)
            .driven(rewritten),
        case("memory_and_a_file_outgrow_memory_at_once_on_4_cpus")
            .on(|| outgrown_twice(4))
            .within(400)
            .driven(rewritten),
        case("full_machine_with_a_crawling_disk_goes_on").on(|| crawling_swap(1)).alone().within(180),
        case("full_machine_with_a_crawling_disk_goes_on_on_4_cpus")
            .on(|| crawling_swap(4))
            .alone()
            .within(180),
        case("full_machine_with_a_crawling_file_goes_on")
            .on(|| crawling_file(1))
            .driven(disk_slower)
            .alone()
            .within(180),
        case("full_machine_with_a_crawling_file_goes_on_on_4_cpus")
            .on(|| crawling_file(4))
            .driven(disk_slower)
            .alone()
            .within(180),
        case("fork_storm").traced(),
        case("one_page_fork_storm").traced(),
        case("protect_storm").traced(),
        case("readers_outgrow_memory")
            .on(|| Setup { memory_mib: 40, ..with(TestDisk::offsets(160 * MIB)) })
            .within(120),
        case("scenarios_are_played_as_on_the_host").traced(),
        case("scenarios_are_played_as_on_the_host_on_4_cpus").on(cpus::<4>).traced(),
        case("all_cpus_are_up"),
        case("all_cpus_are_up_on_2_cpus").on(cpus::<2>),
        case("all_cpus_are_up_on_4_cpus").on(cpus::<4>),
        case("all_cpus_are_up_on_16_cpus").on(cpus::<16>),
        case("clock_never_goes_back_on_2_cpus").on(cpus::<2>),
        case("clock_never_goes_back_on_4_cpus").on(cpus::<4>),
        case("sleeping_cpu_is_woken_on_2_cpus").on(cpus::<2>),
        case("sleeping_cpu_is_woken_on_4_cpus").on(cpus::<4>),
        case("threads_use_all_cpus_on_2_cpus").on(cpus::<2>),
        case("threads_use_all_cpus_on_4_cpus").on(cpus::<4>),
        case("panic_on_another_cpu_on_4_cpus").on(cpus::<4>).driven(|session| {
            one_report(
                session,
                &["CPU 2 has had enough", "on CPU 2 of 4", "CPU 0 stopped at", "CPU 3 stopped at"],
            )
        }),
        case("panic_on_all_cpus_on_4_cpus").on(cpus::<4>).driven(everyone_stops),
        case("fault_with_a_guard_held").panics(&[
            "thread \"guard holder\" trapped while it held the spin lock \"test guard\"",
            "page fault: read at 0xffffc12345678000",
            "tests/kernels/src/panics.rs",
        ]),
        case("wait_with_a_guard_held")
            .panics(&["thread \"guard holder\" trapped while it held the spin lock \"test guard\""]),
        case("fault_in_a_task").panics(&[
            "page fault: read at 0xffffc12345678000, the page is not there",
            "only threads may fault",
            "\"careless\"",
            "cr2 ffffc12345678000",
            "tests/kernels/src/panics.rs",
        ]),
        case("fault_while_a_fault_is_answered").panics(&[
            "page fault: read at 0xffff800e00000",
            "\"unlucky\"",
            "while the thread's own fault was answered: page fault: read at 0xffffc",
            "touch_the_next_page",
            "tests/kernels/src/panics.rs",
            "mm/src/page_table/",
        ]),
        case("panic_in_a_thread").panics(&[
            "this is too much",
            "\"desperate\"",
            "thread 1 \"patient\" waits for notify",
            "cr2 ",
            "cr3 ",
            "give_up_after",
            "tests/kernels/src/panics.rs",
        ]),
        case("one_page_is_loaded_once_on_4_cpus").on(cpus::<4>).traced(),
        case("failed_load_reaches_everyone_on_4_cpus").on(cpus::<4>).traced(),
        case("loads_are_in_flight_together_on_4_cpus")
            .on(|| Setup { cpus: 4, ..stalled() })
            .driven(disk_keeper),
        case("killed_loads_are_finished_on_4_cpus").on(|| Setup { cpus: 4, ..stalled() }).driven(disk_keeper),
        case("pager_thread_faults_on_its_own_page_on_4_cpus").on(cpus::<4>),
        case("unmap_during_a_load_on_4_cpus").on(cpus::<4>),
        case("unmap_storm_on_2_cpus").on(cpus::<2>),
        case("unmap_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("invalidate_storm_on_2_cpus").on(cpus::<2>),
        case("invalidate_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("disk_error_storm_on_4_cpus").on(|| Setup { cpus: 4, ..broken() }).traced(),
        case("killed_threads_leak_nothing_on_4_cpus").on(cpus::<4>),
        case("killed_before_the_first_instruction_on_4_cpus").on(cpus::<4>),
        case("kill_storm_on_2_cpus").on(cpus::<2>),
        case("kill_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("nmi_storm_on_2_cpus").on(cpus::<2>).driven(interrupter),
        case("nmi_storm_on_4_cpus").on(cpus::<4>).driven(interrupter),
        case("denied_accesses_end_a_program_on_4_cpus").on(cpus::<4>),
        case("stack_overflow_is_a_clean_end_on_4_cpus").on(cpus::<4>),
        case("threads_wait_for_what_tasks_wait_for_on_4_cpus").on(cpus::<4>),
        case("kill_ends_a_wait_on_4_cpus").on(cpus::<4>),
        case("heap_storm_on_2_cpus").on(cpus::<2>),
        case("heap_storm_on_4_cpus").on(cpus::<4>),
        case("thread_storm_on_2_cpus").on(cpus::<2>),
        case("thread_storm_on_4_cpus").on(cpus::<4>),
        case("program_storm_on_2_cpus").on(cpus::<2>),
        case("program_storm_on_4_cpus").on(cpus::<4>),
        case("store_storm_on_2_cpus")
            .on(|| Setup { cpus: 2, ..with(TestDisk::offsets(48 * PAGE).writable()) }),
        case("store_storm_on_4_cpus")
            .on(|| Setup { cpus: 4, ..with(TestDisk::offsets(48 * PAGE).writable()) })
            .traced(),
        case("fork_storm_on_2_cpus").on(cpus::<2>),
        case("fork_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("one_page_fork_storm_on_2_cpus").on(cpus::<2>),
        case("one_page_fork_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("protect_storm_on_2_cpus").on(cpus::<2>),
        case("protect_storm_on_4_cpus").on(cpus::<4>).traced(),
        case("readers_outgrow_memory_on_4_cpus")
            .on(|| Setup { cpus: 4, memory_mib: 40, ..with(TestDisk::offsets(160 * MIB)) })
            .within(120),
        case("a_hog_is_the_one_victim")
            .on(|| Setup { memory_mib: 64, ..Setup::default() })
            .driven(one_victim_each),
        case("a_hog_is_the_one_victim_on_4_cpus")
            .on(|| Setup { cpus: 4, memory_mib: 64, ..Setup::default() })
            .driven(one_victim_each)
            .within(120),
        case("million_wakes").within(120),
        case("million_wakes_on_2_cpus").on(cpus::<2>).within(120),
        case("million_wakes_on_4_cpus").on(cpus::<4>).within(120),
        case("ten_thousand_timers"),
        case("ten_thousand_timers_on_2_cpus").on(cpus::<2>),
        case("ten_thousand_timers_on_4_cpus").on(cpus::<4>),
        case("abort_storm"),
        case("abort_storm_on_2_cpus").on(cpus::<2>),
        case("abort_storm_on_4_cpus").on(cpus::<4>),
        case("tasks_share_the_cpus").on(counted),
        case("tasks_share_the_cpus_on_2_cpus").on(cpus::<2>),
        case("tasks_share_the_cpus_on_4_cpus").on(cpus::<4>),
        case("triple_fault").driven(|session| ends_as(session, |outcome| outcome == Outcome::Reset)),
        case("silence")
            .driven(|session| ends_as(session, |outcome| matches!(outcome, Outcome::TimedOut(_))))
            .within(15),
    ]
}

fn case(name: &'static str) -> Case {
    Case::new(name, Kernel::Test("guest-tests"))
}

/// With a disk on which pages 3, 20, 21 and 63 cannot be read.
fn broken() -> Setup {
    let disk = TestDisk::offsets(64 * PAGE).failing(24..25).failing(167..169).failing(511..512);
    with(disk)
}

/// A machine whose time is its instructions, so that a host with other work takes nothing from anybody's share.
fn counted() -> Setup {
    Setup { icount: true, ..Setup::default() }
}

/// A machine with so many CPUs.
fn cpus<const N: u32>() -> Setup {
    Setup { cpus: N, ..Setup::default() }
}

/// A machine whose memory is soon full.
fn small() -> Setup {
    Setup { memory_mib: 40, ..Setup::default() }
}

/// Four CPUs panicked together: one of them reports, and each of the others has stopped by then.
fn everyone_stops(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.panicked_with(&["all at once", " of 4", "backtrace:", "tests/kernels/src/cpus.rs"])?;
    is_one_report(&report)?;
    let stopped = report.console.lines().filter(|line| line.contains(" stopped at 0x")).count();
    ensure!(stopped == 3, "{stopped} of 3 other CPUs have stopped");
    Ok(())
}

/// The machine panicked, and said so once.
fn one_report(session: Session, texts: &[&str]) -> Result<()> {
    let report = session.finish()?;
    report.panicked_with(texts)?;
    is_one_report(&report)
}

fn is_one_report(report: &Report) -> Result<()> {
    let reports =
        report.console.matches("PANIC after").count() + report.console.matches("panic during").count();
    ensure!(reports == 1, "{reports} reports of a panic");
    Ok(())
}

fn with(disk: TestDisk) -> Setup {
    Setup { disks: vec![disk], ..Setup::default() }
}

/// A machine with little memory, and a disk for swap that is large enough for both sides of a fork.
fn swapping(cpus: u32) -> Setup {
    Setup { memory_mib: 64, cpus, swap: Some(TestDisk::zeros(1 << 30)), ..Setup::default() }
}

/// A machine with little memory, and a file of twice that, whose disk is a quick one at first.
fn crawling_file(cpus: u32) -> Setup {
    let disk = TestDisk::offsets(128 * MIB).writable().limited(1_000_000);
    Setup { memory_mib: 64, cpus, ..with(disk) }
}

/// A machine with little memory, and a disk for swap of ten requests a second.
fn crawling_swap(cpus: u32) -> Setup {
    Setup { swap: Some(TestDisk::zeros(256 << 20).limited(10)), ..swapping(cpus) }
}

/// With a disk whose page 3 cannot be read, and page 5 not the first time.
fn failing_loads() -> Setup {
    with(TestDisk::offsets(64 * PAGE).failing(24..25).but(|disk| disk.failing_once.push(40..41)))
}

/// Slot 5 cannot be read, slot 9 not the first time; slot 7 cannot be written, slot 11 not the first time.
fn failing_swap() -> Setup {
    let slot = |number: u64| number * 8..number * 8 + 8;
    let one_sector_of = |number: u64| number * 8..number * 8 + 1;
    let swap = TestDisk::zeros(256 * PAGE).but(|disk| {
        disk.failing.push(slot(5));
        disk.failing_once.push(one_sector_of(9));
        disk.failing_writes.push(slot(7));
        disk.failing_writes_once.push(one_sector_of(11));
    });
    Setup { memory_mib: 64, swap: Some(swap), ..Setup::default() }
}

/// A disk of one request a second, until [`disk_keeper`] lets it go, and a quick one.
fn stalled() -> Setup {
    let quick = TestDisk::offsets(160 * PAGE);
    Setup { disks: vec![quick.clone().limited(1), quick], ..Setup::default() }
}

fn ends_as(session: Session, expected: fn(Outcome) -> bool) -> Result<()> {
    let report = session.finish()?;
    ensure!(expected(report.outcome), "{}", report.ending());
    Ok(())
}

/// The one test of this machine has passed.
pub(crate) fn passed(session: Session) -> Result<()> {
    let report = session.finish()?;
    let name = report.results.first().map(|(name, _)| name.clone()).unwrap_or_default();
    report.test_passed(&name)
}

/// The test has passed, and each of its two rounds has named one victim.
fn one_victim_each(session: Session) -> Result<()> {
    let report = session.finish()?;
    let name = report.results.first().map(|(name, _)| name.clone()).unwrap_or_default();
    report.test_passed(&name)?;
    let named = report.console.lines().filter(|line| line.contains("out of memory: counter")).count();
    ensure!(named == 2, "{named} victims of 2 rounds: {}", report.ending());
    Ok(())
}

/// Lets a stalled disk go when the kernel asks for it.
fn disk_keeper(session: Session) -> Result<()> {
    limit_disk(session, "let the disk go", 0)
}

/// Lets a disk crawl when the kernel asks for it.
fn disk_slower(session: Session) -> Result<()> {
    limit_disk(session, "let the disk crawl", 10)
}

/// Gives the first disk another limit, of so many requests a second, or none, when the kernel asks for it.
fn limit_disk(mut session: Session, when: &str, iops: u64) -> Result<()> {
    // If the machine ends before, its last word decides.
    if session.wait_control(when).is_ok() {
        let limits = json!({ "path": "group0", "property": "limits", "value": { "iops-total": iops } });
        session.qmp()?.call("qom-set", limits)?;
        session.send(b"a")?;
    }
    passed(session)
}

/// A disk whose page 5 cannot be written, one whose first flush fails, one that cannot flush, and one whose pages 9 and 12
/// cannot be written the first time.
fn failing_stores() -> Setup {
    let disk = || TestDisk::offsets(16 * PAGE).writable();
    let broken = disk().but(|disk| disk.failing_writes.push(40..48));
    let flushes = |which| disk().but(|disk| disk.failing_flushes = Some(which));
    let broken_once = disk().but(|disk| disk.failing_writes_once.extend([72..73, 96..97]));
    let disks = vec![broken, flushes(Failing::Once), flushes(Failing::Always), broken_once];
    Setup { disks, ..Setup::default() }
}

/// A file of four times the memory.
fn outgrown(cpus: u32) -> Setup {
    Setup { memory_mib: 64, cpus, ..with(TestDisk::offsets(256 * MIB).writable()) }
}

fn outgrown_twice(cpus: u32) -> Setup {
    Setup { swap: swapping(cpus).swap, ..outgrown(cpus) }
}

/// Each word of the disk is what the kernel was to make of it.
fn rewritten(session: Session) -> Result<()> {
    /// As in the kernel.
    const CHANGE: u64 = 0x5a5a_0000_0000_a5a5;
    let mut image = BufReader::with_capacity(1 << 20, File::open(session.folder().join("disk0.img"))?);
    passed(session)?;
    let mut word = [0; 8];
    for offset in (0..256 * MIB).step_by(8) {
        image.read_exact(&mut word)?;
        let word = u64::from_le_bytes(word);
        ensure!(word == offset ^ CHANGE, "{word:#x} at {offset:#x} of the disk");
    }
    Ok(())
}

/// Interrupts for as long as the machine runs.
fn interrupter(mut session: Session) -> Result<()> {
    session.wait_control("begin")?;
    let mut qmp = session.qmp()?;
    while qmp.inject_nmi().is_ok() {}
    passed(session)
}

/// Types when asked to, each key when the kernel has heard of the one before.
fn typist(mut session: Session) -> Result<()> {
    /// A busy host delays a key by some 100 ms; a disk that delayed it would by seconds.
    const SLOWEST: Duration = Duration::from_secs(1);
    session.wait_control("type")?;
    let mut qmp = session.qmp()?;
    let mut times = Vec::new();
    for key in "faultline".chars() {
        let began = Instant::now();
        qmp.type_keys(&key.to_string(), Duration::from_millis(10))?;
        session.wait_control(&format!("typed {key}"))?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    ensure!(median < SLOWEST, "a key took {} ms to arrive", median.as_millis());
    passed(session)
}
