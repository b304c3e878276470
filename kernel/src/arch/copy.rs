//! Copies out of memory that may fail to come.
//!
//! [`copy_guarded`] is the one place where a kernel thread's fault that is denied does not end the
//! thread: its future finds the faulting instruction here, and lets the copy return a failure.
#![allow(unsafe_code, reason = "copies from memory that may fault")]

use core::arch::global_asm;

global_asm!(
    ".global faultline_copy",
    ".global faultline_copy_access",
    ".global faultline_copy_denied",
    "faultline_copy:",
    "mov rcx, rdx",
    "faultline_copy_access:",
    "rep movsb",
    "xor eax, eax",
    "ret",
    "faultline_copy_denied:",
    "mov eax, 1",
    "ret",
);

unsafe extern "C" {
    fn faultline_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
    fn faultline_copy_access();
    fn faultline_copy_denied();
}

/// The access that was denied; why is in the thread's record.
#[derive(Debug)]
pub(crate) struct Denied;

/// Copies `to.len()` bytes from `from`. Kernel threads only: each fault on the way parks the thread.
///
/// # Safety
/// `from` is an address inside the kernel's window; what stands there may change meanwhile.
pub(crate) unsafe fn copy_guarded(to: &mut [u8], from: *const u8) -> Result<(), Denied> {
    // SAFETY: `to` is valid for writing; a read that cannot be served makes the call return 1.
    match unsafe { faultline_copy(to.as_mut_ptr(), from, to.len()) } {
        0 => Ok(()),
        _ => Err(Denied),
    }
}

/// Where a thread goes on whose access at `rip` was denied, if that is inside a guarded copy.
pub(crate) fn denied_at(rip: u64) -> Option<u64> {
    (rip == faultline_copy_access as *const () as u64).then_some(faultline_copy_denied as *const () as u64)
}
