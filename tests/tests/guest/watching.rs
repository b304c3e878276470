//! What the console tells of what goes on: log, faults, records, and the report of a panic.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faultline_tests::{Case, Kernel, Session, Setup, TestDisk};

const PATIENCE: Duration = Duration::from_secs(30);

/// The tests of what can be watched.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, setup: fn() -> Setup| Case::new(name, Kernel::Main).on(setup);
    vec![
        case("log_levels_are_set_at_boot_and_at_the_console", || Setup {
            console: true,
            cmdline: "log=kernel::machine=debug,warn".into(),
            ..with_disk("")
        })
        .driven(log_levels),
        case("faults_are_counted_by_kind_and_time", || with_disk("hash --disk disk0; faults"))
            .driven(fault_times),
        case("top_goes_on_until_a_key_is_pressed", || Setup { console: true, ..with_disk("") }).driven(top),
        case("top_behind_a_line_leaves_the_keys_to_the_console", || Setup { console: true, ..with_disk("") })
            .driven(top_behind),
        case("top_ends_after_so_many_pictures", || with_disk("top 2; top; exit 50")).driven(top_by_number),
        case("top_shows_what_threads_did_and_wait_for", || Setup {
            disks: vec![TestDisk::offsets(1 << 20).limited(1)],
            ..with_disk("hash --disk disk0 --threads 4 & top 2; exit 52")
        })
        .driven(top_of_parked),
        case("ps_names_the_longest_polls", || with_disk("hash --disk disk0; ps")).driven(longest_polls),
        case("records_are_shown_as_text", || {
            with_disk("trace last 1; trace on; hash --disk disk0 --length 4096; trace off; trace last 500")
        })
        .driven(records),
        case("tasks_are_in_the_records_by_name", || {
            with_disk("trace on; ticks 1 & hash --disk disk0 --length 4096; trace off; trace last 500")
        })
        .driven(recorded_tasks),
        case("panic_report_has_requests_under_way", || Setup {
            disks: vec![TestDisk::offsets(1 << 20).limited(1)],
            ..with_disk("hash --disk disk0 & ticks 1; panic")
        })
        .driven(panic_with_requests),
    ]
}

fn with_disk(exec: &str) -> Setup {
    let exec = (!exec.is_empty()).then(|| exec.into());
    Setup { exec, disks: vec![TestDisk::offsets(1 << 20)], ..Setup::default() }
}

fn log_levels(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.wait_console("DEBUG kernel::machine: disk disk0: 1048576 bytes", PATIENCE)?;
    session.send(b"log\r")?;
    session.wait_console("warn,kernel::machine=debug", PATIENCE)?;
    session.send(b"log loud\r")?;
    session.wait_console("error: it is a list", PATIENCE)?;
    session.send(b"log info,mm=trace; hash --length 65536; log off; log\r")?;
    let between = session.wait_console("TRACE mm: page ", PATIENCE)?;
    ensure!(!between.contains("TRACE kernel"), "others are logged too: {between}");
    session.wait_console("\noff", PATIENCE)?;
    session.send(b"hash\r")?;
    session.wait_console("faultline> hash", PATIENCE)?;
    session.send(b"exit 48\r")?;
    let rest = session.wait_console("faultline> exit", PATIENCE)?;
    ensure!(!rest.contains("TRACE"), "it is still logged: {rest}");
    session.finish()?.ended_with(48)
}

/// The numbers in the columns of a table, of the lines whose last column or first words are these.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn fault_times(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(0)?;
    let lines = || report.exec.lines();
    let line = |what: &str| lines().find(|line| line.contains(what)).with_context(|| report.exec.clone());
    let parked = numbers(line("parked the thread")?)[0];
    ensure!(parked > 0, "{}", report.exec);
    // Below the heads: a bound with its unit, then the counts.
    let rows = lines().skip_while(|line| !line.contains("parked up to")).skip(1);
    let rows = rows.take_while(|line| !line.contains('%'));
    let counts = rows.map(|row| row.split_whitespace().skip(2).filter_map(|word| word.parse::<u64>().ok()));
    let counts: Vec<Vec<u64>> = counts.map(Iterator::collect).collect();
    let sum = |column: usize| counts.iter().map(|row| row[column]).sum::<u64>();
    let sums = [sum(0), sum(1), sum(2), sum(3)];
    ensure!(sums.iter().sum::<u64>() == parked, "{sums:?} of {parked}: {}", report.exec);
    ensure!(sums[0] > 0, "the disk was read: {}", report.exec);
    for what in ["50 % up to", "99 % up to", "the longest"] {
        line(what)?;
    }
    Ok(())
}

fn top(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.send(b"top\r")?;
    for _ in 0..3 {
        session.wait_console("busy %", PATIENCE)?;
        session.wait_console("ticker", PATIENCE)?;
    }
    session.send(b"q")?;
    session.wait_console("faultline> ", PATIENCE)?;
    // The key was for `top`.
    session.send(b"exit 49\r")?;
    session.finish()?.ended_with(49)
}

/// While a command runs, nobody reads the keys: one behind the line does not begin to.
fn top_behind(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.wait_console("faultline> ", PATIENCE)?;
    session.send(b"top & ticks 3\r")?;
    session.wait_console("ticks 3\r\n", PATIENCE)?;
    let answers = session.wait_console("faultline> ", PATIENCE)?;
    let pictures = answers.matches("busy %").count();
    ensure!(pictures == 1, "{pictures} pictures: {answers}");
    session.send(b"exit 51\r")?;
    session.finish()?.ended_with(51)
}

fn recorded_tasks(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(0)?;
    let command =
        report.exec.lines().find(|line| line.contains(" command  ") && line.ends_with("is spawned"));
    let command = command.with_context(|| format!("no task was spawned: {}", report.exec))?;
    let name = command.split("  ").find(|part| part.ends_with(" command")).context("a name")?.trim();
    for what in ["is polled", "waits", "the poll ends"] {
        let is_told = |line: &str| line.contains(name) && line.ends_with(what);
        ensure!(report.exec.lines().any(is_told), "{name:?} {what}? {}", report.exec);
    }
    Ok(())
}

fn top_by_number(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(50)?;
    let pictures = report.exec.matches("busy %").count();
    ensure!(pictures == 3, "{pictures} pictures: {}", report.exec);
    // The task that runs every 10 ms has had its turns.
    let ticker = report.exec.lines().find(|line| line.contains("ticker")).context("no ticker")?;
    let polls = numbers(ticker)[1];
    ensure!((10..=200).contains(&polls), "{ticker}");
    ensure!(!report.exec.contains('\x1b'), "a file is no terminal: {}", report.exec);
    Ok(())
}

/// The rows of a table, as cells, by the beginning of its heads.
fn rows<'a>(text: &'a str, heads: &str) -> Result<Vec<Vec<&'a str>>> {
    let mut lines =
        text.lines().skip_while(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") != heads);
    lines.next().with_context(|| format!("no table of {heads:?} in {text}"))?;
    let cells = |line: &'a str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    Ok(lines.take_while(|line| !line.is_empty()).map(cells).collect())
}

fn top_of_parked(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(52)?;
    let threads = rows(&report.exec, "thread name ran polls faults parks parked waits for since")?;
    let hashing: Vec<_> = threads.iter().filter(|row| row.get(1) == Some(&"hash")).collect();
    ensure!(hashing.len() == 4, "{}", report.exec);
    ensure!(hashing.iter().any(|row| row.get(7) == Some(&"page")), "{}", report.exec);
    let tasks = rows(&report.exec, "task name ran polls waits for since")?;
    ensure!(
        tasks.iter().any(|row| row.contains(&"virtio-blk") && row.contains(&"block I/O")),
        "{}",
        report.exec
    );
    Ok(())
}

/// Of each CPU, and of each name of tasks.
fn longest_polls(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(0)?;
    let cpus = rows(&report.exec, "cpu busy idle polls steals kicks timer longest whose")?;
    let tasks = rows(&report.exec, "task name state waits for since polls longest")?;
    ensure!(!cpus.is_empty(), "{}", report.exec);
    for cpu in &cpus {
        let [.., longest, whose] = cpu[..] else { anyhow::bail!("{}", report.exec) };
        ensure!(longest.ends_with('s') && !whose.is_empty() && cpu.len() == 9, "{}", report.exec);
    }
    // A poll that is dear on a CPU is dear for its task's name; that of the boot is still there.
    let of_names = tasks.iter().filter(|row| row.get(1) == Some(&"main"));
    let mut longest = of_names.filter_map(|row| row.last()).filter(|cell| cell.ends_with('s'));
    ensure!(longest.next().is_some(), "{}", report.exec);
    Ok(())
}

fn records(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(0)?;
    let first = report.exec.lines().next().unwrap_or_default();
    ensure!(first.starts_with("nothing was recorded"), "{first}");
    let order = [
        "page fault: read at",
        "page 0: absent -- read --> loading",
        "its pager is asked to load page 0",
        "disk0",
        "completes the request",
        "page 0: loading -- load done --> loaded",
        "its fault is resolved",
        "goes on",
    ];
    let mut rest = report.exec.as_str();
    for what in order {
        rest = rest.split_once(what).with_context(|| format!("no {what:?} in {}", report.exec))?.1;
    }
    ensure!(report.exec.contains(" hash  "), "the thread has no name: {}", report.exec);
    // It was there long before anything was recorded.
    let is_polled = |line: &str| line.contains(" block-loads  ") && line.ends_with("is polled");
    ensure!(report.exec.lines().any(is_polled), "the pager's task is not told of: {}", report.exec);
    Ok(())
}

fn panic_with_requests(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.panicked_with(&["the console was told to panic", "waits for page"])?;
    let line = report.console.lines().find(|line| line.contains("requests under way"));
    let line = line.context("no word about requests")?;
    ensure!(line.starts_with("disk0: "), "{line}");
    ensure!(numbers(line)[0] > 0, "{line}");
    Ok(())
}
