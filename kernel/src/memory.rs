//! The machine's memory: frames, the kernel's half of every address space, and the window.
//!
//! | upper half                  | what                                              |
//! | --------------------------- | ------------------------------------------------- |
//! | `0xffff_8000_0000_0000`     | all physical memory, mapped by the boot loader    |
//! | `0xffff_c000_0000_0000`     | the window: objects that kernel threads map       |
//! | `0xffff_d000_0000_0000`     | stacks of kernel threads, slots of one object     |
//! | `0xffff_e000_0000_0000`     | devices' registers, uncached                      |
//! | `0xffff_e080_0000_0000`     | the executors' stacks of the other CPUs           |
//! | `0xffff_f000_0000_0000`     | boot information, framebuffer, the boot stack     |
//! | `0xffff_ffff_8000_0000`     | the kernel                                        |

#![allow(unsafe_code, reason = "takes over physical memory from the boot loader")]

use alloc::{boxed::Box, sync::Arc};
use core::ops::Range;

use bootloader_api::{BootInfo, info::MemoryRegionKind};
use conquer_once::spin::OnceCell;
use mm::{
    AddressSpace, FramePool, Hardware, LargePages, MapError, Marks, Memory, MemoryType, OutOfMemory,
    PageSize, PageTable, PhysAddr, PhysWindow, Protection, SecondUse, VirtAddr, trace::Event,
};

use crate::{
    arch::paging,
    boot::{KERNEL_BASE, PHYSICAL_MEMORY},
    heap, thread, trace,
};

/// The kernel's window: where objects are mapped for kernel threads.
const WINDOW: Range<u64> = 0xffff_c000_0000_0000..0xffff_d000_0000_0000;
/// Stacks of kernel threads.
pub(crate) const STACKS: Range<u64> = 0xffff_d000_0000_0000..0xffff_e000_0000_0000;
/// What a program in ring 3 may map. The last page of the lower half stays unmapped: a `syscall` there
/// would return to a non-canonical address. The first 64 KiB stay unmapped for null pointers.
pub(crate) const USER: Range<u64> = 0x1_0000..0x0000_7fff_ffff_f000;

/// More usable regions than this are not taken (UEFI gives some 125).
const MAX_REGIONS: usize = 256;

/// How many pages below 1 MiB starting the other CPUs takes: see [`crate::arch::trampoline`].
pub(crate) const LOW_PAGES: usize = 5;

static LOW_PAGES_AT: OnceCell<PhysAddr> = OnceCell::uninit();
static MEMORY: OnceCell<Memory> = OnceCell::uninit();
static KERNEL_SPACE: OnceCell<KernelSpace> = OnceCell::uninit();

struct KernelSpace {
    root: PhysAddr,
    space: Arc<AddressSpace>,
}

/// This machine, as `mm` sees it.
struct Machine;

impl Hardware for Machine {
    fn invalidate(&self, _root: PhysAddr, page: VirtAddr) {
        // Translations carry no address-space numbers: there is one for each page on this CPU. The others forget theirs
        // in `Platform::quiesce`.
        paging::invalidate(page);
    }

    fn forget(&self) {
        if executor::cpus().nth(1).is_some() {
            paging::forget();
        } else {
            paging::leave_user_space();
        }
    }

    fn forget_space(&self, _root: PhysAddr) {
        // All spaces share this CPU's translations. It leaves the space, and comes back to it when a thread is entered.
        paging::forget();
    }

    fn largest_page(&self) -> PageSize {
        paging::largest_page()
    }

    fn heap_has_room(&self) -> bool {
        heap::has_room_for_fault()
    }

    fn with_reserve(&self, f: &mut dyn FnMut()) {
        // A thread that flushes all the same can be told that there is no memory; the reserve is for tasks.
        if thread::current().is_none() { heap::with_reserve(f) } else { f() }
    }

    fn record(&self, memory: u16, event: &Event) {
        trace::memory(memory, event);
    }
}

/// Where physical memory at `address` is mapped.
pub(crate) fn phys_to_virt(address: u64) -> u64 {
    PHYSICAL_MEMORY + address
}

/// Takes over the memory that the boot loader left.
pub(crate) fn init(info: &BootInfo) {
    let mut regions = [const { 0..0 }; MAX_REGIONS];
    let usable = info.memory_regions.iter().filter(|region| region.kind == MemoryRegionKind::Usable);
    let mut count = 0;
    for (slot, region) in regions.iter_mut().zip(usable) {
        *slot = region.start..region.end;
        count += 1;
    }
    keep_low_pages(&mut regions[..count]);
    // SAFETY: the boot loader maps all physical memory there (`boot::CONFIG`), and nothing else uses
    // what it calls usable.
    let window = unsafe { PhysWindow::new(PHYSICAL_MEMORY as *mut u8) };
    let memory = MEMORY.get_or_init(|| Memory::new(window, &regions[..count], &Machine));
    memory.frames().set_marks(Marks::of(memory.frames().stats().total));
    memory.set_large_pages(LargePages::Always);
    memory.set_policy(&SecondUse);
    // SAFETY: the loaded root is a level-4 table in memory that is mapped as above; from here on
    // nobody else changes the tables.
    let root = unsafe { window.existing_root(paging::active_root()) };
    KERNEL_SPACE.get_or_init(|| {
        let mut table = PageTable::new_kernel(memory, root).expect("there is memory at boot");
        if let Err(error) = improve_mappings(&mut table, info) {
            log::warn!("some of what the boot loader has mapped stays as it was: {error}");
        }
        let range = VirtAddr::truncated(WINDOW.start)..VirtAddr::truncated(STACKS.end);
        KernelSpace { root: paging::active_root(), space: AddressSpace::new(memory, table, range) }
    });
    // The first stock of zeros: idle CPUs replace what is taken of it, and do not begin by filling it.
    while memory.frames().prepare_zeroed() {}
    // The boot loader's identity mappings went with the lower half. The other CPUs start in tables of their own.
    paging::invalidate_all();
}

/// Makes what the boot loader has mapped permanent where that never changes, and the framebuffer write-combining.
fn improve_mappings(table: &mut PageTable, info: &BootInfo) -> Result<(), MapError> {
    const PAGE: u64 = mm::PAGE_SIZE as u64;
    for part in [PHYSICAL_MEMORY..WINDOW.start, KERNEL_BASE..u64::MAX - (PAGE - 1)] {
        table.make_permanent(VirtAddr::truncated(part.start)..VirtAddr::truncated(part.end))?;
    }
    let Some(framebuffer) = info.framebuffer.as_ref() else { return Ok(()) };
    let bytes = framebuffer.buffer().as_ptr_range();
    let start = VirtAddr::truncated(bytes.start as u64).page_start();
    let end = VirtAddr::truncated((bytes.end as u64).next_multiple_of(PAGE));
    let Some(shown) = table.walk(start) else { return Ok(()) };
    table.map_segment(start..end, shown.address, Protection::READ_WRITE, MemoryType::WriteCombining)
}

/// The machine's memory.
///
/// # Panics
/// Before [`init`], at boot.
pub fn memory() -> &'static Memory {
    MEMORY.get().expect("memory is set up at boot")
}

/// The kernel's half of every address space: the window and the stacks of kernel threads.
///
/// # Panics
/// Before [`init`], at boot.
pub fn kernel_space() -> &'static Arc<AddressSpace> {
    &KERNEL_SPACE.get().expect("memory is set up at boot").space
}

/// An empty address space for ring 3; `None` when there is no memory.
pub fn new_user_space() -> Option<Arc<AddressSpace>> {
    heap::has_room().ok()?;
    let table = PageTable::new_user(memory(), kernel_space().root()).ok()?;
    let range = VirtAddr::truncated(USER.start)..VirtAddr::truncated(USER.end);
    AddressSpace::try_new(memory(), table, range).ok()
}

/// A copy of an address space for ring 3: see [`AddressSpace::fork`].
///
/// # Errors
/// When there is no memory for it; `space` is as it was.
///
/// # Cancellation
/// Dropping the future drops the copy.
pub async fn fork(space: &AddressSpace) -> Result<Arc<AddressSpace>, OutOfMemory> {
    heap::has_room()?;
    let table = PageTable::new_user(memory(), kernel_space().root()).map_err(|_| OutOfMemory)?;
    space.fork(table).await
}

/// Memory apart from the machine's, taken out of it for good: at least so many frames for pages, and so many for tables.
/// Nobody reclaims in it. `None` when there is not so much in one piece. For tasks: it is built on the caller's stack.
pub(crate) fn apart(pages: usize, tables: usize) -> Option<&'static Memory> {
    heap::has_room().ok()?;
    let frames = memory().frames();
    let take = |usable| frames.try_alloc_contiguous(FramePool::room_for(usable), 1);
    let regions = [take(pages)?, take(tables)?].map(|run| {
        let bytes = run.frames() as u64 * mm::PAGE_SIZE as u64;
        let start = run.into_address().as_u64();
        start..start + bytes
    });
    let [pages, tables] = regions;
    // SAFETY: as in `init`; these frames are nobody else's from here on.
    let window = unsafe { PhysWindow::new(PHYSICAL_MEMORY as *mut u8) };
    let memory = Box::leak(Box::new(Memory::with_table_frames(window, pages, tables, &Machine)));
    trace::watch(memory);
    Some(memory)
}

/// The root of the kernel's own page tables, without a lower half.
pub(crate) fn kernel_root() -> PhysAddr {
    KERNEL_SPACE.get().expect("memory is set up at boot").root
}

/// Pages below 1 MiB that are kept for starting CPUs; `None` where the machine has none to spare.
pub(crate) fn low_pages() -> Option<PhysAddr> {
    LOW_PAGES_AT.get().copied()
}

/// Takes [`LOW_PAGES`] pages below 1 MiB out of the usable regions.
fn keep_low_pages(regions: &mut [Range<u64>]) {
    const PAGE: u64 = mm::PAGE_SIZE as u64;
    const BYTES: u64 = LOW_PAGES as u64 * PAGE;
    let fits = |region: &&mut Range<u64>| {
        let end = region.end / PAGE * PAGE;
        // Page 0 is nobody's.
        end <= 1 << 20 && end >= region.start.next_multiple_of(PAGE).max(PAGE) + BYTES
    };
    if let Some(region) = regions.iter_mut().find(fits) {
        region.end = region.end / PAGE * PAGE - BYTES;
        LOW_PAGES_AT.init_once(|| PhysAddr::new(region.end));
    }
}
