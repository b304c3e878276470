//! What a thread is while it is not running: its registers.

/// A thread's registers, as [`enter`](super::trap) loads them and a trap stores them.
///
/// The trap stubs know the layout by `offset_of!`, so the order of the fields is free.
#[repr(C)]
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are the registers of the same name")]
pub(crate) struct Context {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    /// The error code of the last trap; 0 for vectors that have none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Context {
    /// The interrupt flag in `rflags` (Intel SDM vol. 1, 3.4.3).
    pub(crate) const INTERRUPTS_ON: u64 = 1 << 9;

    /// Whether the thread runs in ring 3.
    pub(crate) fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Whether the thread trapped with interrupts off, which means: inside a spin lock.
    pub(crate) fn interrupts_off(&self) -> bool {
        self.rflags & Self::INTERRUPTS_ON == 0
    }
}

/// What an exception or interrupt leaves on a trap stack when no thread was running.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the registers of the same name")]
pub(crate) struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}
