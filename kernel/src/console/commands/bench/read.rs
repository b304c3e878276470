//! `bench read`: a disk read once in order, by large requests and through page faults.

use alloc::{format, string::ToString, sync::Arc};

use drivers::{block::SECTOR_BYTES, dma::DmaBuffer};
use executor::{sync::oneshot, time::Instant};
use mm::{PageIndex, VmObject};

use super::super::super::{CommandError, disks, output::say};
use crate::{
    machine::Disk,
    memory,
    thread::{self, EndReason},
    window::Window,
};

/// What is read, if there is so much.
const BYTES: usize = 64 << 20;
/// A large request, and one as large as those that are read ahead.
const LARGE: usize = 1 << 20;
const SMALL: usize = 128 << 10;
const ROUNDS: usize = 7;

/// Reads the disk both ways in turns, and says what they take, with the sum of all words as the reader.
pub(super) async fn run() -> Result<u8, CommandError> {
    let disk = disks::choose(None)?;
    let bytes = (disk.bytes as usize).min(BYTES) / LARGE * LARGE;
    if bytes == 0 {
        return Err(CommandError::Failed(format!("{} is smaller than 1 MiB", disk.name)));
    }
    say!("{} MiB in order, times in microseconds:", bytes >> 20);
    say!(
        "{:>14} {:>16} {:>14} {:>12} {:>8} {:>8} {:>8}",
        "1 MiB requests",
        "128 KiB requests",
        "through faults",
        "again",
        "faults",
        "requests",
        "ratio"
    );
    let mut ratios = [0; ROUNDS];
    for ratio in &mut ratios {
        disk.object.release(PageIndex::new(0)..PageIndex::new(disk.object.pages())).await;
        let (sum, large) = timed(read_by_requests(disk, bytes, LARGE)).await?;
        let (_, small) = timed(read_by_requests(disk, bytes, SMALL)).await?;
        let (faults_before, requests_before) = (faults(), disk.device.stats().requests);
        let (same_sum, faulting) = timed(read_by_faults(&disk.object, bytes)).await?;
        let (faults, requests) = (faults() - faults_before, disk.device.stats().requests - requests_before);
        // All pages are there.
        let (_, again) = timed(read_by_faults(&disk.object, bytes)).await?;
        if sum != same_sum {
            return Err(CommandError::Failed("the two have read different words".to_string()));
        }
        *ratio = faulting * 100 / large.max(1);
        let shown = format!("{}.{:02}", *ratio / 100, *ratio % 100);
        say!("{large:>14} {small:>16} {faulting:>14} {again:>12} {faults:>8} {requests:>8} {shown:>8}");
    }
    ratios.sort_unstable();
    let median = ratios[ROUNDS / 2];
    say!("median ratio    {}.{:02}", median / 100, median % 100);
    Ok(0)
}

/// What a future says, and how many microseconds it took.
async fn timed<T>(what: impl Future<Output = Result<T, CommandError>>) -> Result<(T, u64), CommandError> {
    let began = Instant::now();
    let value = what.await?;
    Ok((value, began.elapsed().as_micros() as u64))
}

fn faults() -> u64 {
    let stats = memory::memory().stats();
    stats.minor_faults + stats.major_faults
}

async fn read_by_requests(disk: &Disk, bytes: usize, request: usize) -> Result<u64, CommandError> {
    let no_memory = || CommandError::Failed("there is no memory for the requests".to_string());
    let mut buffer = DmaBuffer::new(request).ok_or_else(no_memory)?;
    let mut sum = 0;
    for offset in (0..bytes).step_by(request) {
        let (result, filled) = disk.device.read(offset as u64 / SECTOR_BYTES, buffer).await;
        result.map_err(|why| CommandError::Failed(why.to_string()))?;
        sum = sum_words(filled.as_bytes(), sum);
        buffer = filled;
    }
    Ok(sum)
}

async fn read_by_faults(object: &Arc<VmObject>, bytes: usize) -> Result<u64, CommandError> {
    let failed = |why: &dyn core::fmt::Display| CommandError::Failed(why.to_string());
    let window = Window::map(object.clone(), bytes, mm::Protection::READ).map_err(|why| failed(&why))?;
    let window = Arc::new(window);
    let (sender, sum) = oneshot::channel();
    let (read, mut sender) = (window.clone(), Some(sender));
    let handle = thread::spawn("read", move || {
        let sum = sum_words(read.as_slice(), 0);
        if let Some(sender) = sender.take() {
            let _unwanted = sender.send(sum);
        }
    });
    let end = handle.map_err(|why| failed(&why))?.await;
    let sum = match (sum.await, end) {
        (Ok(sum), EndReason::Finished(_)) => Ok(sum),
        (_, end) => Err(failed(&end)),
    };
    if let Ok(window) = Arc::try_unwrap(window).map_err(drop) {
        window.unmap().await;
    }
    sum
}

/// What the reader does with what it reads.
#[inline(never)]
fn sum_words(bytes: &[u8], start: u64) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter();
    words.fold(start, |sum, word| sum.rotate_left(1).wrapping_add(u64::from_le_bytes(*word)))
}
