//! A machine under test, as a test drives it.
use std::io::Write;
use std::process::ChildStdin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use faultline::control::Control;
use faultline::machine::Heard;
use faultline::{Machine, MachineConfig, Outcome, Sinks};
use serde_json::json;
use tempfile::TempDir;

use crate::qmp::Qmp;
use crate::replay::Replay;
use crate::screen::Picture;

/// Bytes that one thread collects and others look at.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What has come so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a machine prints, kept beside the session: it must outlive a test that fails.
#[derive(Clone, Default)]
pub struct Output {
    /// The console, and QEMU's own messages.
    pub console: Captured,
    /// What the one command prints.
    pub exec: Captured,
}

/// A running machine under test. Dropping it ends the machine.
pub struct Session {
    machine: Machine,
    input: ChildStdin,
    output: Output,
    heard: Vec<Control>,
    /// Up to here a wait for console text has found what it wanted.
    seen: usize,
    replay: Option<Replay>,
    /// The files of its disks.
    folder: TempDir,
}

/// What came of a machine.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// All that it printed on the console.
    pub console: String,
    /// All that its one command printed.
    pub exec: String,
    /// What it said about tests.
    pub results: Vec<(String, Result<(), String>)>,
    /// How many changes of pages it recorded.
    pub page_changes: u64,
}

impl Session {
    /// Starts a machine whose disks' files are in `folder`.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start(config: &MachineConfig, folder: TempDir, output: Output, limit: Duration) -> Result<Self> {
        let replay = Replay::default();
        let sinks = Sinks {
            console: Box::new(output.console.clone()),
            exec: Box::new(output.exec.clone()),
            messages: Box::new(output.console.clone()),
            trace: config.trace.then(|| replay.sink()),
            screenshot: None,
        };
        let mut machine = Machine::start(config, sinks, Some(limit))?;
        let input = machine.console_input().context("the machine has no console input")?;
        let replay = config.trace.then_some(replay);
        Ok(Self { machine, input, output, heard: Vec::new(), seen: 0, replay, folder })
    }

    /// The folder with the files of its disks, `disk0.img` and so on.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Waits until the kernel says that its console takes commands.
    ///
    /// # Errors
    /// When it ends before.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_line("ready", |line| *line == Control::Ready)
    }

    /// Waits for a line of the control channel that the kernel made up: `text`.
    ///
    /// # Errors
    /// When the machine ends before.
    pub fn wait_control(&mut self, text: &str) -> Result<()> {
        self.wait_line(text, |line| *line == Control::Other(text.to_owned()))
    }

    fn wait_line(&mut self, what: &str, wanted: impl Fn(&Control) -> bool) -> Result<()> {
        loop {
            match self.machine.next_line(Duration::from_secs(1))? {
                Heard::Line(line) => {
                    let found = wanted(&line);
                    self.heard.push(line);
                    if found {
                        return Ok(());
                    }
                }
                Heard::Nothing => {}
                Heard::End => bail!("the machine ended before it said `{what}`{}", self.failures()),
            }
        }
    }

    /// What the kernel has said about a failed test, as the reason for what follows from it.
    fn failures(&self) -> String {
        let failures = self.heard.iter().filter_map(|line| match line {
            Control::Test { name, result: Err(why) } => Some(format!("; {name} failed: {why}")),
            _ => None,
        });
        failures.collect()
    }

    /// Waits until the console shows `text`, behind what an earlier wait has found, and returns what is between.
    ///
    /// # Errors
    /// When it does not come in time, or the machine ends.
    pub fn wait_console(&mut self, text: &str, patience: Duration) -> Result<String> {
        let until = Instant::now() + patience;
        let mut ended = false;
        loop {
            let printed = self.output.console.text();
            if let Some(place) = printed[self.seen..].find(text) {
                let between = printed[self.seen..self.seen + place].to_owned();
                self.seen += place + text.len();
                return Ok(between);
            }
            if ended {
                bail!("the machine ended before it printed `{text}`{}", self.failures());
            }
            if Instant::now() >= until {
                bail!("`{text}` was not printed within {} s", patience.as_secs());
            }
            match self.machine.next_line(Duration::from_millis(20))? {
                Heard::Line(line) => self.heard.push(line),
                Heard::Nothing => {}
                Heard::End => ended = true,
            }
        }
    }

    /// Sends bytes to the console's serial line.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.write_all(bytes).and_then(|()| self.input.flush()).context("the machine takes no input")
    }

    /// Connects to QEMU's own control.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.machine.qmp_socket())
    }

    /// All that the console has printed so far.
    pub fn console(&self) -> String {
        self.output.console.text()
    }

    /// Takes a picture of the screen.
    ///
    /// # Errors
    /// When QEMU is gone, or writes none.
    pub fn picture(&self, qmp: &mut Qmp) -> Result<Picture> {
        let file = self.folder().join("screen.ppm");
        qmp.call("screendump", json!({ "filename": file }))?;
        Picture::from_ppm(&std::fs::read(&file).context("QEMU has written no picture")?)
    }

    /// Waits for the machine's end.
    ///
    /// # Errors
    /// When QEMU could not start the machine, or died; when what the kernel recorded of pages cannot have happened.
    pub fn finish(self) -> Result<Report> {
        let mut heard = self.heard;
        let outcome = self.machine.wait(|line| heard.push(line.clone()))?;
        self.replay.as_ref().map_or(Ok(()), Replay::judge)?;
        let results = heard.into_iter().filter_map(|line| match line {
            Control::Test { name, result } => Some((name, result)),
            _ => None,
        });
        let results = results.collect();
        let page_changes = self.replay.as_ref().map_or(0, Replay::changes);
        let (console, exec) = (self.output.console.text(), self.output.exec.text());
        Ok(Report { outcome, console, exec, results, page_changes })
    }
}
