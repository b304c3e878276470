//! Reading the rings while the machine writes them.
//!
//! A record's words are written before the ring's count, and the oldest are overwritten: so the count is read before and
//! after the records, and those that may have been overwritten meanwhile are left out. Records of all rings are put in
//! order by their numbers. A number that is missing is waited for, until it is known to be lost.
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::layout::{self, HEADER, MOST_CPUS, Record, WORDS};

/// Bytes of the memory that is shared with the machine: a power of two, as a PCI device's window is.
pub const BYTES: u64 = 32 << 20;
const WORD: u64 = 8;
const RECORD: u64 = WORDS as u64 * WORD;

/// The rings of a machine, and how far they were read.
pub struct Rings {
    file: File,
    /// Of each ring.
    records: u64,
    read: Vec<u64>,
    /// Read, but behind a number that is still missing.
    waiting: BTreeMap<u64, Record>,
    /// The number that comes next.
    next: u64,
    /// Records that were overwritten before they were read, and whose numbers are not known yet.
    overwritten: u64,
}

impl Rings {
    /// Makes the file that the machine has its rings in.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn make(path: &Path, cpus: u32) -> io::Result<Self> {
        let cpus = (cpus as usize).min(MOST_CPUS);
        let records = (BYTES / WORD - HEADER as u64) / (cpus as u64 * WORDS as u64);
        Self::with_room(path, cpus, records, BYTES)
    }

    fn with_room(path: &Path, cpus: usize, records: u64, bytes: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        // Now, and not when the machine writes there: where there was no room then, it would end by a signal.
        make_room(&file, bytes)?;
        for (index, word) in
            [(layout::IS, layout::MAGIC), (layout::CPUS, cpus as u64), (layout::RECORDS, records)]
        {
            file.write_all_at(&word.to_le_bytes(), index as u64 * WORD)?;
        }
        Ok(Self { file, records, read: vec![0; cpus], waiting: BTreeMap::new(), next: 0, overwritten: 0 })
    }

    /// Brings what is new, in order, and how many records were lost before it. `over`: nothing more will come.
    ///
    /// # Errors
    /// Those of `take`, and of reading the file.
    pub fn read(
        &mut self,
        over: bool,
        mut take: impl FnMut(&[Record], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        (0..self.read.len()).try_for_each(|cpu| self.read_ring(cpu))?;
        loop {
            let mut ready = Vec::new();
            while let Some(record) = self.waiting.remove(&self.next) {
                ready.push(record);
                self.next += 1;
            }
            if !ready.is_empty() {
                take(&ready, 0)?;
            }
            let first = self.waiting.first_key_value().map(|(&number, _)| number);
            // At the end, the kernel's own count says what is missing behind the last record.
            let end = if over { Some(self.word(layout::NEXT)?.max(self.next)) } else { None };
            let Some(to) = first.or(end) else { return Ok(()) };
            let missing = to - self.next;
            if missing == 0 || (missing > self.overwritten && !over) {
                return Ok(());
            }
            self.overwritten = self.overwritten.saturating_sub(missing);
            self.next = to;
            take(&[], missing)?;
        }
    }

    fn word(&self, index: usize) -> io::Result<u64> {
        let mut word = [0; WORD as usize];
        self.file.read_exact_at(&mut word, index as u64 * WORD)?;
        Ok(u64::from_le_bytes(word))
    }

    fn read_ring(&mut self, cpu: usize) -> io::Result<()> {
        let written = self.word(layout::WRITTEN + cpu)?;
        let from = self.read[cpu].max((written + 1).saturating_sub(self.records));
        let mut bytes = vec![0; ((written - from) * RECORD) as usize];
        let mut place = from;
        // To the ring's end, and then from its beginning.
        while place < written {
            let count = (written - place).min(self.records - place % self.records);
            let at = (cpu as u64 * self.records + place % self.records) * RECORD + HEADER as u64 * WORD;
            let part = ((place - from) * RECORD) as usize..((place - from + count) * RECORD) as usize;
            self.file.read_exact_at(&mut bytes[part], at)?;
            place += count;
        }
        // The place of the next record may be half written.
        let first = (self.word(layout::WRITTEN + cpu)? + 1).saturating_sub(self.records).max(from);
        self.overwritten += first.min(written) - self.read[cpu];
        self.read[cpu] = written;
        for (place, record) in (from..).zip(bytes.chunks_exact(RECORD as usize)) {
            let words = core::array::from_fn(|index| {
                let word = record[index * WORD as usize..].first_chunk().expect("whole words");
                u64::from_le_bytes(*word)
            });
            if place < first {
                continue;
            }
            match Record::from_words(words) {
                Some(record) if record.number >= self.next => {
                    self.waiting.insert(record.number, record);
                }
                // It was given up in the place of one that was overwritten, whose number is still waited for.
                Some(_) => self.overwritten += 1,
                None => {}
            }
        }
        Ok(())
    }
}

/// Gives a file its length, and room for all of it.
fn make_room(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        // The file system does not know how.
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        answer => Ok(answer?),
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..count as usize], at)?;
        at += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Kind;

    /// A kernel with two CPUs whose rings have room for four records.
    struct Scene {
        _folder: tempfile::TempDir,
        rings: Rings,
        written: [u64; 2],
    }

    const ROOM: u64 = 4;

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let rings = Rings::with_room(&folder.path().join("rings"), 2, ROOM, 1 << 16).unwrap();
        Scene { _folder: folder, rings, written: [0; 2] }
    }

    impl Scene {
        fn write(&mut self, cpu: usize, number: u64) {
            let record = Record {
                number,
                time: number * 10,
                kind: Kind::Resume,
                cpu: cpu as u8,
                detail: 0,
                memory: 0,
                words: [7; 5],
            };
            let place = self.written[cpu] % ROOM;
            let at = (cpu as u64 * ROOM + place) * RECORD + HEADER as u64 * WORD;
            let bytes: Vec<u8> = record.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
            let file = &self.rings.file;
            file.write_all_at(&bytes, at).unwrap();
            self.written[cpu] += 1;
            let count = (layout::WRITTEN + cpu) as u64 * WORD;
            file.write_all_at(&self.written[cpu].to_le_bytes(), count).unwrap();
            let next = (number + 1).max(self.rings.word(layout::NEXT).unwrap());
            file.write_all_at(&next.to_le_bytes(), layout::NEXT as u64 * WORD).unwrap();
        }

        /// What comes: the numbers of records, and counts of lost ones.
        fn read(&mut self, over: bool) -> Vec<Result<u64, u64>> {
            let mut come = Vec::new();
            self.rings
                .read(over, |records, lost| {
                    come.extend((lost > 0).then_some(Err(lost)));
                    come.extend(records.iter().map(|record| Ok(record.number)));
                    Ok(())
                })
                .unwrap();
            come
        }
    }

    #[test]
    fn records_of_all_rings_come_in_the_order_of_their_numbers() {
        let mut scene = scene();
        scene.write(0, 1);
        scene.write(1, 2);
        assert_eq!(scene.read(false), [], "number 0 has begun, and will come");
        scene.write(1, 0);
        assert_eq!(scene.read(false), [Ok(0), Ok(1), Ok(2)]);
        assert_eq!(scene.read(true), []);
    }

    #[test]
    fn what_was_overwritten_before_it_was_read_counts_as_lost() {
        let mut scene = scene();
        (0..6).for_each(|number| scene.write(0, number));
        // The slot of the next one may be half written.
        assert_eq!(scene.read(false), [Err(3), Ok(3), Ok(4), Ok(5)]);
        scene.write(1, 6);
        assert_eq!(scene.read(false), [Ok(6)]);
    }

    #[test]
    fn a_number_that_was_given_up_too_early_is_made_good() {
        let mut scene = scene();
        scene.write(1, 1);
        (2..8).for_each(|number| scene.write(0, number));
        // Number 0 was begun, and is taken for one of the three that were overwritten.
        assert_eq!(scene.read(false), [Err(1), Ok(1)]);
        scene.write(1, 0);
        assert_eq!(scene.read(false), [Err(3), Ok(5), Ok(6), Ok(7)]);
    }

    #[test]
    fn what_never_came_counts_as_lost_at_the_end() {
        let mut scene = scene();
        scene.write(0, 0);
        scene.write(0, 2);
        assert_eq!(scene.read(false), [Ok(0)]);
        assert_eq!(scene.read(true), [Err(1), Ok(2)]);
        let next = 5u64.to_le_bytes();
        scene.rings.file.write_all_at(&next, layout::NEXT as u64 * WORD).unwrap();
        assert_eq!(scene.read(true), [Err(2)], "two had begun when the machine ended");
    }

    #[test]
    fn every_record_survives_packing() {
        let record = Record {
            number: 1,
            time: 2,
            kind: Kind::Evict,
            cpu: 63,
            detail: 255,
            memory: u16::MAX,
            words: [3, 4, 5, 6, u64::MAX],
        };
        assert_eq!(Record::from_words(record.to_words()), Some(record));
        assert_eq!(Record::from_words([255; WORDS]), None);
    }

    #[test]
    fn the_memory_is_there_before_anybody_writes_to_it() {
        use std::os::unix::fs::MetadataExt as _;
        let scene = scene();
        let about = scene.rings.file.metadata().unwrap();
        assert!(about.blocks() * 512 >= about.size() && about.size() == 1 << 16, "{about:?}");
        write_zeros(&scene.rings.file, 3 << 20).unwrap();
        assert_eq!(scene.rings.file.metadata().unwrap().size(), 3 << 20);
    }

    #[test]
    fn a_memory_for_which_there_is_no_room_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Rings::with_room(&folder.path().join("rings"), 1, 1, 1 << 62).is_err());
    }
}
