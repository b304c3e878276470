//! What the kernel records, from the memory that it shares with the runner to a file that Perfetto opens.
//!
//! The machine has the rings in a file that QEMU maps: so they can be read while it runs and after it has ended, however
//! that came. [`rings`] reads them and puts the records in order; [`chrome`] makes tracks of them, [`mod@file`] writes these.

pub mod chrome;
pub mod file;
#[path = "../../../kernel/src/trace/layout.rs"]
pub mod layout;
pub mod rings;

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

pub use layout::{Kind, Record};
use rings::Rings;

use crate::pumps::Event;

/// How often the rings are read.
const OFTEN: Duration = Duration::from_millis(5);

/// Whoever wants what the kernel records.
pub trait Sink: Send {
    /// The next records, in their order. `lost` were lost just before them.
    ///
    /// # Errors
    /// When they cannot be kept; then nothing more is brought.
    fn take(&mut self, records: &[Record], lost: u64) -> io::Result<()>;

    /// There are no more.
    ///
    /// # Errors
    /// As `take`.
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Brings records to their sink while the machine runs. Dropping it ends that.
pub(crate) struct Pump {
    machine_runs: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Pump {
    /// Makes the memory and watches it. An error of the sink is told as one of our output, and at the end.
    pub(crate) fn start(
        memory: &Path,
        cpus: u32,
        mut sink: Box<dyn Sink>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let mut rings = Rings::make(memory, cpus)?;
        let (machine_runs, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let brought = loop {
                let over = wait.recv_timeout(OFTEN) == Err(RecvTimeoutError::Disconnected);
                match rings.read(over, |records, lost| sink.take(records, lost)) {
                    Ok(()) if over => break sink.end(),
                    Ok(()) => {}
                    Err(why) => break Err(why),
                }
            };
            if let Err(why) = &brought {
                // The machine may have ended, and nobody listen any more.
                let _ = events.send(Event::Unread(io::Error::new(why.kind(), format!("the trace: {why}"))));
            }
            brought
        });
        Ok(Self { machine_runs: Some(machine_runs), thread: Some(thread) })
    }

    /// Brings the rest, when the machine has ended.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.machine_runs.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // Told as an event, if anybody listens.
        let _ = self.end();
    }
}
