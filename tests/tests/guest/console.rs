//! The kernel's console, driven by serial line and keyboard.
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faultline_tests::{Case, Kernel, Session, Setup, TestDisk};

/// The console tests.
pub(crate) fn cases() -> Vec<Case> {
    let console = |name, driver| Case::new(name, Kernel::Main).on(with_console).driven(driver);
    let exec = |name, command: &'static str| {
        Case::new(name, Kernel::Main).on(move || Setup { exec: Some(command.into()), ..Setup::default() })
    };
    vec![
        console("console_commands_come_by_serial_line", serial_line),
        console("console_commands_come_by_keyboard", keyboard),
        console("console_lines_are_edited_by_serial_line", edits_by_serial_line),
        console("console_lines_are_edited_by_keyboard", edits_by_keyboard),
        console("console_survives_garbage", garbage),
        console("console_survives_lines_of_64_kib", long_lines),
        console("console_survives_unknown_commands", unknown_commands),
        exec("console_shows_how_a_command_is_used", "ps x; bench faults; trace last; top 0; exit 256; help")
            .driven(usages),
        Case::new("sync_flushes_all_disks", Kernel::Main).on(with_sync).driven(sync),
        Case::new("pressure_uses_more_memory_than_there_is", Kernel::Main).on(with_swap).driven(pressure),
        exec("panic_report_is_symbolised", "panic").driven(panic_report),
        Case::new("interrupt_to_woken_task_is_short", Kernel::Main).on(counted).driven(wake_by_interrupt),
        Case::new("faults_take_no_more_than_their_limits", Kernel::Main)
            .on(counted_faults)
            .driven(fault_costs)
            .within(300),
    ]
}

/// A command that was not understood is told with the words that it takes, and the next one is run.
fn usages(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(2)?;
    let usages: Vec<&str> = report.exec.lines().filter_map(|line| line.strip_prefix("usage: ")).collect();
    let wanted = ["ps", "bench executor|mm|read|swap", "trace on|off|last N", "top [N]", "exit [STATUS]"];
    ensure!(usages == wanted, "{usages:?} in {}", report.exec);
    ensure!(report.exec.contains("Commands are separated by"), "help was not run: {}", report.exec);
    Ok(())
}

fn with_sync() -> Setup {
    let exec = Some("sync disk0; sync; sync nodisk".into());
    Setup { exec, disks: vec![TestDisk::offsets(1 << 20).writable()], ..Setup::default() }
}

/// What is wrong is said, and the rest is done.
fn sync(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(2)?;
    ensure!(report.exec.contains("there is no disk of that name"), "{}", report.exec);
    Ok(())
}

/// Half as much memory as is wanted, and a disk for the rest.
fn with_swap() -> Setup {
    Setup {
        memory_mib: 64,
        exec: Some("pressure 100; mem".into()),
        disks: vec![TestDisk::offsets(8 << 20).writable()],
        swap: Some(TestDisk::zeros(256 << 20)),
        ..Setup::default()
    }
}

/// What it has cost is said, and `mem` shows where everything is.
fn pressure(session: Session) -> Result<()> {
    // Its folder goes with the machine.
    let mut file = File::open(session.folder().join("disk0.img"))?;
    let report = session.finish()?;
    report.ended_with(0)?;
    let line = |first: &str| {
        let found = report.exec.lines().find(|line| line.starts_with(first));
        found.with_context(|| format!("no line {first:?} in {}", report.exec))
    };
    let out: u64 = line("swap ")?.split_whitespace().nth(1).context("a number")?.parse()?;
    ensure!(out > 1000, "{out} pages have left for swap");
    let stored: u64 = line("stores ")?.split_whitespace().nth(1).context("a number")?.parse()?;
    ensure!(stored > 100, "{stored} pages of the file were stored");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let is_as_before = |(word, at): (&[u8], usize)| word == (at as u64).to_le_bytes();
    ensure!(bytes.chunks_exact(8).zip((0..).step_by(8)).all(is_as_before), "the file is not what it was");
    ensure!(line("ticks")?.contains("99th percentile"), "{}", report.exec);
    for what in ["kept for writing pages out", "without a pager", "dirty pages", "free slots", "second use"] {
        ensure!(report.exec.contains(what), "mem does not show {what:?}: {}", report.exec);
    }
    Ok(())
}

fn with_console() -> Setup {
    Setup { console: true, disks: vec![TestDisk::offsets(1 << 20)], ..Setup::default() }
}

/// A machine that counts instructions: its clock goes on by one with each.
fn counted() -> Setup {
    Setup { icount: true, exec: Some("bench executor".into()), ..Setup::default() }
}

/// From an interrupt to the first instruction of the task that it wakes.
fn wake_by_interrupt(session: Session) -> Result<()> {
    const MOST: u64 = 300;
    let report = session.finish()?;
    report.ended_with(0)?;
    let median =
        report.exec.lines().find_map(|line| line.strip_prefix("median")).context("there is a median")?;
    let instructions: u64 = median.trim().parse()?;
    // Fewer would not be possible: it was not the interrupt that woke the task, or nothing was counted.
    ensure!((60..=MOST).contains(&instructions), "{instructions} instructions");
    Ok(())
}

/// The same with 1 GiB for a fork.
fn counted_faults() -> Setup {
    Setup { memory_mib: 1400, exec: Some("bench mm".into()), ..counted() }
}

/// No line's median is above its limit.
fn fault_costs(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(0)?;
    let mut lines = 0;
    for line in report.exec.lines() {
        let numbers: Vec<u64> = line.split_whitespace().rev().map_while(|word| word.parse().ok()).collect();
        let [_mean, median, most] = numbers[..] else { continue };
        ensure!((20..=most).contains(&median), "{line}");
        lines += 1;
    }
    ensure!(lines >= 12, "{lines} lines in {}", report.exec);
    Ok(())
}

/// The console is there and does what it is told.
fn ends_on_command(mut session: Session, status: u8) -> Result<()> {
    session.send(format!("\rexit {status}\r").as_bytes())?;
    session.finish()?.ended_with(status)
}

fn serial_line(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.send(b"help\r")?;
    session.wait_console("hash", Duration::from_secs(20))?;
    ends_on_command(session, 41)
}

fn keyboard(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.qmp()?.type_last_keys("exit 42\n", Duration::from_millis(40))?;
    session.finish()?.ended_with(42)
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Completion, history, and the middle of a line.
fn edits_by_serial_line(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.send(b"tic\t")?;
    session.wait_console("> ticks ", PATIENCE)?;
    session.send(b"\x15nobody\r")?;
    session.wait_console("no command 'nobody'", PATIENCE)?;
    session.send(b"\x1b[A\r")?;
    session.wait_console("no command 'nobody'", PATIENCE)?;
    session.send(b"sync d\t")?;
    session.wait_console("sync disk0 ", PATIENCE)?;
    session.send(b"\x15xit 9\x01e\x05\x7f46\r")?;
    session.finish()?.ended_with(46)
}

fn edits_by_keyboard(mut session: Session) -> Result<()> {
    const HOLD: Duration = Duration::from_millis(40);
    session.wait_ready()?;
    let mut qmp = session.qmp()?;
    qmp.type_keys("nobody\n", HOLD)?;
    session.wait_console("no command 'nobody'", PATIENCE)?;
    qmp.press("up")?;
    qmp.press("ret")?;
    session.wait_console("no command 'nobody'", PATIENCE)?;
    qmp.type_keys("hel\t\n", HOLD)?;
    session.wait_console("lists the commands", PATIENCE)?;
    qmp.type_keys("xit9", HOLD)?;
    qmp.press("home")?;
    qmp.type_keys("e", HOLD)?;
    qmp.press("end")?;
    qmp.press("left")?;
    qmp.press("delete")?;
    qmp.type_last_keys(" 47\n", HOLD)?;
    session.finish()?.ended_with(47)
}

fn garbage(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    // All bytes but line ends: control characters, broken UTF-8, escape sequences that never end.
    let bytes: Vec<u8> = (0..4096_u32).map(|index| (index * 151 % 256) as u8).collect();
    let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    session.send(&bytes)?;
    session.send(b"\r\x1b[\r\xff\xfe\r")?;
    ends_on_command(session, 43)
}

fn long_lines(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    for fill in [b'x', b' ', b'"'] {
        session.send(&vec![fill; 64 << 10])?;
        session.send(b"\r")?;
    }
    ends_on_command(session, 44)
}

fn unknown_commands(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.send(
        b"frobnicate --hard\rhash --threads\rhash --threads 0\rexit many\rtouch -1\rrun\rrun nobody\r",
    )?;
    session.wait_console("frobnicate", Duration::from_secs(20))?;
    ends_on_command(session, 45)
}

fn panic_report(session: Session) -> Result<()> {
    let report = session.finish()?;
    report.panicked_with(&["panic", "cr2", "#0 0x"].map(|text| text))?;
    ensure!(
        report.console.contains("kernel/src/"),
        "no address of the backtrace became a file of the kernel"
    );
    Ok(())
}
