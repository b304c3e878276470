//! What `mm` asks of the processor.

use crate::trace::Event;
use crate::{PageSize, PhysAddr, VirtAddr};

/// What only the processor can do.
pub trait Hardware: Sync {
    /// Makes the CPU that calls forget what it knows about a page of the tables at `root`. Done on return; other
    /// CPUs are not meant: `mm` waits for a grace period of the executor, in which they forget everything.
    ///
    /// Called with spin locks held: it neither waits nor calls back into `mm`.
    fn invalidate(&self, root: PhysAddr, page: VirtAddr);

    /// Makes the CPU that calls forget everything that it knows about pages, and leave the tables of ring 3 that
    /// are loaded, if they may be left: what [`Platform::quiesce`](executor::Platform::quiesce) does for the
    /// others. Where there is one CPU only, `invalidate` has done it for pages.
    ///
    /// Called with spin locks held and interrupts off, as above.
    fn forget(&self);

    /// Makes the CPU that calls forget all pages of the tables at `root`, which are a lower half's, and the tables on
    /// the way to them, also where there is one CPU only. It may forget more. Done on return, as `invalidate`.
    ///
    /// Called with spin locks held, as above.
    fn forget_space(&self, root: PhysAddr);

    /// The largest page that the processor can show.
    fn largest_page(&self) -> PageSize {
        PageSize::Size2MiB
    }

    /// Whether a page that is touched for the first time may take some hundred bytes from the heap, or a page for
    /// each kind of index node. If not, the fault waits or is denied as if the heap were full: so faults leave
    /// something to those that cannot be refused.
    ///
    /// Called with spin locks held, as above.
    fn heap_has_room(&self) -> bool {
        true
    }

    /// Calls `f`, which takes little from the heap, and soon gives it back: where the heap is full, from what is kept for
    /// those who write pages out.
    ///
    /// Called by tasks, with no lock held.
    fn with_reserve(&self, f: &mut dyn FnMut()) {
        f();
    }

    /// Something has happened in the memory that [`Memory::record_as`](crate::Memory::record_as) gave this number.
    ///
    /// Called with spin locks held, as above.
    fn record(&self, _memory: u16, _event: &Event) {}
}
