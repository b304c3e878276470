//! Slots: the pages of a swap disk, each with the number of its owners.
//!
//! An entry that is swapped owns its slot, whoever sees that entry: versions of private memory share entries, not
//! slots. A frame owns the slot that holds the same bytes. And a load that is under way owns the slot that it reads, so
//! that nobody gets it while the disk has not answered. So a slot has two owners at most.
//!
//! Free slots have a bit each, and 64 of these bits share one in a summary: a free slot is found by looking at one word
//! for each 4,096 that are taken. Slot 0 is none: it stands for zeros.

use alloc::vec::Vec;

use crate::OutOfMemory;

/// Slots of a word.
const WORD: usize = u64::BITS as usize;
/// Runs that are looked at before the longest of them is taken.
const LOOKS: usize = 8;

/// The slots of one area, guarded by its lock.
pub(super) struct Slots {
    owners: Vec<u8>,
    /// A bit for each slot that is free.
    free: Vec<u64>,
    /// A bit for each word with a free slot.
    open: Vec<u64>,
    free_count: usize,
    /// Where the next search begins: behind the slot that was taken last.
    next: usize,
}

/// So many values, or none.
pub(super) fn try_filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>, OutOfMemory> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
    all.resize(count, value);
    Ok(all)
}

impl Slots {
    /// `count` slots, all but the first free.
    pub(super) fn try_new(count: usize) -> Result<Self, OutOfMemory> {
        let words = count.div_ceil(WORD);
        let mut slots = Self {
            owners: try_filled(count, 0)?,
            free: try_filled(words, 0)?,
            open: try_filled(words.div_ceil(WORD), 0)?,
            free_count: 0,
            next: 1,
        };
        (1..count).for_each(|slot| slots.open(slot));
        Ok(slots)
    }

    fn open(&mut self, slot: usize) {
        self.free[slot / WORD] |= 1 << (slot % WORD);
        self.open[slot / WORD / WORD] |= 1 << (slot / WORD % WORD);
        self.free_count += 1;
    }

    /// Slots that can be had, and those that are taken.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.free_count, self.owners.len().saturating_sub(1) - self.free_count)
    }

    /// Takes up to `most` slots in a row, each for one owner: the first and how many. Not the longest run there is, but
    /// one that is found soon.
    pub(super) fn take(&mut self, most: usize) -> Option<(usize, usize)> {
        let (mut best, mut at) = ((0, 0), self.next);
        for _ in 0..LOOKS {
            let Some(first) = self.free_from(at).or_else(|| self.free_from(1)) else { break };
            let length = (first..first + most).take_while(|&slot| self.is_free(slot)).count();
            if length > best.1 {
                best = (first, length);
            }
            if length == most {
                break;
            }
            at = first + length;
        }
        let (first, length) = best;
        for slot in first..first + length {
            self.owners[slot] = 1;
            self.free[slot / WORD] &= !(1 << (slot % WORD));
            if self.free[slot / WORD] == 0 {
                self.open[slot / WORD / WORD] &= !(1 << (slot / WORD % WORD));
            }
        }
        self.free_count -= length;
        self.next = first + length;
        (length > 0).then_some((first, length))
    }

    fn is_free(&self, slot: usize) -> bool {
        self.free.get(slot / WORD).is_some_and(|word| word >> (slot % WORD) & 1 != 0)
    }

    /// The first free slot at or behind one.
    fn free_from(&self, from: usize) -> Option<usize> {
        let bits = |words: &[u64], from: usize| {
            let word = words.get(from / WORD)? & (u64::MAX << (from % WORD));
            (word != 0).then(|| from / WORD * WORD + word.trailing_zeros() as usize)
        };
        if let Some(slot) = bits(&self.free, from) {
            return Some(slot);
        }
        let mut word = from / WORD + 1;
        while word < self.free.len() {
            match bits(&self.open, word) {
                Some(open) => return bits(&self.free, open * WORD),
                None => word = (word / WORD + 1) * WORD,
            }
        }
        None
    }

    /// A slot has an owner more.
    pub(super) fn share(&mut self, slot: usize) {
        debug_assert!(self.owners[slot] > 0, "slot {slot} is nobody's");
        self.owners[slot] += 1;
    }

    /// A slot has an owner less. True if it is free now.
    pub(super) fn give_back(&mut self, slot: usize) -> bool {
        let owners = &mut self.owners[slot];
        assert!(*owners > 0, "slot {slot} is given back and is nobody's");
        *owners -= 1;
        let is_free = *owners == 0;
        if is_free {
            self.open(slot);
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_in_runs_behind_each_other() {
        let mut slots = Slots::try_new(100).expect("there is memory");
        assert_eq!(slots.take(32), Some((1, 32)));
        assert_eq!(slots.take(32), Some((33, 32)));
        assert_eq!(slots.take(64), Some((65, 35)));
        assert_eq!((slots.take(1), slots.counts()), (None, (0, 99)));
    }

    #[test]
    fn a_slot_is_free_when_its_last_owner_has_given_it_back() {
        let mut slots = Slots::try_new(3).expect("there is memory");
        assert_eq!(slots.take(8), Some((1, 2)));
        slots.share(2);
        assert!(!slots.give_back(2));
        assert_eq!(slots.take(8), None);
        assert!(slots.give_back(2));
        assert_eq!(slots.take(8), Some((2, 1)));
    }

    #[test]
    fn a_free_slot_far_away_is_found_and_a_longer_run_is_preferred() {
        const COUNT: usize = 3 * WORD * WORD + 17;
        let mut slots = Slots::try_new(COUNT).expect("there is memory");
        while slots.take(1000).is_some() {}
        for slot in [5, 7, 8, 9, COUNT - 2, COUNT - 1] {
            slots.give_back(slot);
        }
        assert_eq!(slots.take(3), Some((7, 3)));
        assert_eq!(slots.take(3), Some((COUNT - 2, 2)));
        assert_eq!(slots.take(3), Some((5, 1)));
        assert_eq!(slots.take(1), None);
    }
}
