//! Putting things on the heap so that a full heap is an answer: `Box::new` and `Arc::new` end the machine there.
//! For all that a fault needs, and all that others make in any number.
#![allow(unsafe_code, reason = "what the allocator gives out becomes a box, or is counted and shared")]

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::OutOfMemory;
use crate::slab::{Place, Slab};

/// Puts `value` on the heap.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, OutOfMemory> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout is not empty.
    let place = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    if place.is_null() {
        return Err(OutOfMemory);
    }
    // SAFETY: the place has the value's layout, and is nobody else's; a box owns what the allocator gave out for
    // its layout.
    unsafe {
        place.write(value);
        Ok(Box::from_raw(place))
    }
}

/// Takes a value out of its box, which is left to be filled again.
pub(crate) fn take_out<T>(full: Box<T>) -> (T, Box<MaybeUninit<T>>) {
    let place = Box::into_raw(full);
    // SAFETY: it was a box, so its value is there, and is moved out once; what is left is the same memory without a value.
    unsafe { (place.read(), Box::from_raw(place.cast())) }
}

/// Asks for the place of an `Arc<T>` and gives it back: the library's `Arc` has no way to say no. Who takes the place in the
/// moment before the `Arc` does, takes it from what the kernel's heap leaves to those that cannot be refused.
pub(crate) fn room_for_arc<T>() -> Result<(), OutOfMemory> {
    let room = try_box(MaybeUninit::<(usize, usize, T)>::uninit())?;
    // An optimiser that saw that nobody uses it would not ask for it at all.
    drop(black_box(room));
    Ok(())
}

/// A value with several owners, like `Arc` without `Weak`. The last of them drops it.
pub(crate) struct Shared<T: 'static> {
    counted: NonNull<Counted<T>>,
}

/// What is shared, and where it is.
pub(crate) struct Counted<T> {
    owners: AtomicUsize,
    /// In a place of a slab, or in a box.
    in_slab: bool,
    value: T,
}

// SAFETY: owners reach the value by `&T`, and any of them may be the one that drops it.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as for `Send`, because a shared owner can be cloned.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn try_new(value: T) -> Result<Self, OutOfMemory> {
        let counted = try_box(Counted { owners: AtomicUsize::new(1), in_slab: false, value })?;
        Ok(Self { counted: NonNull::from(Box::leak(counted)) })
    }

    /// In a place of a slab: for what comes and goes all the time.
    pub(crate) fn try_new_in(slab: &'static Slab<Counted<T>>, value: T) -> Result<Self, OutOfMemory> {
        let counted = slab.try_place(|| Counted { owners: AtomicUsize::new(1), in_slab: true, value })?;
        Ok(Self { counted: counted.into_raw() })
    }

    /// The same, and in a box where no place is free: for who must not take a page of the heap for one value.
    pub(crate) fn try_new_in_or_alone(
        slab: &'static Slab<Counted<T>>,
        value: T,
    ) -> Result<Self, OutOfMemory> {
        let mut value = Some(value);
        let mut counted = || {
            let value = value.take().expect("it is made once");
            Counted { owners: AtomicUsize::new(1), in_slab: true, value }
        };
        if let Some(counted) = slab.place_if_free(&mut counted) {
            return Ok(Self { counted: counted.into_raw() });
        }
        value.map_or(Err(OutOfMemory), Self::try_new)
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: this owner is counted, so it lives; it is only ever borrowed shared.
        unsafe { self.counted.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // No more than there is room for: each owner takes 8 bytes.
        self.counted().owners.fetch_add(1, Ordering::Relaxed);
        Self { counted: self.counted }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.counted().owners.fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        // What the other owners did with the value comes before its end.
        fence(Ordering::Acquire);
        // SAFETY: it was a place or a box, as it says, and this was its last owner.
        unsafe {
            if self.counted().in_slab {
                drop(Place::from_raw(self.counted));
            } else {
                drop(Box::from_raw(self.counted.as_ptr()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_last_owner_drops_the_value() {
        let value = Arc::new(7);
        let first = Shared::try_new(value.clone()).expect("there is memory");
        let others: std::vec::Vec<_> = (0..4).map(|_| first.clone()).collect();
        drop(first);
        let threads = others.into_iter().map(|other| std::thread::spawn(move || assert_eq!(**other, 7)));
        let threads: std::vec::Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it sees the value"));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn the_last_owner_gives_a_place_back_to_its_slab() {
        let slab: &'static Slab<Counted<Arc<i32>>> = std::boxed::Box::leak(std::boxed::Box::new(Slab::new()));
        let value = Arc::new(7);
        let first = Shared::try_new_in(slab, value.clone()).expect("there is memory");
        let (second, place) = (first.clone(), &raw const **first);
        drop(first);
        assert_eq!((**second, Arc::strong_count(&value)), (7, 2));
        drop(second);
        assert_eq!(Arc::strong_count(&value), 1);
        let next = Shared::try_new_in(slab, value.clone()).expect("there is memory");
        assert!(core::ptr::eq(&raw const **next, place));
    }

    #[test]
    fn a_value_is_alone_where_no_place_is_free_and_takes_a_place_where_one_is() {
        let slab: &'static Slab<Counted<Arc<i32>>> = std::boxed::Box::leak(std::boxed::Box::new(Slab::new()));
        let value = Arc::new(7);
        let alone = Shared::try_new_in_or_alone(slab, value.clone()).expect("there is memory");
        assert!(!alone.counted().in_slab);
        let placed = Shared::try_new_in(slab, value.clone()).expect("there is memory");
        let other = Shared::try_new_in_or_alone(slab, value.clone()).expect("there is memory");
        assert!(placed.counted().in_slab && other.counted().in_slab);
        assert_eq!((**alone, Arc::strong_count(&value)), (7, 4));
        drop((alone, placed, other));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
