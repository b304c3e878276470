//! A doubly linked list through its entries: nothing is allocated, and any entry can be taken out at once.
#![allow(unsafe_code, reason = "entries are linked by pointers to one another")]

use core::cell::Cell;

/// The two pointers of an entry. They belong to whoever may change the list.
pub(crate) struct Links<T> {
    previous: Cell<*const T>,
    next: Cell<*const T>,
}

impl<T> Links<T> {
    pub(crate) const fn new() -> Self {
        Links { previous: Cell::new(core::ptr::null()), next: Cell::new(core::ptr::null()) }
    }
}

/// Something with links in it.
///
/// # Safety
/// `links` gives the same links each time, and they are used by one list at a time.
pub(crate) unsafe trait Linked: Sized {
    fn links(&self) -> &Links<Self>;
}

/// The list. It owns no entries: who pushes one takes it out before it goes.
pub(crate) struct List<T> {
    head: *const T,
    tail: *const T,
    len: usize,
}

// SAFETY: the list is pointers; whoever pushes promises that the entries may be reached from where the list is.
unsafe impl<T> Send for List<T> {}

impl<T: Linked> List<T> {
    pub(crate) const fn new() -> Self {
        List { head: core::ptr::null(), tail: core::ptr::null(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// The first entry.
    pub(crate) fn front(&self) -> Option<&T> {
        // SAFETY: entries are alive while they are in the list.
        unsafe { self.head.as_ref() }
    }

    /// # Safety
    /// The entry is in no list, does not move, and is taken out before it goes.
    pub(crate) unsafe fn push_back(&mut self, entry: *const T) {
        // SAFETY: the caller's entry and the tail are alive.
        unsafe {
            (*entry).links().previous.set(self.tail);
            (*entry).links().next.set(core::ptr::null());
            match self.tail.as_ref() {
                Some(tail) => tail.links().next.set(entry),
                None => self.head = entry,
            }
        }
        self.tail = entry;
        self.len += 1;
    }

    /// # Safety
    /// The entry is in this list.
    pub(crate) unsafe fn remove(&mut self, entry: *const T) {
        // SAFETY: the entry and its neighbours are in the list, so alive.
        unsafe {
            let previous = (*entry).links().previous.get();
            let next = (*entry).links().next.get();
            match previous.as_ref() {
                Some(previous) => previous.links().next.set(next),
                None => self.head = next,
            }
            match next.as_ref() {
                Some(next) => next.links().previous.set(previous),
                None => self.tail = previous,
            }
        }
        self.len -= 1;
    }

    /// Takes the first entry out. The caller has the lock that keeps entries alive.
    pub(crate) fn pop_front(&mut self) -> Option<*const T> {
        let entry = self.head;
        if entry.is_null() {
            return None;
        }
        // SAFETY: it is in the list.
        unsafe { self.remove(entry) };
        Some(entry)
    }
}
