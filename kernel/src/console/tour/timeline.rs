//! The way of one fault, picked out of everything that was recorded meanwhile.

use alloc::vec::Vec;

use crate::trace::{Kind, Record};

/// The steps of the last fault of `thread` that parked it, on page `page` of a disk, in order. `None` when
/// a step is missing.
pub(super) fn of_fault(records: &[Record], thread: u64, page: u64) -> Option<Vec<Record>> {
    let park = last(records, Kind::Park, Some(thread))?;
    let (before, after) = records.split_at(park);
    let trap = last(before, Kind::Trap, Some(thread))?;
    let request = first(after, Kind::Request, Some(page))?;
    let complete = first(after, Kind::Complete, Some(page))?;
    let map = first(after, Kind::Map, Some(thread))?;
    // Other devices interrupt, too, and a future may be polled in vain: the last one before the next step
    // is the one that led to it.
    let interrupt = last(&after[..complete], Kind::Interrupt, None)?;
    let wake = last(&after[..map], Kind::Wake, Some(thread))?;
    let resume = map + first(&after[map..], Kind::Resume, Some(thread))?;
    let steps = [request, interrupt, complete, wake, map, resume].map(|index| after[index]);
    Some([before[trap], after[0]].into_iter().chain(steps).collect())
}

/// The time from the first step to the last, in ns.
pub(super) fn duration(steps: &[Record]) -> u64 {
    match steps {
        [first, .., last] => last.time.saturating_sub(first.time),
        _ => 0,
    }
}

fn first(records: &[Record], kind: Kind, subject: Option<u64>) -> Option<usize> {
    records.iter().position(|record| is(record, kind, subject))
}

fn last(records: &[Record], kind: Kind, subject: Option<u64>) -> Option<usize> {
    records.iter().rposition(|record| is(record, kind, subject))
}

fn is(record: &Record, kind: Kind, subject: Option<u64>) -> bool {
    record.kind == kind && subject.is_none_or(|subject| subject_of(record) == subject)
}

/// The page of what a device did, the thread of what a thread did.
fn subject_of(record: &Record) -> u64 {
    match record.kind {
        Kind::Request | Kind::Complete => record.words[1],
        _ => record.words[0],
    }
}
