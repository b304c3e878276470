//! A running QEMU, from its start to its end.
mod refusal;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::control::Control;
use crate::outcome::Outcome;
use crate::pumps::{self, Event};
use crate::qemu::{self, MachineConfig};
use crate::qmp::Qmp;
use crate::screenshot::Picture;
use crate::symbols::{Symboliser, Symbols};
use crate::{gdb, host, launcher, trace};

/// After its last word the kernel has this long to power off (a panic's report may still be on its way).
const POWER_OFF_TIME: Duration = Duration::from_secs(10);
/// Messages of QEMU are held back until the machine runs: a failed start ends in one sentence instead.
const HELD_MESSAGES: usize = 50;
/// What gdb is to do first.
const GDB_SCRIPT: &str = "gdb.commands";
/// What QEMU says when gdb ends it.
const ENDED_BY_GDB: &str = "Terminated via GDBstub";

/// Where the machine's output goes.
pub struct Sinks {
    /// The console, COM1, with the addresses of backtraces explained.
    pub console: Box<dyn Write + Send>,
    /// The output of the one command, COM2.
    pub exec: Box<dyn Write + Send>,
    /// What QEMU itself has to say.
    pub messages: Box<dyn Write + Send>,
    /// What the kernel records, if [`MachineConfig::trace`] says that it does.
    pub trace: Option<Box<dyn trace::Sink>>,
    /// The screen at the end, if [`MachineConfig::stays`] says that it can be seen then.
    pub screenshot: Option<Picture>,
}

/// A running machine. Dropping it ends QEMU.
pub struct Machine {
    child: Child,
    events: Receiver<Event>,
    sender: Sender<Event>,
    pumps: Vec<JoinHandle<()>>,
    trace: Option<trace::Pump>,
    screenshot: Option<(Picture, Qmp)>,
    com2_writer: Option<File>,
    input: Option<ChildStdin>,
    folder: TempDir,
    /// When the time limit is over, and how long it is.
    limit: Option<(Instant, Duration)>,
    /// When the machine must be off, after its last word.
    off_by: Option<Instant>,
    /// A debugger may hold it for as long as it likes.
    is_debugged: bool,
    outcome: Option<Outcome>,
    ended: bool,
    messages: Box<dyn Write + Send>,
    held: Option<Vec<String>>,
}

/// What a wait for the control channel found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line.
    Line(Control),
    /// No line in this time.
    Nothing,
    /// The machine ends: there will be no other line but by [`Machine::wait`].
    End,
}

enum Next {
    Event(Event),
    Nothing,
    End,
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
    pub fn start(config: &MachineConfig, sinks: Sinks, limit: Option<Duration>) -> Result<Self> {
        if config.disks.len() > qemu::MAX_DISKS {
            bail!("the machine has room for {} disks, programs included", qemu::MAX_DISKS);
        }
        let symbols = Symbols::open(&config.boot.symbols)?;
        // Not below the workspace: the names of sockets must be short.
        let folder = tempfile::Builder::new().prefix("faultline-").tempdir();
        let folder = folder.context("cannot make a folder for the machine's sockets")?;
        for (name, content) in config.kernel_files() {
            fs::write(folder.path().join(name), content).context("cannot write a file for the kernel")?;
        }
        for (name, content) in config.overlays() {
            fs::write(folder.path().join(name), content).context("cannot write a file for a disk")?;
        }
        if config.gdb {
            let replays = config.tape.as_ref().is_some_and(|tape| tape.replays);
            let script = gdb::script(&config.boot.symbols, &folder.path().join(qemu::GDB_SOCKET), replays)?;
            fs::write(folder.path().join(GDB_SCRIPT), script).context("cannot write a file for gdb")?;
        }
        let listen = |name| UnixListener::bind(folder.path().join(name)).context("cannot make a socket");
        let control = listen(qemu::CONTROL_SOCKET)?;
        let pipe = pumps::make_pipe(&folder.path().join(qemu::COM2_PIPE));
        let (com2, com2_writer) = pipe.context("cannot make a pipe")?;

        let (sender, events) = mpsc::channel();
        let memory = folder.path().join(qemu::TRACE_MEMORY);
        let trace = sinks.trace.filter(|_| config.trace);
        let trace = trace.map(|sink| trace::Pump::start(&memory, config.cpus, sink, sender.clone()));
        let trace = trace.transpose().context("cannot make the memory for a trace")?;

        let mut command = launcher::command(&host::qemu_program());
        command.args(config.arguments(folder.path()));
        // A group of its own: Ctrl-C is the runner's, which then ends QEMU.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("QEMU does not start")?;
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let input = child.stdin.take();
        let pumps = vec![
            pumps::console(stdout, Symboliser::new(symbols), sinks.console, sender.clone()),
            pumps::exec(com2, sinks.exec, sender.clone()),
            pumps::lines(
                move || Ok(control.accept()?.0),
                sender.clone(),
                |line| Event::Control(Control::parse(&line)),
            ),
            pumps::lines(move || Ok(stderr), sender.clone(), Event::Message),
        ];
        let screenshot = sinks.screenshot.filter(|_| config.stays);
        let mut machine = Self {
            child,
            events,
            sender,
            pumps,
            trace,
            screenshot: None,
            com2_writer: Some(com2_writer),
            input,
            folder,
            limit: limit.map(|limit| (Instant::now() + limit, limit)),
            off_by: None,
            is_debugged: config.gdb,
            outcome: None,
            ended: false,
            messages: sinks.messages,
            held: Some(Vec::new()),
        };
        if let Some(picture) = screenshot {
            machine.screenshot = machine.watch()?.map(|qmp| (picture, qmp));
        }
        Ok(machine)
    }

    /// Connects to QEMU's control, which tells when the machine is powered off. None if QEMU has ended already: why, it
    /// has printed.
    fn watch(&mut self) -> Result<Option<Qmp>> {
        let sender = self.sender.clone();
        let stopped = move |event: &str| {
            if event == "SHUTDOWN" {
                let _ = sender.send(Event::Stopped);
            }
        };
        let socket = self.qmp_socket();
        match Qmp::connect_while(|| matches!(self.child.try_wait(), Ok(None)), &socket, stopped) {
            Ok(qmp) => Ok(Some(qmp)),
            Err(_) if self.child.try_wait().is_ok_and(|status| status.is_some()) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// What is written here the kernel reads from COM1. The first call only.
    pub fn console_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// The socket for QMP, if the machine was configured to have it.
    pub fn qmp_socket(&self) -> PathBuf {
        self.folder.path().join(qemu::QMP_SOCKET)
    }

    /// What gdb is to do first, if the machine was configured to wait for it.
    pub fn gdb_script(&self) -> PathBuf {
        self.folder.path().join(GDB_SCRIPT)
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
        loop {
            match self.next_event(None)? {
                Next::Event(Event::Control(line)) => heard(&line),
                Next::Event(_) | Next::Nothing => {}
                Next::End => return self.finish(heard),
            }
        }
    }

    /// Waits up to `patience` for a line of the control channel.
    ///
    /// # Errors
    /// When our own output cannot be written.
    pub fn next_line(&mut self, patience: Duration) -> Result<Heard> {
        let until = Instant::now() + patience;
        loop {
            match self.next_event(Some(until))? {
                Next::Event(Event::Control(line)) => return Ok(Heard::Line(line)),
                Next::Event(_) => {}
                Next::Nothing => return Ok(Heard::Nothing),
                Next::End => return Ok(Heard::End),
            }
        }
    }

    /// The next thing that happens. The machine's end comes by itself or by the time limit.
    fn next_event(&mut self, until: Option<Instant>) -> Result<Next> {
        if self.ended {
            return Ok(Next::End);
        }
        let deadline = self.limit.map(|(at, _)| at).into_iter().chain(self.off_by).min();
        let event = match deadline.into_iter().chain(until).min() {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(event) => {
                self.note(&event);
                match event {
                    Event::Unread(why) => bail!("the output cannot be written: {why}"),
                    _ if self.ended => Ok(Next::End),
                    event => Ok(Next::Event(event)),
                }
            }
            Err(_) if deadline.is_none_or(|at| Instant::now() < at) => Ok(Next::Nothing),
            Err(_) => {
                let limit = self.limit.filter(|(at, _)| self.off_by.is_none_or(|off_by| *at < off_by));
                if self.outcome.is_some() && self.screenshot.is_some() {
                    self.message(&refusal::cut_screen(limit.map(|(_, limit)| limit), POWER_OFF_TIME));
                }
                let seconds = limit.map_or(POWER_OFF_TIME, |(_, limit)| limit).as_secs();
                self.outcome.get_or_insert(Outcome::TimedOut(seconds));
                self.ended = true;
                Ok(Next::End)
            }
        }
    }

    /// What an event means for the machine's outcome.
    fn note(&mut self, event: &Event) {
        let last_word = match event {
            Event::Control(Control::Status(status)) => Some(Outcome::Status(*status)),
            Event::Control(Control::Panic) => Some(Outcome::Panicked),
            _ => None,
        };
        if let Some(outcome) = last_word {
            self.outcome.get_or_insert(outcome);
            // A replay may go back behind its last word, and say it again.
            let first = self.off_by.is_none() && !self.is_debugged;
            self.off_by = if first { Some(Instant::now() + POWER_OFF_TIME) } else { self.off_by };
            // All of it is on the screen by now, and the machine stays where it is.
            self.ended |= self.screenshot.is_some() && matches!(outcome, Outcome::Status(_));
        }
        match event {
            Event::Alive => self.release_messages(),
            Event::Message(line) => self.message(line),
            Event::Ended | Event::Stopped => self.ended = true,
            Event::Interrupted(signal) => {
                self.outcome = Some(Outcome::Interrupted(*signal));
                self.ended = true;
            }
            Event::Control(_) | Event::Unread(_) => {}
        }
    }

    fn message(&mut self, line: &str) {
        if self.ended && line.contains("terminating on signal") {
            // We told it to.
            return;
        }
        if line.contains(ENDED_BY_GDB) {
            self.outcome.get_or_insert(Outcome::Debugged);
            return;
        }
        match &mut self.held {
            Some(held) if held.len() < HELD_MESSAGES => held.push(line.to_owned()),
            _ => {
                self.release_messages();
                let _ = writeln!(self.messages, "{line}");
            }
        }
    }

    fn release_messages(&mut self) {
        for line in self.held.take().unwrap_or_default() {
            let _ = writeln!(self.messages, "{line}");
        }
    }

    fn finish(&mut self, mut heard: impl FnMut(&Control)) -> Result<Outcome> {
        let stays = self.screenshot.is_some();
        let taken =
            self.screenshot.take().map(|(picture, mut qmp)| picture.take(&mut qmp, self.folder.path()));
        if self.outcome.is_some() || stays {
            self.end_qemu();
        }
        let status = self.child.wait().context("cannot wait for QEMU")?;
        let traced = self.trace.take().map_or(Ok(()), trace::Pump::finish);
        // QEMU may have ended before it connected: let the threads that wait for it go.
        self.com2_writer = None;
        let _ = UnixStream::connect(self.folder.path().join(qemu::CONTROL_SOCKET));
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
        while let Ok(event) = self.events.try_recv() {
            self.note(&event);
            if let Event::Control(line) = event {
                heard(&line);
            }
        }
        match (self.outcome, self.held.take()) {
            (None, Some(held)) if !status.success() => bail!(refusal::sentence(&held, status)),
            (None, _) if status.code().is_none() => bail!("QEMU died: {status}"),
            (outcome, held) => {
                self.held = held;
                self.release_messages();
                traced.context("the trace is not whole")?;
                taken.unwrap_or(Ok(())).context("there is no screenshot")?;
                Ok(outcome.unwrap_or(Outcome::Reset))
            }
        }
    }

    /// Asks QEMU to end, and ends it if it does not.
    fn end_qemu(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        for step in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            if step == 0 {
                let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
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
