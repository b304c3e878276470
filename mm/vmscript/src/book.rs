//! When which page was used and became dirty: what exact LRU needs, and what only the player knows. That a page is
//! there, or dirty, is what `mm` says.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Whose page it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Owner {
    /// A file, by its number.
    File(usize),
    /// Private memory, by the number of the mapping that shows it.
    Private(u64),
}

/// A page.
pub(crate) type Key = (Owner, u64);

/// Times of one page that is in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Of its latest use.
    pub(crate) used: u64,
    /// Since when it is dirty.
    pub(crate) dirtied: Option<u64>,
    /// Of a private page: the frame that this is about.
    pub(crate) frame: Option<u64>,
}

/// The times of all pages that are in memory.
#[derive(Default)]
pub(crate) struct Book {
    pages: BTreeMap<Key, Times>,
    /// The same pages by their latest use, those that were used at the same time the last first.
    by_use: BTreeSet<(u64, Reverse<Key>)>,
    /// Frames of private pages that somebody left to those who see them as well, with the latest use of that one.
    left: BTreeMap<u64, u64>,
}

impl Book {
    fn insert(&mut self, key: Key, times: Times) {
        if let Some(before) = self.pages.insert(key, times) {
            self.by_use.remove(&(before.used, Reverse(key)));
        }
        self.by_use.insert((times.used, Reverse(key)));
    }

    fn remove(&mut self, key: Key) -> Option<Times> {
        let times = self.pages.remove(&key)?;
        self.by_use.remove(&(times.used, Reverse(key)));
        Some(times)
    }

    /// A page was loaded: whatever was known of it is over.
    pub(crate) fn loaded(&mut self, key: Key, now: u64) {
        self.insert(key, Times { used: now, dirtied: None, frame: None });
    }

    /// A page was read, or written. `frame` is that of a private page.
    pub(crate) fn used(&mut self, key: Key, write: bool, frame: Option<u64>, now: u64) {
        let known = self.pages.get(&key).copied();
        if let Some(before) = known.filter(|times| times.frame != frame) {
            leave(&mut self.left, &before);
        }
        let mut dirtied = known.filter(|times| times.frame == frame).and_then(|times| times.dirtied);
        if write || frame.is_some() {
            dirtied.get_or_insert(now);
        }
        self.insert(key, Times { used: now, dirtied, frame });
    }

    /// A fork sees with one mapping what it saw with another.
    pub(crate) fn copy(&mut self, from: u64, to: u64) {
        let range = (Owner::Private(from), 0)..=(Owner::Private(from), u64::MAX);
        let copies: Vec<_> = self.pages.range(range).map(|(key, times)| (key.1, *times)).collect();
        copies.into_iter().for_each(|(page, times)| self.insert((Owner::Private(to), page), times));
    }

    /// Pages that have become others' since: `to` says whose.
    pub(crate) fn move_all(&mut self, to: impl Fn(Key) -> Option<Key>) {
        let moves: Vec<_> = self.pages.keys().filter_map(|&from| Some((from, to(from)?))).collect();
        for (from, to) in moves {
            let Some(times) = self.remove(from) else { continue };
            let mut there = self.pages.get(&to).copied().unwrap_or(times);
            there.used = there.used.max(times.used);
            self.insert(to, there);
        }
    }

    /// Looks at each page: `look` says whether it is there, and whether it is dirty.
    pub(crate) fn refresh(&mut self, mut look: impl FnMut(Key, &Times) -> Option<bool>) {
        let Self { pages, by_use, left } = self;
        pages.retain(|&key, times| match look(key, times) {
            None => {
                by_use.remove(&(times.used, Reverse(key)));
                leave(left, times);
                false
            }
            Some(dirty) => {
                times.dirtied = if dirty { times.dirtied.or(Some(times.used)) } else { None };
                true
            }
        });
        let left = core::mem::take(left);
        if left.is_empty() {
            return;
        }
        for (&key, times) in pages {
            let Some(&used) = times.frame.and_then(|frame| left.get(&frame)) else { continue };
            if used > times.used {
                by_use.remove(&(times.used, Reverse(key)));
                by_use.insert((used, Reverse(key)));
                times.used = used;
            }
        }
    }

    /// The page that was used longest ago, of those that `fits` says. Equal ones by their keys, as in the lists.
    pub(crate) fn oldest(&self, fits: impl Fn(Key) -> bool) -> Option<Key> {
        self.by_use.iter().map(|&(_, Reverse(key))| key).find(|&key| fits(key))
    }

    /// All pages, those used last first.
    pub(crate) fn newest_first(&self) -> Vec<(Key, Times)> {
        self.sorted(|times| Some(times.used))
    }

    /// The dirty ones, those dirtied last first.
    pub(crate) fn dirtied_last_first(&self) -> Vec<(Key, Times)> {
        self.sorted(|times| times.dirtied)
    }

    fn sorted(&self, by: impl Fn(&Times) -> Option<u64>) -> Vec<(Key, Times)> {
        let mut pages: Vec<_> = self
            .pages
            .iter()
            .filter(|(_, times)| by(times).is_some())
            .map(|(&key, &times)| (key, times))
            .collect();
        pages.sort_by_key(|(key, times)| (Reverse(by(times)), *key));
        pages
    }
}

/// Somebody sees a page no more: its latest use is that of the frame, for those who still see that.
fn leave(left: &mut BTreeMap<u64, u64>, times: &Times) {
    if let Some(frame) = times.frame {
        let used = left.entry(frame).or_default();
        *used = times.used.max(*used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oldest page is the last of the list, whatever has happened.
    #[test]
    fn the_oldest_page_is_the_last_of_those_that_were_used() {
        let mut book = Book::default();
        let key = |number: u64| match number % 3 {
            0 => (Owner::Private(number % 5), number % 7),
            _ => (Owner::File(number as usize % 2), number % 11),
        };
        for now in 0..5000 {
            let number = (now * 2_654_435_761) >> 7;
            match number % 23 {
                0 => book.copy(number % 5, (number + 1) % 5),
                1 => book.refresh(|(_, page), _| (page % 4 != now % 4).then_some(page % 2 == 0)),
                2 => {
                    book.move_all(|(owner, page)| {
                        (owner == Owner::File(0)).then_some((Owner::File(1), page))
                    });
                }
                3..10 => book.loaded(key(number), now),
                _ => book.used(key(number), number % 2 == 0, Some(number % 3), now),
            }
            let last = |pages: &[(Key, Times)], fits: &dyn Fn(Key) -> bool| {
                pages.iter().rev().map(|page| page.0).find(|&key| fits(key))
            };
            let pages = book.newest_first();
            assert_eq!(book.oldest(|_| true), last(&pages, &|_| true));
            let is_file = |(owner, _): Key| matches!(owner, Owner::File(_));
            assert_eq!(book.oldest(is_file), last(&pages, &is_file));
            assert_eq!(pages.len(), book.by_use.len());
        }
    }
}
