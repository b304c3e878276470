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

/// Asks for the place of an `Arc<T>` and gives it back: the library's `Arc` has no way to say no. Who takes the place in the
/// moment before the `Arc` does, takes it from what the kernel's heap leaves to those that cannot be refused.
pub(crate) fn room_for_arc<T>() -> Result<(), OutOfMemory> {
    let room = try_box(MaybeUninit::<(usize, usize, T)>::uninit())?;
    // An optimiser that saw that nobody uses it would not ask for it at all.
    drop(black_box(room));
    Ok(())
}

/// A value with several owners, like `Arc` without `Weak`. The last of them drops it.
pub(crate) struct Shared<T> {
    counted: NonNull<Counted<T>>,
}

struct Counted<T> {
    owners: AtomicUsize,
    value: T,
}

// SAFETY: owners reach the value by `&T`, and any of them may be the one that drops it.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as for `Send`, because a shared owner can be cloned.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn try_new(value: T) -> Result<Self, OutOfMemory> {
        let counted = try_box(Counted { owners: AtomicUsize::new(1), value })?;
        Ok(Self { counted: NonNull::from(Box::leak(counted)) })
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
        // SAFETY: it was a box, and this was its last owner.
        drop(unsafe { Box::from_raw(self.counted.as_ptr()) });
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
}
