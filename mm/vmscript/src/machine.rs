//! What a player asks of the machine below it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;

use executor::WaitReason;
use mm::{AddressSpace, Denial, Memory, OutOfMemory, PageTable, Protection, VirtAddr};

/// Frames for page tables, beside those that a scenario has for its pages.
pub const TABLE_FRAMES: usize = 1024;

/// The range of every space of a scenario: the lower half but for its ends.
pub const SPACE: Range<VirtAddr> = VirtAddr::truncated(0x1_0000)..VirtAddr::truncated(0x7fff_ffff_f000);

/// What a thread does that is no access: a store, a fork.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a thread is started for.
pub enum Job {
    /// Reads a word.
    Read(Arc<AddressSpace>, VirtAddr),
    /// Writes a word.
    Write(Arc<AddressSpace>, VirtAddr, u64),
    /// Polls a future to its end.
    Work(Work),
}

/// How far a thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It has ended: with the word that was read, or 0, or why its access was denied.
    Done(Result<u64, Denial>),
    /// It is parked.
    Parked(WaitReason),
}

/// A machine that scenarios are played on. All calls come from one thread, which may be blocked.
pub trait Machine {
    /// A thread that was started. Dropping it leaves the thread to itself.
    type Thread;

    /// The memory of a scenario, called once and before all else: at least `frames` frames for pages and
    /// [`TABLE_FRAMES`] for tables, in pools of their own ([`Memory::with_table_frames`]). Nothing else uses it. `None`
    /// where the machine has not so much.
    fn memory(&mut self, frames: usize) -> Option<&'static Memory>;

    /// Empty tables of that memory, for a space in the lower half.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no frame for the root.
    fn empty_table(&mut self) -> Result<PageTable, OutOfMemory>;

    /// What mappings allow, so that the machine's threads may read and write.
    fn protection(&self) -> Protection {
        Protection::READ_WRITE.for_user()
    }

    /// Starts a thread. An access is made in the space of the job, and as often as it faults.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no memory for a thread; the job is dropped.
    fn start(&mut self, job: Job) -> Result<Self::Thread, OutOfMemory>;

    /// Lets the threads go on until each has ended or is parked, and nothing wakes them but what the caller does next.
    fn settle(&mut self);

    /// How far a thread is, after `settle`.
    fn progress(&mut self, thread: &mut Self::Thread) -> Progress;

    /// Ends a parked thread where it is. Done after the next `settle`.
    fn kill(&mut self, thread: Self::Thread);
}
