//! Slabs: places of one size and type, many to a page of the heap. Index nodes and transfers are kept here, so most
//! of those that faults need are taken from a page that is there already, under one short lock; and a full heap is an
//! answer.
//!
//! A page knows its slab and which of its places are taken. Pages with free places are in a list; a page without any is
//! found by who gives one back, because pages lie at multiples of their size. A page that is empty is given back, unless
//! no other has a free place: so whoever takes and gives back the same few places again and again does not go to the heap.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | place taken, place given back | under the slab's lock |
//! | page that is empty, place taken of it | it stays in the list, or is out of it before the lock is given up |
//! | two who find no free place | each brings a page |
//!
//! The slab's lock comes after those of objects, and nothing is taken within it.
#![allow(unsafe_code, reason = "places are handed out of raw pages, and found again by their addresses")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, offset_of};
use core::num::NonZero;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use executor::lock::SpinLock;

use crate::{OutOfMemory, PAGE_SIZE};

/// Places for values of one type.
pub(crate) struct Slab<T: 'static> {
    /// The first page that has a free place.
    open: SpinLock<Link<T>>,
}

type Link<T> = Option<NonNull<Page<T>>>;

/// The head of a page; its places follow.
#[repr(C)]
struct Page<T: 'static> {
    /// Does not change.
    slab: &'static Slab<T>,
    head: Head<T>,
    places: [T; 0],
}

/// What the slab's lock guards.
struct Head<T: 'static> {
    /// In the list of pages that have a free place.
    next: Link<T>,
    previous: Link<T>,
    /// The places that are taken, a bit each.
    taken: u64,
}

// SAFETY: the list's pages are the slab's own, reached under its lock.
unsafe impl<T: Send + 'static> Send for Slab<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send + 'static> Sync for Slab<T> {}

impl<T: 'static> Slab<T> {
    const LAYOUT: Layout = match Layout::from_size_align(PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    };

    /// Places of a page.
    const PLACES: usize = {
        let places = (PAGE_SIZE - offset_of!(Page<T>, places)) / size_of::<T>();
        assert!(places > 1);
        if places < u64::BITS as usize { places } else { u64::BITS as usize - 1 }
    };

    /// What a page without a free place says.
    const FULL: u64 = (1 << Self::PLACES) - 1;

    pub(crate) fn new() -> Self {
        Self { open: SpinLock::new("slab", None) }
    }

    /// Puts what `make` answers in a place of its own; it is made right there.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is none, and the heap is full.
    #[inline]
    pub(crate) fn try_place(&'static self, make: impl FnOnce() -> T) -> Result<Place<T>, OutOfMemory> {
        let place = match self.take() {
            Some(place) => place,
            None => self.take_of_new_page()?,
        };
        // SAFETY: the place is a free one of a page, aligned and large enough for the value, and ours from here on.
        unsafe { place.write(make()) };
        Ok(Place { at: place, owns: PhantomData })
    }

    /// The same in a place of a page that is there, without a look at the heap: `None`, and nothing is made, where there is
    /// none.
    pub(crate) fn place_if_free(&'static self, make: impl FnOnce() -> T) -> Option<Place<T>> {
        let place = self.take()?;
        // SAFETY: as in `try_place`.
        unsafe { place.write(make()) };
        Some(Place { at: place, owns: PhantomData })
    }

    fn take(&self) -> Option<NonNull<T>> {
        let mut open = self.open.lock();
        let page = (*open)?;
        // SAFETY: pages in the list are there until they are taken out of it, under this lock, which is held.
        let head = unsafe { &mut (*page.as_ptr()).head };
        let number = head.taken.trailing_ones() as usize;
        head.taken |= 1 << number;
        if head.taken == Self::FULL {
            *open = head.next;
            if let Some(next) = head.next {
                // SAFETY: as above; the next page is another one.
                unsafe { (*next.as_ptr()).head.previous = None };
            }
        }
        Some(Self::place(page, number))
    }

    #[cold]
    fn take_of_new_page(&'static self) -> Result<NonNull<T>, OutOfMemory> {
        // SAFETY: the layout is not empty.
        let page = NonNull::new(unsafe { alloc(Self::LAYOUT) }.cast::<Page<T>>()).ok_or(OutOfMemory)?;
        let mut open = self.open.lock();
        let next = *open;
        // SAFETY: the page is ours alone, aligned, and larger than its head.
        unsafe { page.write(Page { slab: self, head: Head { next, previous: None, taken: 1 }, places: [] }) };
        if let Some(next) = next {
            // SAFETY: as in `take`.
            unsafe { (*next.as_ptr()).head.previous = Some(page) };
        }
        *open = Some(page);
        Ok(Self::place(page, 0))
    }

    /// Where a place of a page is.
    fn place(page: NonNull<Page<T>>, number: usize) -> NonNull<T> {
        // SAFETY: `number` is below `PLACES`, so the place lies within the page.
        unsafe { page.byte_add(offset_of!(Page<T>, places)).cast::<T>().add(number) }
    }

    /// Takes a place back, whose value is gone.
    ///
    /// # Safety
    /// The place was handed out by this type's `try_place`, and is not used any more.
    unsafe fn give_back(place: NonNull<T>) {
        let page = place.cast::<Page<T>>().map_addr(|address| {
            // A page does not lie at address 0.
            NonZero::new(address.get() & !(PAGE_SIZE - 1)).unwrap_or(address)
        });
        let number = (place.addr().get() % PAGE_SIZE - offset_of!(Page<T>, places)) / size_of::<T>();
        // SAFETY: the page is there as long as a place of it is taken, and its slab does not change.
        let slab: &'static Slab<T> = unsafe { (*page.as_ptr()).slab };
        let unwanted = {
            let mut open = slab.open.lock();
            // SAFETY: as above; the lock guards the rest of it.
            let head = unsafe { &mut (*page.as_ptr()).head };
            let was_full = head.taken == Self::FULL;
            head.taken &= !(1 << number);
            let is_alone = head.previous.is_none() && head.next.is_none();
            let unwanted = head.taken == 0 && !is_alone;
            if unwanted {
                // A page has more than one place, so it was in the list.
                // SAFETY: neighbours in the list are there, as in `take`.
                unsafe {
                    match head.previous {
                        Some(previous) => (*previous.as_ptr()).head.next = head.next,
                        None => *open = head.next,
                    }
                    if let Some(next) = head.next {
                        (*next.as_ptr()).head.previous = head.previous;
                    }
                }
            } else if was_full {
                (head.previous, head.next) = (None, *open);
                if let Some(next) = *open {
                    // SAFETY: as in `take`.
                    unsafe { (*next.as_ptr()).head.previous = Some(page) };
                }
                *open = Some(page);
            }
            unwanted
        };
        if unwanted {
            // SAFETY: it came from `alloc` with this layout; no place of it is taken, and it is in no list.
            unsafe { dealloc(page.as_ptr().cast(), Self::LAYOUT) };
        }
    }
}

/// A value in a place of its own; like a box.
pub(crate) struct Place<T: 'static> {
    at: NonNull<T>,
    owns: PhantomData<T>,
}

impl<T: 'static> Place<T> {
    /// The place, to be made one again by [`from_raw`](Self::from_raw).
    pub(crate) fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).at
    }

    /// The other way round.
    ///
    /// # Safety
    /// The place came from [`into_raw`](Self::into_raw), and becomes a `Place` once.
    pub(crate) unsafe fn from_raw(at: NonNull<T>) -> Self {
        Self { at, owns: PhantomData }
    }
}

// SAFETY: it owns its value.
unsafe impl<T: Send + 'static> Send for Place<T> {}
// SAFETY: as for `Send`, by shared references.
unsafe impl<T: Sync + 'static> Sync for Place<T> {}

impl<T: 'static> Deref for Place<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is there until the place is dropped, and this is its owner.
        unsafe { self.at.as_ref() }
    }
}

impl<T: 'static> DerefMut for Place<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; the owner is borrowed exclusively.
        unsafe { self.at.as_mut() }
    }
}

impl<T: 'static> Drop for Place<T> {
    fn drop(&mut self) {
        // SAFETY: the value is there, and nobody reaches it after this; the place came from `try_place`.
        unsafe {
            self.at.drop_in_place();
            Slab::give_back(self.at);
        }
    }
}

#[cfg(test)]
mod tests;
