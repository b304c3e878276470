//! Runs that are recorded, and walked through again.
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use faultline_tests::TestDisk;
use faultline_tests::suite::{Built, RunnerTest};

/// The tests of `--record` and `--replay`.
pub(crate) fn tests() -> Vec<RunnerTest> {
    vec![
        ("a_replay_prints_the_same_to_the_byte", same),
        ("a_replay_swaps_the_same_pages", swaps),
        ("what_was_typed_is_replayed_without_typing", is_typed),
        ("a_run_that_was_stopped_is_replayed_with_its_status", is_stopped),
        ("a_panic_is_replayed_with_its_status", panics),
        ("a_record_does_not_fit_another_disk", another_disk),
    ]
}

fn runner(built: &Built, folder: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(&built.runner);
    let limit: &[&str] = if words.contains(&"--timeout") { &[] } else { &["--timeout", "200"] };
    command.arg("--headless").args(limit).args(words).current_dir(folder).stdin(Stdio::null());
    command.output().context("the runner does not start")
}

/// Records a run and replays it: both end with `status`, and print the same on both of their outputs.
fn twice(built: &Built, folder: &Path, words: &[&str], status: i32) -> Result<String> {
    let first = runner(built, folder, &[&["--record", "run"], words].concat())?;
    let errors = String::from_utf8_lossy(&first.stderr);
    ensure!(first.status.code() == Some(status), "{}, not {status}: {errors}", first.status);
    let again = runner(built, folder, &["--replay", "run"])?;
    let other = String::from_utf8_lossy(&again.stderr);
    ensure!(again.status.code() == Some(status), "replayed: {}, not {status}: {other}", again.status);
    ensure!(first.stdout == again.stdout, "another output: {}", String::from_utf8_lossy(&again.stdout));
    ensure!(first.stderr == again.stderr, "another console:\n{errors}\nand then:\n{other}");
    Ok(String::from_utf8_lossy(&first.stdout).into_owned())
}

/// The seed of what looks random, another one each second. A failed test tells it, and is given it back by this variable.
fn seed() -> Result<u64> {
    const VARIABLE: &str = "FAULTLINE_SEED";
    let seed = match std::env::var(VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{VARIABLE}={seed} is no number"))?,
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    };
    println!("{VARIABLE}={seed}");
    Ok(seed)
}

/// Sectors that look random.
fn random_sectors(bytes: u64, seed: u64) -> Vec<String> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (bytes / 512)
    };
    (0..6).map(|_| next().to_string()).collect()
}

/// Eight threads over a slow disk, some of whose sectors fail: times, orders and errors are those of the record. What the
/// disk held is there afterwards.
fn same(built: &Built) -> Result<()> {
    const BYTES: u64 = 2 << 20;
    let folder = tempfile::tempdir()?;
    TestDisk::offsets(BYTES).writable().make(folder.path(), "disk0")?;
    let file = fs::read_dir(folder.path())?.next().context("a disk")??.path();
    let before = fs::read(&file)?;
    let mut words = vec!["--disk", file.to_str().context("a path of text")?, "--disk-iops", "400"];
    let sectors = random_sectors(BYTES, seed()?);
    sectors.iter().for_each(|sector| words.extend(["--disk-fail", sector]));
    words.extend(["--exec", "hash --threads 8; faults; ps"]);
    let text = twice(built, folder.path(), &words, 1)?;
    ensure!(text.contains("parked for"), "{text}");
    let failed = text.lines().find(|line| line.ends_with(" failed")).context("faults tells of failures")?;
    ensure!(!failed.trim().starts_with("0 "), "no sector has failed: {text}");
    ensure!(fs::read(&file)? == before, "the disk has changed");
    Ok(())
}

/// More memory is used than there is: pages leave for a disk and come back.
fn swaps(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let words = ["--memory", "64M", "--swap", "swap", "--exec", "pressure 100"];
    let text = twice(built, folder.path(), &words, 0)?;
    let line = text.lines().find(|line| line.starts_with("swap ")).context("pressure tells of swap")?;
    let out: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    ensure!(out > 500, "only {out} pages have left for swap");
    Ok(())
}

/// Lines are typed at the console, with an edit and an answer that takes its time between them; the replay has no input. They
/// are short, as the port has room for 16 bytes at once.
fn is_typed(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(&built.runner);
    command.args(["--headless", "--timeout", "200", "--record", "run", "--console", "--no-tour"]);
    command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut runner = command.spawn().context("the runner does not start")?;
    let mut input = runner.stdin.take().context("it is piped")?;
    let mut output = runner.stdout.take().context("it is piped")?;
    let mut first = Vec::new();
    for line in ["hash\r", "pss\x7f\r", "exit 7\r"] {
        let mut byte = [0];
        while byte != *b">" {
            output.read_exact(&mut byte).context("there is no prompt")?;
            first.extend(byte);
        }
        input.write_all(line.as_bytes())?;
    }
    output.read_to_end(&mut first)?;
    let status = runner.wait()?;
    let text = String::from_utf8_lossy(&first);
    ensure!(status.code() == Some(7), "{status}: {text}");
    ensure!(text.contains("sha256 ") && text.contains(" ticker "), "not all was answered: {text}");
    let again = self::runner(built, folder.path(), &["--replay", "run"])?;
    ensure!(again.status.code() == Some(7), "replayed: {}", again.status);
    ensure!(first == again.stdout, "{text}\nand then:\n{}", String::from_utf8_lossy(&again.stdout));
    Ok(())
}

/// The runner stops the machine at the time limit, which is not that of the replay.
fn is_stopped(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    twice(built, folder.path(), &["--timeout", "12", "--exec", "ps; ticks 3600"], 103).map(drop)
}

fn panics(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    twice(built, folder.path(), &["--exec", "panic"], 101).map(drop)
}

fn another_disk(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("disk");
    fs::write(&file, [1; 4096])?;
    twice(built, folder.path(), &["--disk-ro", "disk", "--exec", "hash"], 0)?;
    fs::write(&file, [2; 4096])?;
    let refused = runner(built, folder.path(), &["--replay", "run"])?;
    let errors = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(104), "{}: {errors}", refused.status);
    ensure!(errors.contains("was made with another disk disk0 (disk)"), "{errors}");
    Ok(())
}
