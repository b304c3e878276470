//! Power cuts: what a disk may hold when power ends, rebuilt from the log of its writes.
//!
//! QEMU's `blklogwrites` notes each write and each flush in their order. When power ends, all that was written before the
//! last flush is there, and of the later writes any: a disk may keep some of them and lose others.
use std::ops::Range;

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// Something that was done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Bytes were written.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// What was written before is durable.
    Flush,
}

/// What was done to a disk, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Everything.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads what `blklogwrites` has noted.
    ///
    /// # Errors
    /// When it is no such log, or its end is missing.
    pub fn parse(log: &[u8]) -> Result<Self> {
        let word = |at: usize| -> Result<u64> {
            let bytes = log.get(at..at + 8).context("the log ends too early")?;
            Ok(u64::from_le_bytes(bytes.try_into()?))
        };
        ensure!(word(0)? == MAGIC, "{:#x} is no log of writes", word(0)?);
        let (count, sector) = (word(16)?, word(24)? & u64::from(u32::MAX));
        ensure!(sector.is_power_of_two() && sector >= 512, "sectors of {sector} bytes");
        let (mut at, mut entries) = (sector as usize, Vec::new());
        for _ in 0..count {
            let (first, sectors, flags) = (word(at)?, word(at + 8)?, word(at + 16)?);
            at += sector as usize;
            if flags & (FLUSH | FUA) != 0 {
                entries.push(Entry::Flush);
            }
            let length = (sectors * sector) as usize;
            if length > 0 && flags & DISCARD == 0 {
                let bytes = log.get(at..at + length).context("the log ends within a write")?.to_vec();
                at += length;
                entries.push(Entry::Write { at: first * sector, bytes });
            }
            if flags & FUA != 0 {
                entries.push(Entry::Flush);
            }
        }
        Ok(Self { entries })
    }

    /// What the disk may hold when power ends before entry `cut`: `image` is what it held at first, and `keeps` says of
    /// each write that no flush has made durable whether the disk kept it.
    pub fn cut(&self, cut: usize, mut image: Vec<u8>, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
        let before = &self.entries[..cut];
        let durable = before.iter().rposition(|entry| *entry == Entry::Flush).unwrap_or(0);
        for (number, entry) in before.iter().enumerate() {
            if let Entry::Write { at, bytes } = entry
                && (number < durable || keeps())
            {
                image[*at as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        image
    }

    /// The highest number that was written to the first word of a page before entry `cut`.
    pub fn highest(&self, cut: usize, page: Range<u64>) -> u64 {
        let words = self.entries[..cut].iter().filter_map(|entry| match entry {
            Entry::Write { at, bytes } if *at <= page.start && page.end <= at + bytes.len() as u64 => {
                let word = &bytes[(page.start - at) as usize..][..8];
                Some(u64::from_le_bytes(word.try_into().expect("eight bytes")))
            }
            _ => None,
        });
        words.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, byte: u8) -> Entry {
        Entry::Write { at, bytes: vec![byte; 512] }
    }

    /// As QEMU writes it.
    fn noted(entries: &[Entry]) -> Vec<u8> {
        let mut log = vec![0; 512];
        for (at, word) in [(0, MAGIC), (8, 1), (16, entries.len() as u64), (24, 512)] {
            log[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
        }
        for entry in entries {
            let mut sector = vec![0; 512];
            if let Entry::Write { at, bytes } = entry {
                sector[..8].copy_from_slice(&(at / 512).to_le_bytes());
                sector[8..16].copy_from_slice(&(bytes.len() as u64 / 512).to_le_bytes());
                sector.extend(bytes);
            } else {
                sector[16] = 1;
            }
            log.extend(sector);
        }
        log
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let entries = [write(512, 1), Entry::Flush, write(0, 2)];
        let log = noted(&entries);
        assert_eq!(Log::parse(&log).unwrap().entries, entries);
        assert!(Log::parse(&log[..log.len() - 1]).unwrap_err().to_string().contains("within a write"));
        assert!(Log::parse(&log[1..]).unwrap_err().to_string().contains("no log"));
    }

    #[test]
    fn what_was_flushed_is_kept_and_later_writes_may_be_lost() {
        let log = Log { entries: vec![write(0, 1), Entry::Flush, write(512, 2), write(0, 3)] };
        let bytes = |cut, keeps: &mut dyn FnMut() -> bool| {
            let image = log.cut(cut, vec![0; 1024], keeps);
            [image[0], image[512]]
        };
        assert_eq!(bytes(4, &mut || false), [1, 0]);
        assert_eq!(bytes(4, &mut || true), [3, 2]);
        let mut every_second = false;
        let alternates = &mut || std::mem::replace(&mut every_second, true);
        assert_eq!(bytes(4, alternates), [3, 0]);
        assert_eq!(bytes(1, &mut || false), [0, 0]);
        let unflushed = Log { entries: vec![write(0, 1), write(512, 2)] };
        let cut = unflushed.cut(2, vec![0; 1024], || false);
        assert_eq!([cut[0], cut[512]], [0, 0]);
    }

    #[test]
    fn the_highest_word_of_a_page_is_found_in_longer_writes() {
        let mut bytes = vec![0; 8192];
        bytes[4096] = 7;
        let log = Log { entries: vec![Entry::Write { at: 0, bytes }] };
        assert_eq!((log.highest(1, 4096..8192), log.highest(0, 4096..8192)), (7, 0));
    }
}
