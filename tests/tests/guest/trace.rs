//! The runner's `--trace`, as a user has it: the file, its tracks and its arrows.
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use faultline_tests::suite::{Built, RunnerTest};
use serde_json::Value;

/// The tests of `--trace`.
pub(crate) fn tests() -> Vec<RunnerTest> {
    vec![
        ("trace_has_a_track_for_everything_and_arrows_with_both_ends", |built| whole(built, "1")),
        ("trace_has_a_track_for_everything_and_arrows_with_both_ends_on_4_cpus", |built| whole(built, "4")),
        ("trace_of_a_panic_is_whole", panic),
        ("trace_that_cannot_be_written_is_refused_before_anything_is_built", refused),
    ]
}

struct Trace {
    events: Vec<Value>,
    lost: u64,
}

/// Runs the runner with a trace into a file, and reads that.
fn traced(built: &Built, status: i32, args: &[&str]) -> Result<Trace> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("out.json");
    let mut command = Command::new(&built.runner);
    command.args(["--headless", "--timeout", "100", "--trace"]).arg(&file).args(args).stdin(Stdio::null());
    let output = command.output().context("the runner does not start")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "{}, not {status}\n{errors}", output.status);
    read(&file)
}

fn read(file: &Path) -> Result<Trace> {
    let mut whole: Value = serde_json::from_slice(&std::fs::read(file)?).context("this is no JSON")?;
    let lost = whole["otherData"]["lost records"].as_u64().context("nothing says what was lost")?;
    let Value::Array(events) = whole["traceEvents"].take() else { anyhow::bail!("there are no events") };
    Ok(Trace { events, lost })
}

impl Trace {
    fn of<'a>(&'a self, ph: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["ph"] == ph)
    }

    /// Whether a process has a track whose name begins so.
    fn has_track(&self, pid: u64, name: &str) -> bool {
        self.of("M").any(|event| {
            event["name"] == "thread_name"
                && event["pid"] == pid
                && event["args"]["name"].as_str().is_some_and(|of| of.starts_with(name))
        })
    }

    /// Each arrow begins where a thread has a fault and ends where something runs.
    fn check_arrows(&self) -> Result<usize> {
        let ends: HashMap<u64, &Value> =
            self.of("f").filter_map(|event| Some((event["id"].as_u64()?, event))).collect();
        let mut arrows = 0;
        for start in self.of("s") {
            let end = start["id"].as_u64().and_then(|id| ends.get(&id)).context("an arrow without an end")?;
            let (from, to) = (start["ts"].as_f64(), end["ts"].as_f64());
            ensure!(from <= to, "an arrow back in time: {start} {end}");
            ensure!(start["pid"] == 2 && end["pid"] == 1, "not from a thread to a CPU: {start} {end}");
            arrows += 1;
        }
        ensure!(arrows == self.of("f").count(), "an end without an arrow");
        Ok(arrows)
    }
}

fn whole(built: &Built, cpus: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.img");
    std::fs::write(&disk, vec![5; 1 << 20])?;
    let disk = disk.to_str().context("a path of text")?;
    let trace = traced(built, 0, &["--smp", cpus, "--disk", disk, "--exec", "hash --threads 4"])?;
    ensure!(trace.lost == 0, "{} records lost", trace.lost);
    for cpu in 0..cpus.parse::<u32>()? {
        ensure!(trace.has_track(1, &format!("CPU {cpu}")), "CPU {cpu} has no track");
    }
    for (pid, name) in [(3, "virtio-blk"), (3, "block-loads"), (4, "disk0"), (6, "disk0 object")] {
        ensure!(trace.has_track(pid, name), "{name} has no track");
    }
    ensure!(
        trace.of("M").any(|event| event["pid"] == 2 && event["name"] == "thread_name"),
        "no thread has a track"
    );
    let arrows = trace.check_arrows()?;
    ensure!(arrows >= 4, "four threads made {arrows} faults");
    let (begun, ended) = (trace.of("b").count(), trace.of("e").count());
    ensure!(begun == ended && begun > 0, "{begun} requests begun, {ended} ended");
    let asked = trace.of("b").filter(|event| event["pid"] == 6 && event["args"]["not ended"] == 0);
    let pages: u64 = asked.filter_map(|event| event["args"]["pages"].as_u64()).sum();
    ensure!(pages >= 256, "a pager was asked for {pages} pages of 256");
    let loads = trace.of("i").filter(|event| event["args"]["event"] == "load done").count();
    ensure!(loads >= 256, "a disk of 256 pages took {loads} loads");
    Ok(())
}

fn panic(built: &Built) -> Result<()> {
    let trace = traced(built, 101, &["--exec", "panic"])?;
    ensure!(trace.has_track(1, "CPU 0"), "the boot CPU has no track");
    trace.check_arrows()?;
    Ok(())
}

fn refused(built: &Built) -> Result<()> {
    let output = Command::new(&built.runner)
        .args(["--trace", "/there/is/none.json", "--exec", "help"])
        .stdin(Stdio::null())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(104), "{}, not 104\n{errors}", output.status);
    ensure!(errors.contains("faultline: cannot write /there/is/none.json"), "{errors}");
    Ok(())
}
