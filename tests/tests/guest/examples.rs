//! The prototype kernels of `examples/`, each run as a user runs it.
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use faultline_tests::qmp::Qmp;
use faultline_tests::suite::{Built, RunnerTest};

/// As the documentation promises.
const MOST_LINES: usize = 60;

/// The tests of the examples.
pub(crate) fn tests() -> Vec<RunnerTest> {
    vec![
        ("every_example_is_short_and_has_a_test", all),
        ("example_own_pager", own_pager),
        ("example_own_policy", own_policy),
        ("example_own_order", own_order),
        ("example_own_driver", own_driver),
        ("example_racing_waits", racing_waits),
    ]
}

fn all(_: &Built) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/src/bin");
    let tested: BTreeSet<String> = tests()
        .iter()
        .filter_map(|(name, _)| Some(name.strip_prefix("example_")?.replace('_', "-")))
        .collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let lines = fs::read_to_string(&path)?.lines().count();
        ensure!(lines < MOST_LINES, "{} has {lines} lines", path.display());
        found.insert(path.file_stem().and_then(|stem| stem.to_str()).context("a name of text")?.to_owned());
    }
    ensure!(found == tested, "examples {found:?}, tests for {tested:?}");
    Ok(())
}

/// Starts an example, with a serial line.
fn start(built: &Built, name: &str, qemu_args: &[&str]) -> Result<Child> {
    let mut command = Command::new(&built.runner);
    command.args(["--headless", "--console", "--timeout", "100", "--example", name, "--"]).args(qemu_args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the runner does not start")
}

/// The lines that an example prints until it ends well.
fn lines(mut example: Child) -> Result<Vec<String>> {
    let mut text = String::new();
    example.stdout.take().context("it was taken")?.read_to_string(&mut text)?;
    let status = example.wait()?;
    ensure!(status.success(), "{status}\n{text}");
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn own_pager(built: &Built) -> Result<()> {
    let lines = lines(start(built, "own-pager", &[])?)?;
    ensure!(lines.iter().any(|line| line == "500000000 squared is 250000000000000000"), "{lines:?}");
    Ok(())
}

/// The number behind the name of a part, and behind a colon.
fn number(lines: &[String], part: &str) -> Result<u64> {
    let line = lines.iter().find_map(|line| line.strip_prefix(part)?.strip_prefix(": "));
    let number = line.and_then(|line| line.split(' ').next()?.parse().ok());
    number.with_context(|| format!("nothing is said of {part}: {lines:?}"))
}

/// Where what was used longest ago goes, each touch of a loop that is too long is a load.
fn own_policy(built: &Built) -> Result<()> {
    let lines = lines(start(built, "own-policy", &[])?)?;
    let (second_chance, dice) = (number(&lines, "second chance")?, number(&lines, "dice")?);
    ensure!(dice * 10 < second_chance * 7, "{dice} loads by dice, {second_chance} by second chance");
    Ok(())
}

/// Behind a hundred polls, or behind one.
fn own_order(built: &Built) -> Result<()> {
    let lines = lines(start(built, "own-order", &[])?)?;
    let (usual, own) = (number(&lines, "first in, first out")?, number(&lines, "sleeper first")?);
    ensure!(own * 2 < usual, "{own} us late in the order of its own, {usual} us in the usual one");
    Ok(())
}

/// What an entropy device says twice is not the same.
fn own_driver(built: &Built) -> Result<()> {
    let lines = lines(start(built, "own-driver", &[])?)?;
    let numbers = lines.iter().find_map(|line| line.strip_prefix("random: ")).context("no random bytes")?;
    let (one, other) = numbers.split_once(' ').context("two numbers")?;
    ensure!(one != other && ![one, other].contains(&format!("{:#034x}", 0).as_str()), "{numbers}");
    let mut without = Command::new(&built.runner);
    without.args(["--headless", "--timeout", "100", "--kernel-package", "faultline-examples"]);
    let status = without.args(["--kernel-bin", "own-driver"]).stdin(Stdio::null()).status()?;
    ensure!(status.code() == Some(1), "{status} on a machine without the device");
    Ok(())
}

fn racing_waits(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let mut example = start(built, "racing-waits", &["-qmp", &qmp])?;
    let mut output = BufReader::new(example.stdout.take().context("it was taken")?);
    let mut text = String::new();
    while !text.contains("press keys") {
        ensure!(output.read_line(&mut text)? > 0, "it ended: {text}");
    }
    Qmp::connect(&socket)?.type_keys("k", Duration::from_millis(10))?;
    example.stdin.as_mut().context("it has a serial line")?.write_all(b"s")?;
    output.read_to_string(&mut text)?;
    let status = example.wait()?;
    ensure!(status.success(), "{status}\n{text}");
    for said in [
        "keyboard: Unicode('k')",
        "serial line: 115",
        "mutex: the task before had it",
        "join: 42",
        "timer: the end",
    ] {
        ensure!(text.contains(said), "`{said}` is not in\n{text}");
    }
    Ok(())
}
