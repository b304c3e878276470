//! The atomics that the protocols of this crate are written with: the real ones, or loom's in its models, or
//! shuttle's (under loom's name, see the crate's root) in its scenarios.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(all(loom, not(shuttle)))]
pub(crate) use loom::cell::UnsafeCell;

/// A sequentially consistent fence behind an atomic read-modify-write of the same thread. On x86-64 that one is such
/// a fence already, and only the compiler has to be told.
#[inline(always)]
pub(crate) fn fence_after_update() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fence(Ordering::SeqCst);
}

/// A cell with loom's interface, so that the models see who touches it.
#[cfg(any(not(loom), shuttle))]
pub(crate) struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

#[cfg(any(not(loom), shuttle))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        UnsafeCell(core::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with a pointer for reading and writing.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A constructor that is `const`, but for models: loom's atomics belong to a run of a model.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        $vis const fn $name($($argument: $type),*) -> $output $body

        #[cfg(loom)]
        $(#[$meta])*
        $vis fn $name($($argument: $type),*) -> $output $body
    };
}
pub(crate) use const_unless_loom;
