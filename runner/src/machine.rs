//! A running QEMU: its channels, its end.
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::control::Control;
use crate::launcher;
use crate::outcome::Outcome;
use crate::qemu::{self, MachineConfig};
use crate::symbols::{Symboliser, Symbols};

/// After its last word the kernel has this long to power off (a panic's report may still be on its way).
const POWER_OFF_TIME: Duration = Duration::from_secs(10);
/// Messages of QEMU are held back until the machine runs: a failed start ends in one sentence instead.
const HELD_MESSAGES: usize = 50;

/// Where the machine's output goes.
pub struct Sinks {
    /// The console, COM1.
    pub console: Box<dyn Write + Send>,
    /// The output of the one command, COM2.
    pub exec: Box<dyn Write + Send>,
}

/// A running machine. Dropping it ends QEMU.
pub struct Machine {
    child: Child,
    events: Receiver<Event>,
    sender: Sender<Event>,
    pumps: Vec<JoinHandle<()>>,
    input: Option<ChildStdin>,
    folder: TempDir,
    deadline: Option<(Instant, u64)>,
    outcome: Option<Outcome>,
    held: Option<Vec<String>>,
}

enum Event {
    Control(Control),
    /// The console printed something.
    Alive,
    /// QEMU has closed its standard output.
    Ended,
    /// A line of QEMU's own.
    Message(String),
    /// Nobody can read our output any more.
    Unread(std::io::Error),
    Interrupted(i32),
}

/// Stops a machine from another thread.
#[derive(Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Ends the machine because of `signal`.
    pub fn interrupt(&self, signal: i32) {
        // A machine that is gone needs no stopping.
        let _ = self.0.send(Event::Interrupted(signal));
    }
}

impl Machine {
    /// Starts QEMU. The calling thread must live as long as the machine: the system ends QEMU with it.
    ///
    /// # Errors
    /// When QEMU or its channels cannot be had. What QEMU itself finds wrong comes from [`Machine::wait`].
    pub fn start(config: &MachineConfig, sinks: Sinks, timeout: Option<Duration>) -> Result<Self> {
        if config.disks.len() > qemu::MAX_DISKS {
            bail!("the machine has room for {} disks", qemu::MAX_DISKS);
        }
        let symbols = Symbols::open(&config.boot.symbols)?;
        // Sockets have short names only, so not below the workspace.
        let folder =
            tempfile::Builder::new().prefix("faultline-").tempdir().context("cannot make a folder")?;
        for (name, content) in config.kernel_files() {
            fs::write(folder.path().join(name), content).context("cannot write a file for the kernel")?;
        }
        let listen = |name| UnixListener::bind(folder.path().join(name)).context("cannot make a socket");
        let (com2, control) = (listen("com2.socket")?, listen("control.socket")?);

        let mut command = launcher::command(&qemu::program());
        command.args(config.arguments(folder.path()));
        // A group of its own: Ctrl-C is the runner's, which then ends QEMU.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("QEMU does not start")?;
        let (sender, events) = mpsc::channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let input = child.stdin.take();
        let pumps = vec![
            pump_console(stdout, Symboliser::new(symbols), sinks.console, sender.clone()),
            pump_exec(com2, sinks.exec, sender.clone()),
            pump_lines(
                move || Ok(control.accept()?.0),
                sender.clone(),
                |line| Event::Control(Control::parse(&line)),
            ),
            pump_lines(move || Ok(stderr), sender.clone(), Event::Message),
        ];
        let deadline = timeout.map(|limit| (Instant::now() + limit, limit.as_secs()));
        let held = Some(Vec::new());
        Ok(Self { child, events, sender, pumps, input, folder, deadline, outcome: None, held })
    }

    /// What is written here the kernel reads from COM1. The first call only.
    pub fn console_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// The socket for QMP, if the machine was configured to have it.
    pub fn qmp_socket(&self) -> PathBuf {
        self.folder.path().join("qmp.socket")
    }

    /// A way to stop the machine while a thread waits for it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Waits for the machine's end, and tells each line of the control channel to `heard`.
    ///
    /// # Errors
    /// When QEMU refused to start the machine or died, or when our own output cannot be written.
    pub fn wait(mut self, mut heard: impl FnMut(&Control)) -> Result<Outcome> {
        while let Some(event) = self.next_event()? {
            if let Event::Control(line) = event {
                heard(&line);
            }
        }
        self.finish()
    }

    /// Waits for a line of the control channel that `wanted` accepts. False: the machine ended before.
    ///
    /// # Errors
    /// As [`Machine::wait`].
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Control) -> bool) -> Result<bool> {
        while let Some(event) = self.next_event()? {
            if let Event::Control(line) = event
                && wanted(&line)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next thing that happens; none at the machine's end, which comes by itself or by force.
    fn next_event(&mut self) -> Result<Option<Event>> {
        let event = match self.deadline {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((at, _)) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let limit = self.deadline.map_or(0, |(_, seconds)| seconds);
                self.outcome.get_or_insert(Outcome::TimedOut(limit));
                return Ok(None);
            }
            Ok(Event::Interrupted(signal)) => {
                self.outcome = Some(Outcome::Interrupted(signal));
                return Ok(None);
            }
            Ok(Event::Unread(why)) => bail!("the output cannot be written: {why}"),
            Ok(Event::Control(Control::Status(status))) => self.end_soon(Outcome::Status(status)),
            Ok(Event::Control(Control::Panic)) => self.end_soon(Outcome::Panicked),
            Ok(Event::Message(ref line)) => self.message(line),
            Ok(Event::Alive) => self.release_messages(),
            Ok(Event::Control(_)) => {}
        }
        Ok(event.ok())
    }

    fn end_soon(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
        self.deadline = Some((Instant::now() + POWER_OFF_TIME, 0));
    }

    fn message(&mut self, line: &str) {
        match &mut self.held {
            Some(held) if held.len() < HELD_MESSAGES => held.push(line.to_owned()),
            _ => {
                self.release_messages();
                eprintln!("{line}");
            }
        }
    }

    fn release_messages(&mut self) {
        for line in self.held.take().unwrap_or_default() {
            eprintln!("{line}");
        }
    }

    fn finish(&mut self) -> Result<Outcome> {
        let forced = self.outcome.is_some() && self.child.try_wait()?.is_none();
        if forced {
            self.end_qemu();
        }
        let status = self.child.wait().context("cannot wait for QEMU")?;
        for name in ["com2.socket", "control.socket"] {
            // QEMU may have ended before it connected: let the threads that wait for it go.
            let _ = UnixStream::connect(self.folder.path().join(name));
        }
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Control(Control::Status(status)) => {
                    drop(self.outcome.get_or_insert(Outcome::Status(status)))
                }
                Event::Control(Control::Panic) => drop(self.outcome.get_or_insert(Outcome::Panicked)),
                Event::Message(line) => self.message(&line),
                Event::Alive => self.release_messages(),
                _ => {}
            }
        }
        if let Some(outcome) = self.outcome {
            self.release_messages();
            return Ok(outcome);
        }
        match self.held.take() {
            Some(held) if !status.success() => bail!(refusal(&held, &status.to_string())),
            held => {
                self.held = held;
                self.release_messages();
            }
        }
        if !status.success() && status.code().is_none() {
            bail!("QEMU died: {status}");
        }
        Ok(Outcome::Reset)
    }

    /// Asks QEMU to end, and ends it if it does not.
    fn end_qemu(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why QEMU did not start the machine, from what it printed.
fn refusal(messages: &[String], status: &str) -> String {
    let Some(message) = messages.iter().rev().find(|line| !line.trim().is_empty()) else {
        return format!("QEMU did not start the machine ({status})");
    };
    if messages.iter().any(|line| line.contains("\" lock") || line.contains("Is another process using")) {
        let file = messages.iter().find_map(|line| Some(line.split_once("[")?.1.split_once("]")?.0));
        return format!("the disk file {} is in use by another process", file.unwrap_or("of this machine"));
    }
    let text = message.split_once(": ").map_or(message.as_str(), |(_, text)| text);
    format!("QEMU did not start the machine: {text}")
}

fn pump_console(
    mut stream: impl Read + Send + 'static,
    mut symboliser: Symboliser,
    mut sink: Box<dyn Write + Send>,
    events: Sender<Event>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut bytes, mut first) = ([0; 4096], true);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if std::mem::take(&mut first) {
                let _ = events.send(Event::Alive);
            }
            let text = symboliser.feed(&bytes[..count]);
            if let Err(why) = sink.write_all(&text).and_then(|()| sink.flush()) {
                let _ = events.send(Event::Unread(why));
            }
        }
        let _ = events.send(Event::Ended);
    })
}

fn pump_exec(socket: UnixListener, mut sink: Box<dyn Write + Send>, events: Sender<Event>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = socket.accept() else { return };
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if let Err(why) = sink.write_all(&bytes[..count]).and_then(|()| sink.flush()) {
                let _ = events.send(Event::Unread(why));
            }
        }
    })
}

fn pump_lines<R: Read + 'static>(
    open: impl FnOnce() -> std::io::Result<R> + Send + 'static,
    events: Sender<Event>,
    event: impl Fn(String) -> Event + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok(stream) = open() else { return };
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if events.send(event(text)).is_err() {
                return;
            }
        }
    })
}

/// Looks for OVMF where distributions put it.
pub fn find_ovmf() -> Option<PathBuf> {
    const PLACES: &[&str] = &[
        "/usr/share/ovmf/OVMF.fd",
        "/usr/share/OVMF/OVMF.fd",
        "/usr/share/edk2/x64/OVMF.4m.fd",
        "/usr/share/edk2-ovmf/x64/OVMF.fd",
        "/usr/share/edk2/ovmf/OVMF.fd",
        "/usr/share/qemu/ovmf-x86_64.bin",
    ];
    PLACES.iter().map(Path::new).find(|place| place.is_file()).map(Path::to_path_buf)
}
