//! Things that frame records name by number: objects, and private memory. Who looks one up has it only
//! while it lives.

use alloc::sync::{Arc, Weak};

use crate::ordered_map::{OrderedMap, Room};

/// Memory to note one of them.
pub(crate) type NumberedRoom<T> = Room<u32, Weak<T>>;

/// Guarded by the lock of whoever keeps it.
pub(crate) struct Numbered<T> {
    next: u32,
    by_number: OrderedMap<u32, Weak<T>>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { next: 0, by_number: OrderedMap::default() }
    }
}

impl<T> Numbered<T> {
    /// Gives something new a number that nothing else has.
    pub(crate) fn insert(&mut self, room: NumberedRoom<T>, new: &Weak<T>) -> u32 {
        loop {
            let number = self.next;
            self.next = number.wrapping_add(1);
            if self.by_number.get(&number).is_none() {
                self.by_number.insert(room, number, new.clone());
                return number;
            }
        }
    }

    /// The number that the next new one is likely to get: those that are there have smaller ones, unless all were used once.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// The number is free again. What is returned is dropped after the lock.
    #[must_use = "dropped after the lock"]
    pub(crate) fn remove(&mut self, number: u32) -> Option<Weak<T>> {
        self.by_number.remove(&number)
    }

    /// What has this number, if it still lives.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<T>> {
        self.by_number.get(&number)?.upgrade()
    }

    /// The first from a number on that lives, and its number.
    pub(crate) fn first_from(&self, mut number: u32) -> Option<(u32, Arc<T>)> {
        loop {
            let (found, thing) = self.by_number.at_or_after(&number)?;
            if let Some(thing) = thing.upgrade() {
                return Some((found, thing));
            }
            number = found.checked_add(1)?;
        }
    }
}
