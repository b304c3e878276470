//! The runner's own program where it takes a machine: statuses, channels, locks.
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use faultline::Workspace;
use faultline::screenshot::Pixels;
use faultline_tests::screen::Picture;
use faultline_tests::suite::{Built, RunnerTest};

/// The tests of the runner's program.
pub(crate) fn tests() -> Vec<RunnerTest> {
    vec![
        ("runner_passes_the_kernels_status_on", statuses),
        ("runner_ends_with_101_after_a_panic", panic),
        ("runner_ends_with_103_after_the_time_limit", time_limit),
        ("runner_keeps_standard_output_for_the_command", channels),
        ("runner_keeps_standard_output_for_the_command_with_uefi", channels_uefi),
        ("runner_plays_a_scenario_and_prints_its_answers_only", vmscript),
        ("runner_gives_the_tour_without_a_terminal", tour),
        ("runner_refuses_a_disk_in_use", locked_disk),
        ("runner_saves_the_screen_when_the_commands_are_done", screenshot),
        ("runner_saves_the_screen_with_uefi", screenshot_uefi),
        ("runner_saves_the_screen_of_a_panic", screenshot_of_a_panic),
        ("runner_saves_the_screen_of_a_panic_with_uefi", screenshot_of_a_panic_uefi),
        ("runner_says_why_there_is_no_screenshot", no_screenshot),
        ("runner_makes_the_picture_of_the_readme", picture_of_the_readme),
        ("runner_is_outlived_by_no_machine", orphan),
        ("runner_ends_its_machine_when_interrupted", interrupt),
    ]
}

fn run(built: &Built, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(&built.runner);
    command.args(["--headless", "--timeout", "100"]).args(args).stdin(Stdio::null());
    command.output().context("the runner does not start")
}

fn ends_with(output: &Output, status: i32) -> Result<()> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.code() == Some(status),
        "{}, not {status}\n{out}\n---- stderr ----\n{err}",
        output.status
    );
    Ok(())
}

fn statuses(built: &Built) -> Result<()> {
    for status in [0, 1, 104, 255] {
        ends_with(&run(built, &["--exec", &format!("exit {status}")])?, status)?;
    }
    Ok(())
}

fn panic(built: &Built) -> Result<()> {
    let output = run(built, &["--exec", "panic"])?;
    ends_with(&output, 101)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.lines().last().is_some_and(|line| line.starts_with("faultline: ")), "{errors}");
    ensure!(output.stdout.is_empty(), "a panic is no output of the command");
    Ok(())
}

fn time_limit(built: &Built) -> Result<()> {
    let mut command = Command::new(&built.runner);
    // The firmware alone takes longer than that.
    command.args(["--uefi", "--timeout", "1", "--exec", "help"]).stdin(Stdio::null());
    let output = command.output()?;
    ends_with(&output, 103)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("faultline: the machine was stopped: no end within 1 s"), "{errors}");
    Ok(())
}

fn only_help(output: &Output) -> Result<()> {
    ends_with(output, 0)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("hash") && text.contains("exit"), "this is no help:\n{text}");
    ensure!(!text.contains("BdsDxe") && !text.contains('\u{1b}'), "the firmware's output is in:\n{text}");
    Ok(())
}

fn channels(built: &Built) -> Result<()> {
    only_help(&run(built, &["--exec", "help"])?)
}

fn vmscript(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.vms");
    let path = file.to_str().context("a path of text")?;
    for (script, answers, status) in [
        (
            &b"ram 1 # \xff\nfile A 9\r\nmap M A 0 9\nread M 8\nread M 9"[..],
            "ok\nok\nok\nvalue 8\nfault mapping\n",
            0,
        ),
        (b"ram 1\nram \xff\n", "ok\nerror syntax\n", 1),
    ] {
        std::fs::write(&file, script)?;
        let output = run(built, &["--vmscript", path])?;
        ends_with(&output, status)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(text == answers, "not what the host answers:\n{text}");
    }
    let output = run(built, &["--vmscript", "/there/is/none"])?;
    ends_with(&output, 104)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("cannot read /there/is/none"), "{errors}");
    Ok(())
}

fn channels_uefi(built: &Built) -> Result<()> {
    only_help(&run(built, &["--uefi", "--exec", "help"])?)
}

fn tour(built: &Built) -> Result<()> {
    let output = run(built, &[])?;
    ends_with(&output, 0)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("sha256 "), "the tour shows no hash:\n{text}");
    Ok(())
}

/// A screen of the size that the boot loader chose, whose last lines have this one among them.
fn has_a_screen(folder: &Path, output: &Output, status: i32, line: &str) -> Result<()> {
    ends_with(output, status)?;
    let file = folder.join("a.png");
    let pixels = Pixels::open(&file)?;
    ensure!(pixels.width >= 640 && pixels.height >= 400, "{} by {}", pixels.width, pixels.height);
    let text = Picture::from_png(&file)?.text();
    ensure!(text.iter().any(|shown| shown == line), "no line {line:?}:\n{}", text.join("\n"));
    ensure!(std::fs::read_dir(folder)?.count() == 1, "more than the picture is left");
    Ok(())
}

fn last_line(output: &Output) -> Result<&str> {
    std::str::from_utf8(&output.stdout)?.lines().last().context("nothing was printed")
}

fn screenshot(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.png");
    let output =
        run(built, &["--screenshot", file.to_str().context("a path of text")?, "--exec", "help; exit 7"])?;
    has_a_screen(folder.path(), &output, 7, last_line(&output)?.trim_end())
}

fn screenshot_uefi(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.png");
    let output =
        run(built, &["--uefi", "--screenshot", file.to_str().context("a path of text")?, "--exec", "help"])?;
    has_a_screen(folder.path(), &output, 0, last_line(&output)?.trim_end())
}

fn screenshot_of_a_panic(built: &Built) -> Result<()> {
    has_the_screen_of_a_panic(built, "--bios")
}

fn screenshot_of_a_panic_uefi(built: &Built) -> Result<()> {
    has_the_screen_of_a_panic(built, "--uefi")
}

/// The machine powers itself off when the report is on its screen: the runner does not end it.
fn has_the_screen_of_a_panic(built: &Built, firmware: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.png");
    let path = file.to_str().context("a path of text")?;
    let output = run(built, &[firmware, "--screenshot", path, "--exec", "panic"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(!errors.contains("no power-off"), "{errors}");
    let report = errors.lines().find(|line| line.contains("PANIC after")).context("no report")?;
    has_a_screen(folder.path(), &output, 101, report.trim_end())
}

/// The command that stands below the picture in README.md makes one like it: what was printed last is seen.
fn picture_of_the_readme(built: &Built) -> Result<()> {
    const PICTURE: &str = "docs/images/console.png";
    let root = Workspace::find()?.root().to_path_buf();
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    ensure!(readme.contains(&format!("]({PICTURE})")), "README.md does not show {PICTURE}");
    ensure!(std::fs::metadata(root.join(PICTURE))?.len() < 60 << 10, "{PICTURE} is too large");
    let line = readme.lines().find(|line| line.starts_with("cargo run -- ") && line.contains(PICTURE));
    let line = line.context("README.md does not tell how its picture is made")?;
    // Every other part between quotation marks is one word.
    let parts = line.trim_start_matches("cargo run -- ").split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.png");
    let path = file.to_str().context("a path of text")?;
    let words: Vec<String> = words.map(|word| if word == PICTURE { path.into() } else { word }).collect();
    let mut command = Command::new(&built.runner);
    let output =
        command.args(words).args(["--timeout", "100"]).current_dir(&root).stdin(Stdio::null()).output()?;
    has_a_screen(folder.path(), &output, 0, last_line(&output)?.trim_end())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let parked = printed.lines().filter(|line| line.contains("parked  page")).count();
    ensure!(parked > 1, "no threads are parked: {printed}");
    let seen = Picture::from_png(&file)?.text();
    let seen: Vec<&String> = seen.iter().filter(|line| !line.is_empty()).collect();
    let printed: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
    let last = |lines: usize| lines.saturating_sub(20);
    ensure!(seen[last(seen.len())..] == printed[last(printed.len())..], "{seen:#?} of {printed:#?}");
    Ok(())
}

/// The machine has no display device: QEMU says so, and an older picture stays.
fn no_screenshot(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.png");
    std::fs::write(&file, "an older one")?;
    let path = file.to_str().context("a path of text")?;
    let output = run(built, &["--screenshot", path, "--exec", "exit 0", "--", "-vga", "none"])?;
    ends_with(&output, 104)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("faultline: there is no screenshot: "), "{errors}");
    ensure!(std::fs::read(&file)? == b"an older one", "the older picture is gone");
    // A QEMU that does not start is told at once, not after a wait for its control.
    let output = run(built, &["--screenshot", path, "--exec", "exit 0", "--", "-bogus"])?;
    ends_with(&output, 104)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("QEMU did not start the machine: "), "{errors}");
    Ok(())
}

fn locked_disk(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("disk.img");
    std::fs::write(&file, [0; 4096])?;
    let path = file.to_str().context("a path that is no text")?;
    let mut first = with_console(built, &["--disk", path])?;
    let refused = run(built, &["--disk", path, "--exec", "exit 0"]);
    first.kill()?;
    first.wait()?;
    let refused = refused?;
    ends_with(&refused, 104)?;
    let errors = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        errors.contains(&format!("faultline: the disk file {path} is in use by another process")),
        "{errors}"
    );
    Ok(())
}

/// A runner that is killed outright takes its QEMU along.
fn orphan(built: &Built) -> Result<()> {
    let mut runner = with_console(built, &[])?;
    let qemu = qemu_of(runner.id()).context("the runner started no QEMU")?;
    runner.kill()?;
    runner.wait()?;
    ends(qemu)
}

/// What Ctrl-C sends ends the machine, not only the runner.
fn interrupt(built: &Built) -> Result<()> {
    let mut runner = with_console(built, &[])?;
    let qemu = qemu_of(runner.id()).context("the runner started no QEMU")?;
    let sent = Command::new("kill").args(["-INT", &runner.id().to_string()]).status()?;
    ensure!(sent.success(), "the signal could not be sent");
    let status = runner.wait()?;
    ensure!(status.code() == Some(130), "{status}, not 130");
    ends(qemu)
}

/// A runner whose machine waits for commands: QEMU has its disks, and has no more to print.
fn with_console(built: &Built, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(&built.runner);
    command.args(["--console", "--no-tour", "--timeout", "100"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut runner = command.spawn().context("the runner does not start")?;
    let mut byte = [0];
    while byte != *b">" {
        runner.stdout.as_mut().context("it is piped")?.read_exact(&mut byte).context("there is no prompt")?;
    }
    Ok(runner)
}

fn ends(process: u32) -> Result<()> {
    for _ in 0..500 {
        if !is_alive(process) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("QEMU, process {process}, outlives its runner")
}

/// The QEMU of a runner that has started one.
fn qemu_of(runner: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let (name, fields) = stat(pid)?;
        (name.starts_with("qemu") && fields.get(1)?.parse() == Ok(runner)).then_some(pid)
    })
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, fields)| fields.first().is_some_and(|state| state != "Z"))
}

/// The name of a process, and what follows it in /proc: state, parent, ...
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (front, fields) = text.rsplit_once(") ")?;
    let name = front.split_once('(')?.1.to_owned();
    Some((name, fields.split(' ').map(str::to_owned).collect()))
}
