//! The rings: one a CPU, in memory that others may read at any time. See `layout`.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | record, interrupt on the same CPU | interrupts are off while a record is written |
//! | record, record on another CPU | each has a ring of its own; one atomic numbers them |
//! | record, reader | the count is written last; who has read looks at it again |
//! | record, panic | a CPU that is stopped in the middle leaves a number that never comes |

use alloc::vec::Vec;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use super::layout::{self, HEADER, Record, WORDS};

/// All rings. Any number of readers may each keep a place in them.
pub(super) struct Rings {
    memory: &'static [AtomicU64],
    cpus: usize,
    /// Of each ring.
    records: u64,
}

impl Rings {
    /// Rings in memory whose header was filled in; `None` if it was not, or says more than there is room for.
    pub(super) fn in_memory(memory: &'static [AtomicU64]) -> Option<Self> {
        let word = |index: usize| memory.get(index).map(|word| word.load(Relaxed));
        let (cpus, records) = (word(layout::CPUS)?, word(layout::RECORDS)?);
        let words = cpus.checked_mul(records)?.checked_mul(WORDS as u64)?.checked_add(HEADER as u64)?;
        let fits = cpus <= layout::MOST_CPUS as u64 && records > 0 && words <= memory.len() as u64;
        (word(layout::IS)? == layout::MAGIC && fits).then_some(Self { memory, cpus: cpus as usize, records })
    }

    /// Rings in the heap, for good; `None` when it is full.
    pub(super) fn in_heap(cpus: usize, records: usize) -> Option<Self> {
        let length = HEADER + cpus * records * WORDS;
        let mut memory = Vec::new();
        memory.try_reserve_exact(length).ok()?;
        memory.resize_with(length, || AtomicU64::new(0));
        for (index, value) in
            [(layout::IS, layout::MAGIC), (layout::CPUS, cpus as u64), (layout::RECORDS, records as u64)]
        {
            memory[index].store(value, Relaxed);
        }
        Self::in_memory(memory.leak())
    }

    fn written(&self, cpu: usize) -> &AtomicU64 {
        &self.memory[layout::WRITTEN + cpu]
    }

    fn slot(&self, cpu: usize, place: u64) -> &[AtomicU64] {
        let start = HEADER + (cpu as u64 * self.records + place % self.records) as usize * WORDS;
        &self.memory[start..start + WORDS]
    }

    /// Writes a record to the ring of the CPU that calls, and gives it its number. Interrupts are off.
    pub(super) fn write(&self, mut record: Record) {
        let cpu = usize::from(record.cpu);
        if cpu >= self.cpus {
            return;
        }
        record.number = self.memory[layout::NEXT].fetch_add(1, Relaxed);
        let written = self.written(cpu);
        let place = written.load(Relaxed);
        // Nobody takes the new words for those of the record that was here before.
        fence(Release);
        for (to, word) in self.slot(cpu, place).iter().zip(record.to_words()) {
            to.store(word, Relaxed);
        }
        written.store(place + 1, Release);
    }

    /// Where the rings end now.
    pub(super) fn places(&self) -> Vec<u64> {
        (0..self.cpus).map(|cpu| self.written(cpu).load(Acquire)).collect()
    }

    /// What was written since, in order. What was overwritten is missing at the beginning, and all of it where there is no
    /// memory for it.
    pub(super) fn since(&self, places: &[u64]) -> Vec<Record> {
        let (mut records, mut read) = (Vec::new(), Vec::new());
        let ends = self.places();
        let most = |(end, from): (&u64, &u64)| end.saturating_sub(*from).min(self.records) as usize;
        let all = ends.iter().zip(places).map(most).sum();
        if records.try_reserve_exact(all).is_err() || read.try_reserve_exact(self.records as usize).is_err() {
            return Vec::new();
        }
        for (cpu, (&from, &end)) in places.iter().zip(&ends).enumerate() {
            read.clear();
            for place in from.max(end.saturating_sub(self.records))..end {
                let mut words = [0; WORDS];
                words.iter_mut().zip(self.slot(cpu, place)).for_each(|(to, word)| *to = word.load(Relaxed));
                read.push((place, words));
            }
            fence(Acquire);
            // The slot of the next record may be half written.
            let first = (self.written(cpu).load(Relaxed) + 1).saturating_sub(self.records);
            let whole = read.iter().filter(|(place, _)| *place >= first);
            records.extend(whole.filter_map(|(_, words)| Record::from_words(*words)));
        }
        records.sort_unstable_by_key(|record| record.number);
        records
    }
}
