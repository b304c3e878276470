//! Who shows a page of an object: the object's list of its mappings, searched by page.
//!
//! Mappings are kept by size class (the power of two that their length reaches) and, within it, by their
//! first page. A mapping of class *k* that shows page *p* starts less than 2^(k+1) pages before *p*, so one
//! page's mappings are found without looking at all of them, however many and however different they are.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::VirtAddr;
use crate::table::Table;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    class: u32,
    first: u64,
    id: u64,
}

/// One mapping, as the object knows it.
pub(crate) struct Shown {
    pages: u64,
    pub(crate) start: VirtAddr,
    pub(crate) table: Arc<Table>,
}

/// The mappings of one object, guarded by the object's lock. What is taken out is dropped by the caller
/// after the lock.
#[derive(Default)]
pub(crate) struct ReverseMap {
    by_class: BTreeMap<Key, Shown>,
    /// How many mappings each size class has.
    classes: BTreeMap<u32, usize>,
}

fn key(first: u64, pages: u64, id: u64) -> Key {
    Key { class: pages.ilog2(), first, id }
}

impl ReverseMap {
    /// Notes that mapping `id` shows the `pages` pages from `first` on at `start`.
    pub(crate) fn insert(&mut self, id: u64, first: u64, pages: u64, start: VirtAddr, table: Arc<Table>) {
        let key = key(first, pages, id);
        *self.classes.entry(key.class).or_default() += 1;
        let old = self.by_class.insert(key, Shown { pages, start, table });
        debug_assert!(old.is_none(), "a mapping is noted once");
    }

    /// Whether a mapping is noted with these numbers.
    pub(crate) fn contains(&self, id: u64, first: u64, pages: u64) -> bool {
        self.by_class.get(&key(first, pages, id)).is_some_and(|shown| shown.pages == pages)
    }

    /// Forgets a mapping that was noted with the same numbers.
    #[must_use = "dropped after the lock"]
    pub(crate) fn remove(&mut self, id: u64, first: u64, pages: u64) -> Option<Shown> {
        let key = key(first, pages, id);
        let shown = self.by_class.remove(&key)?;
        if let Some(count) = self.classes.get_mut(&key.class) {
            *count -= 1;
            if *count == 0 {
                self.classes.remove(&key.class);
            }
        }
        Some(shown)
    }

    /// Tells each place where `page` may be shown.
    pub(crate) fn for_each(&self, page: u64, mut told: impl FnMut(&Table, VirtAddr)) {
        for &class in self.classes.keys() {
            let reach = 1u64.checked_shl(class + 1).unwrap_or(u64::MAX);
            let from = Key { class, first: page.saturating_sub(reach - 1), id: 0 };
            let to = Key { class, first: page, id: u64::MAX };
            for (key, shown) in self.by_class.range(from..=to) {
                let offset = page - key.first;
                if offset < shown.pages {
                    told(&shown.table, shown.start.page_add(offset));
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_class.len()
    }
}

#[cfg(test)]
mod tests;
