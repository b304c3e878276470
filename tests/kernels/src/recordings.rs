//! Recordings of what happens, several at a time.

use kernel::{
    memory,
    thread::{self, EndReason},
    trace::{self, Kind, Record},
};

use crate::check::{Needed, Outcome, ensure};

/// Runs a thread to its end.
async fn run_a_thread() -> Outcome {
    let end = thread::spawn("recorded", || ()).needed("a thread")?.await;
    ensure!(end == EndReason::Finished(0), "{end:?}");
    Ok(())
}

fn resumed(records: &[Record]) -> usize {
    records.iter().filter(|record| record.kind == Kind::Resume).count()
}

/// One that ends or is given up in the midst of another does not end that.
pub(crate) async fn recordings_do_not_end_one_another() -> Outcome {
    let first = trace::start().needed("memory for records")?;
    let second = trace::start().needed("memory for records")?;
    drop(trace::start().needed("memory for records")?);
    run_a_thread().await?;
    let records = first.stop();
    ensure!(resumed(&records) > 0, "the first one has no thread in {} records", records.len());
    run_a_thread().await?;
    let before = resumed(&records);
    let records = second.stop();
    ensure!(resumed(&records) > before, "the second one ended with the first: {} records", records.len());
    Ok(())
}

/// What happens in memory is told as long as anybody records, and after that as it was before.
pub(crate) async fn memory_tells_recordings_until_the_last_one_ends() -> Outcome {
    let tells = || memory::memory().is_recorded();
    let before = tells();
    let first = trace::start().needed("memory for records")?;
    let second = trace::start().needed("memory for records")?;
    ensure!(tells(), "a recording has begun, and memory does not tell");
    drop(first);
    ensure!(tells(), "the end of one recording has ended what memory tells another");
    second.stop();
    ensure!(tells() == before, "memory tells nobody: the last recording has ended");
    Ok(())
}
