//! Who shows a page of an object: the object's list of its mappings, searched by page.
//!
//! Mappings are kept by size class (the power of two that their length reaches) and, within it, by their
//! first page. A mapping of class *k* that shows page *p* starts less than 2^(k+1) pages before *p*, so one
//! page's mappings are found without looking at all of them, however many and however different they are.

use alloc::sync::Arc;

use crate::ordered_map::{OrderedMap, Room};
use crate::table::Table;
use crate::{OutOfMemory, VirtAddr};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    class: u32,
    first: u64,
    id: u64,
}

/// One mapping, as the object knows it.
pub(crate) struct Shown<T> {
    pub(crate) pages: u64,
    pub(crate) start: VirtAddr,
    pub(crate) table: Arc<Table>,
    /// What of the object it shows, where there is more than one thing.
    pub(crate) of: T,
}

impl<T> Shown<T> {
    pub(crate) fn new(pages: u64, start: VirtAddr, table: Arc<Table>, of: T) -> Self {
        Self { pages, start, table, of }
    }
}

/// The mappings of one object, guarded by the object's lock. What is taken out is dropped by the caller
/// after the lock.
pub(crate) struct ReverseMap<T = ()> {
    by_class: OrderedMap<Key, Shown<T>>,
    /// The size classes that have mappings, a bit each.
    classes: u64,
}

impl<T> Default for ReverseMap<T> {
    fn default() -> Self {
        Self { by_class: OrderedMap::default(), classes: 0 }
    }
}

/// Memory to note one mapping.
pub(crate) type NoteRoom<T = ()> = Room<Key, Shown<T>>;

fn key(first: u64, pages: u64, id: u64) -> Key {
    Key { class: pages.ilog2(), first, id }
}

impl<T: Copy> ReverseMap<T> {
    pub(crate) fn room() -> Result<NoteRoom<T>, OutOfMemory> {
        Room::try_new()
    }

    /// Notes that mapping `id` shows pages from `first` on.
    pub(crate) fn insert(&mut self, room: NoteRoom<T>, id: u64, first: u64, shown: Shown<T>) {
        let key = key(first, shown.pages, id);
        self.classes |= 1 << key.class;
        self.by_class.insert(room, key, shown);
    }

    /// Replaces a mapping by its two parts: the first `before` pages keep the number. Says what it shows, if it is
    /// there.
    pub(crate) fn split(
        &mut self,
        [room, second_room]: [NoteRoom<T>; 2],
        id: u64,
        first: u64,
        pages: u64,
        before: u64,
        second: u64,
    ) -> Option<T> {
        let Shown { start, table, of, .. } = self.remove(id, first, pages)?;
        self.insert(room, id, first, Shown::new(before, start, table.clone(), of));
        let (first, rest) = (first + before, pages - before);
        self.insert(second_room, second, first, Shown::new(rest, start.page_add(before), table, of));
        Some(of)
    }

    /// Whether a mapping is noted with these numbers.
    pub(crate) fn contains(&self, id: u64, first: u64, pages: u64) -> bool {
        self.by_class.get(&key(first, pages, id)).is_some_and(|shown| shown.pages == pages)
    }

    /// Forgets a mapping that was noted with the same numbers.
    #[must_use = "dropped after the lock"]
    pub(crate) fn remove(&mut self, id: u64, first: u64, pages: u64) -> Option<Shown<T>> {
        let key = key(first, pages, id);
        let shown = self.by_class.remove(&key)?;
        let lowest = Key { class: key.class, first: 0, id: 0 };
        if self.by_class.at_or_after(&lowest).is_none_or(|(next, _)| next.class != key.class) {
            self.classes &= !(1 << key.class);
        }
        Some(shown)
    }

    /// Tells each place where `page` may be shown.
    pub(crate) fn for_each<'a>(&'a self, page: u64, mut told: impl FnMut(&'a Shown<T>, VirtAddr)) {
        // Most objects are mapped once, and this is part of each copy of a page.
        if let Some((key, shown)) = self.by_class.only() {
            if let Some(offset) = page.checked_sub(key.first).filter(|&offset| offset < shown.pages) {
                told(shown, shown.start.page_add(offset));
            }
            return;
        }
        let mut classes = self.classes;
        while classes != 0 {
            let class = classes.trailing_zeros();
            classes &= classes - 1;
            let reach = 1u64.checked_shl(class + 1).unwrap_or(u64::MAX);
            let mut from = Key { class, first: page.saturating_sub(reach - 1), id: 0 };
            let last = Key { class, first: page, id: u64::MAX };
            while let Some((key, shown)) = self.by_class.at_or_after(&from).filter(|(key, _)| *key <= last) {
                let offset = page - key.first;
                if offset < shown.pages {
                    told(shown, shown.start.page_add(offset));
                }
                // Numbers of mappings are counted up from 0.
                from = Key { id: key.id + 1, ..key };
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_class.len()
    }
}

#[cfg(test)]
mod tests;
