//! `hash`: a library that knows nothing of faults reads a disk through page faults.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::ops::Range;

use executor::{sync::oneshot, time::Instant};
use mm::{Denial, PAGE_SIZE, PageError};
use sha2::{Digest, Sha256};

use super::super::{
    Arguments, Command, CommandError, disks,
    output::{output, say},
    room::make_room,
    slices,
    table::Table,
    units::{Bytes, Time},
};
use crate::{
    machine::Disk,
    thread::{self, EndReason, ThreadHandle},
    window::Window,
};

const DEFAULT_THREADS: u64 = 8;
const MAX_THREADS: u64 = 4096;
/// Frames that a thread's stack takes while it hashes, and what the kernel needs to park it.
const FRAMES_PER_THREAD: usize = 4;
/// Threads that are started, or whose ends are looked at, before others get a turn.
const BATCH: usize = 16;

pub(super) static HASH: Command = Command {
    name: "hash",
    usage: "[--threads N] [--disk NAME] [--offset BYTES] [--length BYTES]",
    help: "SHA-256 of a disk, or of a part, that N threads read through page faults",
    run: |arguments| Box::pin(async move { Job::parse(arguments)?.run().await }),
};

type Sum = [u8; 32];

/// What is to be hashed.
struct Job {
    disk: &'static Disk,
    region: Range<u64>,
    threads: u64,
}

/// A thread at work.
struct Worker {
    bytes: Range<u64>,
    handle: ThreadHandle,
    /// What it found; nothing, when it was ended in the middle.
    sum: oneshot::Receiver<Sum>,
}

impl Job {
    fn parse(mut arguments: Arguments) -> Result<Self, CommandError> {
        let threads = arguments.option("--threads", 1, MAX_THREADS)?.unwrap_or(DEFAULT_THREADS);
        let disk = disks::choose(arguments.text_option("--disk")?.as_deref())?;
        if disk.bytes == 0 {
            return Err(CommandError::Failed(alloc::format!("{} is empty", disk.name)));
        }
        let offset = arguments.option("--offset", 0, disk.bytes - 1)?.unwrap_or(0);
        let left = disk.bytes - offset;
        let length = arguments.option("--length", 1, left)?.unwrap_or(left);
        arguments.end()?;
        Ok(Self { disk, region: offset..offset + length, threads })
    }

    async fn run(self) -> Result<u8, CommandError> {
        let window = disks::map(self.disk)?;
        let status = self.hash_twice(&window).await;
        // The threads have ended, so nobody else has it.
        if let Ok(window) = Arc::try_unwrap(window).map_err(drop) {
            window.unmap().await;
        }
        status
    }

    /// First in slices, then as a whole.
    async fn hash_twice(&self, window: &Arc<Window>) -> Result<u8, CommandError> {
        let name = &self.disk.name;
        let (first, last) = (self.region.start, self.region.end - 1);
        say!("{name}, bytes {first} to {last}: {}", Bytes(last - first + 1));
        let mut table =
            Table::new(&["", ">first byte", ">bytes", ">pages", ">faults", ">parks", ">time parked", "sum"]);
        let began = Instant::now();
        let slices =
            slices::cut(&self.region, self.threads).ok_or_else(|| CommandError::Failed(no_memory()))?;
        let count = slices.len();
        let sums = self.hash(window, slices, &mut table, "slice").await;
        let sliced = began.elapsed();
        if let Err(why) = sums {
            output().table(&table).await;
            return Err(CommandError::Failed(why));
        }
        let whole = Vec::from([self.region.clone()]);
        let sums = self.hash(window, whole, &mut table, "whole").await;
        output().table(&table).await;
        let both = began.elapsed();
        let sum = sums.map_err(CommandError::Failed)?.pop();
        let sum = sum.ok_or_else(|| CommandError::Failed("the hash was lost".to_string()))?;
        let time = |time: core::time::Duration| Time(time.as_nanos() as u64);
        let plural = if count == 1 { "" } else { "s" };
        say!("{count} thread{plural} {}, then one over the whole {}", time(sliced), time(both - sliced));
        say!("sha256 {}", hex(&sum));
        Ok(0)
    }

    /// Lets a thread hash each of `slices`; returns their sums, in order.
    async fn hash(
        &self,
        window: &Arc<Window>,
        slices: Vec<Range<u64>>,
        table: &mut Table,
        what: &str,
    ) -> Result<Vec<Sum>, String> {
        let (mut workers, mut sums) = (Vec::new(), Vec::new());
        workers.try_reserve_exact(slices.len()).map_err(|_| no_memory())?;
        sums.try_reserve_exact(slices.len()).map_err(|_| no_memory())?;
        let mut failure = None;
        for bytes in slices {
            match start(window, bytes).await {
                Ok(worker) => {
                    workers.push(worker);
                    if workers.len().is_multiple_of(BATCH) {
                        executor::yield_now().await;
                    }
                }
                Err(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        for (number, Worker { bytes, mut handle, sum }) in workers.into_iter().enumerate() {
            if number % BATCH == 0 {
                executor::yield_now().await;
            }
            let end = (&mut handle).await;
            let sum = sum.await.ok();
            let stats = handle.thread().stats();
            table.row(&[
                &what,
                &bytes.start,
                &(bytes.end - bytes.start),
                &slices::pages(&bytes),
                &stats.faults,
                &stats.parks,
                &Time(stats.parked_ns),
                &sum.map_or_else(|| "-".to_string(), |sum| alloc::format!("{}..", hex(&sum[..4]))),
            ]);
            match (sum, end) {
                (Some(sum), EndReason::Finished(_)) => sums.push(sum),
                (_, end) => failure = failure.or_else(|| Some(explain(self.disk, end))),
            }
        }
        failure.map_or(Ok(sums), Err)
    }
}

/// Starts a thread over some of the window's bytes.
async fn start(window: &Arc<Window>, bytes: Range<u64>) -> Result<Worker, String> {
    make_room(FRAMES_PER_THREAD).await.map_err(|why| why.to_string())?;
    let (sender, sum) = oneshot::channel();
    let (window, range) = (window.clone(), bytes.start as usize..bytes.end as usize);
    let mut sender = Some(sender);
    let handle = thread::spawn("hash", move || {
        // A device's error ends the thread in here.
        let sum = Sha256::digest(&window.as_slice()[range.clone()]);
        if let Some(sender) = sender.take() {
            let _unwanted = sender.send(sum.into());
        }
    });
    match handle {
        Ok(handle) => Ok(Worker { bytes, handle, sum }),
        Err(why) => Err(alloc::format!("a thread could not be started: {why}")),
    }
}

fn no_memory() -> String {
    "there is no memory for so many threads".to_string()
}

fn explain(disk: &Disk, end: EndReason) -> String {
    let name = &disk.name;
    match end {
        EndReason::Denied { why: Denial::Io { page, error }, .. } => {
            let offset = page.as_u64() * PAGE_SIZE as u64;
            alloc::format!("{name} cannot be read at byte offset {offset}: {error}")
        }
        EndReason::Denied { why: Denial::Corrupted { page }, .. } => {
            let offset = page.as_u64() * PAGE_SIZE as u64;
            alloc::format!("{name} cannot be read at byte offset {offset}: {}", PageError::Corrupted)
        }
        end => alloc::format!("the thread that read {name} was {end}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}
