//! The pages of a machine, followed by what its kernel records: each change of a state is looked up in `mm`'s table.
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use faultline::trace::{Kind, Record, Sink};
use mm::trace::{Checker, Event, ObjectName, PageWord, StateChange};
use mm::{PageEvent, PageIndex};

/// What was found so far.
#[derive(Default)]
struct Found {
    checker: Checker,
    impossible: Option<String>,
    lost: u64,
    records: u64,
}

/// Follows a machine's records while it runs.
#[derive(Clone, Default)]
pub struct Replay(Arc<Mutex<Found>>);

impl Replay {
    /// The sink for the machine.
    pub fn sink(&self) -> Box<dyn Sink> {
        Box::new(self.clone())
    }

    /// When the machine has ended: can all have happened that it recorded? What was lost nobody knows.
    ///
    /// # Errors
    /// The first change that cannot, with the page's history.
    pub fn judge(&self) -> Result<()> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &found.impossible {
            bail!("{why} ({} of {} records lost)", found.lost, found.records + found.lost);
        }
        Ok(())
    }

    /// How many changes of pages it has followed.
    pub fn changes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).checker.changes()
    }
}

impl Sink for Replay {
    fn take(&mut self, records: &[Record], lost: u64) -> io::Result<()> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lost > 0 {
            found.lost += lost;
            found.checker.lost();
        }
        found.records += records.len() as u64;
        for record in records {
            let impossible = match event(record) {
                Some(event) => found.checker.follow(record.memory, &event).err().map(|why| why.to_string()),
                None if matches!(record.kind, Kind::State) => Some(format!("not an event: {record:?}")),
                None => None,
            };
            if let (Some(why), None) = (impossible, &found.impossible) {
                found.impossible = Some(why);
            }
        }
        Ok(())
    }
}

/// What a record says of pages, if it does.
fn event(record: &Record) -> Option<Event> {
    let [object, page, from, to, _] = record.words;
    let object = ObjectName::from_bits(object);
    match record.kind {
        Kind::State => Some(Event::State(StateChange {
            object,
            page: PageIndex::new(page),
            from: PageWord::from_bits(from),
            event: PageEvent::from_number(record.detail)?,
            to: PageWord::from_bits(to),
        })),
        Kind::Ended => Some(Event::Ended(object)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(event: PageEvent, from: u64, to: u64) -> Record {
        let words = [7, 3, from, to, 0];
        Record { number: 0, time: 0, kind: Kind::State, cpu: 0, detail: event as u8, memory: 1, words }
    }

    #[test]
    fn a_change_that_cannot_have_happened_fails_the_test() {
        let replay = Replay::default();
        let mut sink = replay.sink();
        sink.take(&[change(PageEvent::Read, 0, 1)], 0).unwrap();
        assert!(replay.judge().is_ok());
        assert_eq!(replay.changes(), 1);
        sink.take(&[change(PageEvent::Store, 1, 7)], 0).unwrap();
        let why = replay.judge().unwrap_err().to_string();
        assert!(why.contains("page 3 of object 7: loading -- store --> writeback"), "{why}");
    }

    #[test]
    fn after_a_loss_the_next_change_is_believed() {
        let replay = Replay::default();
        let mut sink = replay.sink();
        sink.take(&[change(PageEvent::Read, 0, 1)], 0).unwrap();
        sink.take(&[], 9).unwrap();
        sink.take(&[change(PageEvent::Write, 0x5003, 0x5004)], 0).unwrap();
        assert!(replay.judge().is_ok());
    }
}
