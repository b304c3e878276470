//! The one spin lock of the project.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | holder, other CPU | the other one spins; every section is short and never waits |
//! | holder, interrupt handler on its CPU | interrupts are off while a guard lives, so the handler comes later |
//! | holder, its own stack's page fault | `lock` touches the next 8 KiB of stack before it turns interrupts off |
//! | guard within another one, or within a trap | it cannot outlive that, which has turned interrupts off for both |
//! | guards dropped out of order | interrupts come back with the last one; the names stay harmless |
//!
//! Interrupt handlers take no lock that other code takes. No guard lives across an `await`: clippy knows the
//! guard's type, and tasks are `Send` while guards are not.
#![allow(unsafe_code, reason = "a lock hands out references to what it guards")]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::arch;
use crate::atomic::{AtomicBool, Ordering, const_unless_loom};
use crate::cpu::{CpuLocal, GUARD, SECTION};

/// A mutual exclusion lock that spins, with interrupts off on this CPU from before it is taken.
///
/// A thread's page fault while a guard is held is a bug; [`held_guard`] then names the guard.
pub struct SpinLock<T: ?Sized> {
    name: &'static str,
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives `&mut T` to one holder at a time, so sharing it needs only that T may move between CPUs.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    const_unless_loom! {
        /// An open lock around `value`. The name appears in panic reports.
        pub fn new(name: &'static str, value: T) -> Self {
            SpinLock { name, locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }
    }

    /// Takes the value out of the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock, spinning while another CPU holds it.
    ///
    /// Interrupts are off until the guard is dropped. Not for interrupt handlers, where the lock may be held
    /// by another CPU for as long as that CPU likes.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        let were_on = arch::interrupts_off_on_stack();
        self.lock_on(arch::local(), were_on)
    }

    /// As [`lock`](SpinLock::lock), when interrupts are off on this CPU, and were on before or not.
    #[inline]
    fn lock_on(&self, cpu: &'static CpuLocal, were_on: bool) -> SpinGuard<'_, T> {
        let previous = enter(cpu, were_on, &self.name);
        if !take(&self.locked) {
            spin(&self.locked);
        }
        SpinGuard { lock: self, cpu, previous, not_send: PhantomData }
    }

    /// Takes the lock while another guard is held here, or a trap is answered, and for no longer: what that has done about
    /// interrupts holds for both, and reports name the other one.
    #[inline]
    pub fn lock_within<'a>(&'a self, _within: Within<'a>) -> InnerGuard<'a, T> {
        if !take(&self.locked) {
            spin(&self.locked);
        }
        InnerGuard { lock: self, not_send: PhantomData }
    }

    /// Takes the lock if nobody holds it. Never waits; may be used by a panic report.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let were_on = arch::interrupts_off_on_stack();
        let cpu = arch::local();
        let previous = enter(cpu, were_on, &self.name);
        if take(&self.locked) {
            Some(SpinGuard { lock: self, cpu, previous, not_send: PhantomData })
        } else {
            leave(cpu, &self.name, previous);
            None
        }
    }

    /// The value, for the lock's only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Whether somebody holds the lock at this moment: a hint, for reports.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}

impl<T: ?Sized> core::fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SpinLock({:?}{})", self.name, if self.is_locked() { ", held" } else { "" })
    }
}

/// Takes a lock of the CPU that executes this; a thread stays on that CPU until the guard is dropped.
#[inline]
pub(crate) fn lock_own<T>(
    lock: impl FnOnce(&'static CpuLocal) -> &'static SpinLock<T>,
) -> SpinGuard<'static, T> {
    let were_on = arch::interrupts_off_on_stack();
    let cpu = arch::local();
    lock(cpu).lock_on(cpu, were_on)
}

/// Shows that a [`SpinLock`] is held; dropping it releases the lock and restores the interrupt flag.
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    /// Interrupts are off, so it stays this one.
    cpu: &'static CpuLocal,
    previous: *mut &'static str,
    /// The guard belongs to the CPU that turned its interrupts off.
    not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for SpinGuard<'_, T> {}

impl<T: ?Sized> SpinGuard<'_, T> {
    /// Leave to take other locks as long as this guard is held, by [`SpinLock::lock_within`].
    #[inline]
    pub fn within(_this: &Self) -> Within<'_> {
        Within(PhantomData)
    }

    /// The CPU that it was taken on, and that executes this.
    #[inline]
    pub(crate) fn cpu(this: &Self) -> &'static CpuLocal {
        this.cpu
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this is the only holder.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists and is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
        leave(self.cpu, &self.lock.name, self.previous);
    }
}

/// Interrupts are off on this CPU as long as this lives: a guard is held, or a trap is being answered.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a>(PhantomData<(&'a (), *mut ())>);

/// Runs `f` with leave to take locks by [`SpinLock::lock_within`]. For the handler of a thread's trap, whose entry has turned
/// interrupts off and whose return turns them on again. Not for interrupt handlers, which may have interrupted a holder.
///
/// Reports do not name what is taken so. In debug builds, it counts as a guard that is held.
#[inline]
pub fn in_trap<R>(f: impl FnOnce(Within<'_>) -> R) -> R {
    #[cfg(target_os = "none")]
    debug_assert!(!arch::interrupts_off(), "a trap is answered with interrupts off");
    let held = cfg!(debug_assertions).then(|| (arch::local(), enter(arch::local(), false, &TRAP)));
    let result = f(Within(PhantomData));
    if let Some((cpu, previous)) = held {
        leave(cpu, &TRAP, previous);
    }
    result
}

/// Shows that a [`SpinLock`] is held within another guard; dropping it releases the lock, and nothing else.
pub struct InnerGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    not_send: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for InnerGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this is the only holder.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for InnerGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists and is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for InnerGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// Runs `f` with interrupts off on this CPU.
///
/// The next 8 KiB of stack are there for `f`, also on a thread. May be called anywhere, also nested and under a
/// guard.
#[inline]
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(&'static CpuLocal);
    impl Drop for Restore {
        #[inline]
        fn drop(&mut self) {
            if self.0.close_section(SECTION) {
                arch::interrupts_on();
            }
        }
    }
    let were_on = arch::interrupts_off_on_stack();
    let cpu = arch::local();
    cpu.open_section(were_on, SECTION);
    let _restore = Restore(cpu);
    f()
}

/// The name of the innermost spin lock that this CPU holds, for the report of a fault that should not have been.
pub fn held_guard() -> Option<&'static str> {
    let held = arch::local().held.load(Ordering::Relaxed);
    if held.is_null() {
        return None;
    }
    // SAFETY: `held` is the name of a lock whose guard lives on this CPU, or the static below: `leave` never
    // restores the name of a lock that was released in between.
    Some(unsafe { *held })
}

/// Stands for the name while a trap is answered.
static TRAP: &str = "(a trap)";

/// Stands for the name where guards were dropped in another order than they were made.
static OUT_OF_ORDER: &str = "(guards were dropped out of order)";

#[inline]
fn enter(cpu: &'static CpuLocal, were_on: bool, name: &&'static str) -> *mut &'static str {
    cpu.open_section(were_on, GUARD);
    let previous = cpu.held.load(Ordering::Relaxed);
    cpu.held.store(core::ptr::from_ref(name).cast_mut(), Ordering::Relaxed);
    previous
}

#[inline]
fn leave(cpu: &'static CpuLocal, name: &&'static str, previous: *mut &'static str) {
    if core::ptr::eq(cpu.held.load(Ordering::Relaxed), name) {
        // `previous` is still held, since its own guard could not have gone without being innermost.
        cpu.held.store(previous, Ordering::Relaxed);
    } else {
        leave_out_of_order(cpu);
    }
    if cpu.close_section(GUARD) {
        arch::interrupts_on();
    }
}

#[cold]
fn leave_out_of_order(cpu: &'static CpuLocal) {
    let last = cpu.guards() == 1;
    let held = if last { core::ptr::null_mut() } else { core::ptr::from_ref(&OUT_OF_ORDER).cast_mut() };
    cpu.held.store(held, Ordering::Relaxed);
}

/// Takes a lock that nobody holds.
#[inline]
pub(crate) fn take(locked: &AtomicBool) -> bool {
    locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Takes a lock that somebody holds.
#[cold]
pub(crate) fn spin(locked: &AtomicBool) {
    loop {
        while locked.load(Ordering::Relaxed) {
            relax();
        }
        if take(locked) {
            return;
        }
    }
}

#[inline]
fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(all(not(loom), not(target_os = "none")))]
    std::thread::yield_now();
    #[cfg(target_os = "none")]
    core::hint::spin_loop();
}
