//! Interrupts off for a moment, without asking who we are.
//!
//! The executor's `without_interrupts` keeps its count in this CPU's own data. A panic may print when that
//! data cannot be reached any more (or not yet), so `write_now` goes without.

/// Bytes of stack that are made present first.
const STACK: usize = 8192;

/// Runs `f` with interrupts off; they are on afterwards if they were before. May be called in any state.
///
/// A kernel thread's stack may be lazily allocated, so the part that `f` needs is touched while a fault is
/// still allowed.
pub(crate) fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    // On the host there are none to turn off.
    if !cfg!(target_os = "none") || !x86_64::instructions::interrupts::are_enabled() {
        return f();
    }
    touch_stack();
    x86_64::instructions::interrupts::without_interrupts(f)
}

#[inline(never)]
fn touch_stack() {
    core::hint::black_box(&[0u8; STACK]);
}
