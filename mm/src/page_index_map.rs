//! From page number to page: chunks of 64 entries, found by one descent. A page that is absent costs
//! nothing where all 64 are.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::ops::Range;

use crate::page_state::PageEntry;

const CHUNK: u64 = 64;

struct Chunk {
    entries: [PageEntry; CHUNK as usize],
    /// Entries that are not absent.
    used: u32,
}

/// The pages of one object, guarded by the object's lock.
#[derive(Default)]
pub(crate) struct PageIndexMap {
    chunks: BTreeMap<u64, Box<Chunk>>,
}

impl PageIndexMap {
    pub(crate) fn get(&self, index: u64) -> PageEntry {
        match self.chunks.get(&(index / CHUNK)) {
            Some(chunk) => chunk.entries[(index % CHUNK) as usize],
            None => PageEntry::ABSENT,
        }
    }

    pub(crate) fn set(&mut self, index: u64, entry: PageEntry) {
        let number = index / CHUNK;
        if entry == PageEntry::ABSENT {
            let Some(chunk) = self.chunks.get_mut(&number) else { return };
            let old = core::mem::replace(&mut chunk.entries[(index % CHUNK) as usize], entry);
            chunk.used -= u32::from(old != PageEntry::ABSENT);
            if chunk.used == 0 {
                self.chunks.remove(&number);
            }
            return;
        }
        let chunk = self
            .chunks
            .entry(number)
            .or_insert_with(|| Box::new(Chunk { entries: [PageEntry::ABSENT; CHUNK as usize], used: 0 }));
        let old = core::mem::replace(&mut chunk.entries[(index % CHUNK) as usize], entry);
        chunk.used += u32::from(old == PageEntry::ABSENT);
    }

    /// The first page in `range` that is not absent.
    pub(crate) fn next_used(&self, range: Range<u64>) -> Option<(u64, PageEntry)> {
        if range.is_empty() {
            return None;
        }
        for (number, chunk) in self.chunks.range(range.start / CHUNK..=(range.end - 1) / CHUNK) {
            let base = number * CHUNK;
            let from = range.start.saturating_sub(base);
            let to = (range.end - base).min(CHUNK);
            for offset in from..to {
                let entry = chunk.entries[offset as usize];
                if entry != PageEntry::ABSENT {
                    return Some((base + offset, entry));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageState;

    fn loaded(frame: u64) -> PageEntry {
        PageEntry::new(PageState::Loaded { frame })
    }

    #[test]
    fn used_pages_are_found_in_order_and_only_within_the_range() {
        let mut map = PageIndexMap::default();
        for index in [3, 63, 64, 1000, u64::MAX / 4096] {
            map.set(index, loaded(index & 0xffff));
        }
        assert_eq!(map.next_used(0..u64::MAX).map(|found| found.0), Some(3));
        assert_eq!(map.next_used(4..1000).map(|found| found.0), Some(63));
        assert_eq!(map.next_used(64..65).map(|found| found.0), Some(64));
        assert_eq!(map.next_used(65..1000).map(|found| found.0), None);
        assert_eq!(map.next_used(65..65).map(|found| found.0), None);
        assert_eq!(map.get(1000).state(), PageState::Loaded { frame: 1000 });
    }

    #[test]
    fn a_chunk_without_pages_costs_nothing() {
        let mut map = PageIndexMap::default();
        map.set(7, loaded(1));
        map.set(8, loaded(2));
        map.set(7, PageEntry::ABSENT);
        assert_eq!(map.chunks.len(), 1);
        map.set(8, PageEntry::ABSENT);
        map.set(8, PageEntry::ABSENT);
        assert_eq!(map.chunks.len(), 0);
    }
}
