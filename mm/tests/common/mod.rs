//! A machine on the host: an arena as physical memory, page tables in its bytes, processors that walk
//! them and remember what they found, and tasks that run when the test says so.
#![allow(unsafe_code, reason = "the arena stands for physical memory and is reached through raw pointers")]
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

pub mod cpus;
pub mod one_page;
pub mod shown;
pub mod tasks;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mm::{
    Access, AddressSpace, Denial, Fault, FaultOutcome, Hardware, Memory, PAGE_SIZE, PageIndex, PageTable,
    PhysAddr, PhysWindow, TestPager, VirtAddr,
};

pub const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes that a table of level 1 is for.
const LARGE_PAGE: u64 = 2 << 20;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 32;
const DIRTY: u64 = 64;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What the processor remembers of one page.
#[derive(Clone, Copy)]
struct Remembered {
    frame: u64,
    rights: u64,
}

/// The processor: it forgets a page when it is told to, or when it faults on it. All threads are the same one,
/// unless the machine has several CPUs: then each CPU of the executor has its own memory.
#[derive(Default)]
pub struct Processor {
    several: bool,
    tlbs: Mutex<HashMap<u32, Tlb>>,
    pub invalidations: AtomicU64,
    /// The heap has no room for faults any more.
    pub heap_is_short: AtomicBool,
}

/// What one CPU remembers.
#[derive(Default)]
struct Tlb {
    pages: HashMap<(PhysAddr, u64), Remembered>,
    /// The tables of level 1, by the 2 MiB that they are for, with the rights that the levels above give.
    tables: HashMap<(PhysAddr, u64), Remembered>,
    /// How many times all CPUs were waited for, when it last forgot everything between two polls.
    shootdowns: u64,
}

impl Processor {
    fn cpu(&self) -> u32 {
        if self.several { executor::current_cpu() } else { 0 }
    }

    fn with_tlb<T>(&self, f: impl FnOnce(&mut Tlb) -> T) -> T {
        f(self.tlbs.lock().unwrap().entry(self.cpu()).or_default())
    }
}

impl Tlb {
    fn forget(&mut self) {
        self.pages.clear();
        self.tables.clear();
    }
}

impl Hardware for Processor {
    fn invalidate(&self, root: PhysAddr, page: VirtAddr) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        self.with_tlb(|tlb| {
            tlb.pages.remove(&(root, page.as_u64()));
            tlb.tables.clear();
        });
    }

    fn forget(&self) {
        if self.several {
            self.with_tlb(Tlb::forget);
        }
    }

    fn forget_space(&self, root: PhysAddr) {
        self.with_tlb(|tlb| {
            tlb.pages.retain(|(of, _), _| *of != root);
            tlb.tables.retain(|(of, _), _| *of != root);
        });
    }

    fn heap_has_room(&self) -> bool {
        !self.heap_is_short.load(Ordering::Relaxed)
    }
}

pub struct Machine {
    base: *mut u8,
    pub memory: &'static Memory,
    pub processor: &'static Processor,
    kernel_root: PhysAddr,
    kernel: Mutex<Option<PageTable>>,
}

// SAFETY: the arena is leaked and reached like physical memory, in an order that `mm` is tested for.
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

pub const KERNEL_RANGE: Range<u64> = 0xffff_a000_0000_0000..0xffff_b000_0000_0000;
pub const USER_RANGE: Range<u64> = 0x1000..0x7fff_ffff_f000;

pub fn address(address: u64) -> VirtAddr {
    VirtAddr::new(address).expect("canonical")
}

pub fn range(start: VirtAddr, pages: u64) -> Range<VirtAddr> {
    start..address(start.as_u64() + pages * PAGE)
}

impl Machine {
    /// A machine with this many frames and some more, for the frame records and the kernel's upper half.
    pub fn new(frames: usize) -> &'static Self {
        Self::with(frames, Processor::default())
    }

    /// The same with several CPUs, each of which remembers translations for itself: until it is told to forget
    /// them, or begins a poll (see [`Machine::begin_poll`]) after somebody began to wait for all CPUs.
    pub fn with_cpus(frames: usize) -> &'static Self {
        Self::with(frames, Processor { several: true, ..Processor::default() })
    }

    fn with(frames: usize, processor: Processor) -> &'static Self {
        let frames = frames + 2 + 256 + 1 + frames / 128;
        let layout = std::alloc::Layout::from_size_align(frames * PAGE_SIZE, PAGE_SIZE).unwrap();
        // SAFETY: the layout has a size. Rubbish in it, so that nobody relies on zeros.
        let base = unsafe {
            let base = std::alloc::alloc(layout);
            assert!(!base.is_null());
            base.write_bytes(0xa5, frames * PAGE_SIZE);
            base.add(PAGE_SIZE).write_bytes(0, PAGE_SIZE);
            base
        };
        // SAFETY: the arena is leaked and used for nothing else.
        let window = unsafe { PhysWindow::new(base) };
        let processor: &'static Processor = Box::leak(Box::new(processor));
        // Frame 1 is the kernel's root.
        let usable = 2 * PAGE..frames as u64 * PAGE;
        let memory: &'static Memory = Box::leak(Box::new(Memory::new(window, &[usable], processor)));
        let kernel_root = PhysAddr::new(PAGE);
        // SAFETY: an empty table that only this machine uses.
        let root = unsafe { window.existing_root(kernel_root) };
        let kernel =
            Mutex::new(Some(PageTable::new_kernel(memory, root).expect("room for the kernel's tables")));
        Box::leak(Box::new(Self { base, memory, processor, kernel_root, kernel }))
    }

    /// The kernel's window; once.
    pub fn window(&self) -> Arc<AddressSpace> {
        let table = self.kernel.lock().unwrap().take().expect("there is one kernel window");
        AddressSpace::new(self.memory, table, address(KERNEL_RANGE.start)..address(KERNEL_RANGE.end))
    }

    /// Tables for a user space.
    pub fn empty_table(&self) -> PageTable {
        PageTable::new_user(self.memory, self.kernel_root).expect("room for a root")
    }

    pub fn user_space(&self) -> Arc<AddressSpace> {
        AddressSpace::new(self.memory, self.empty_table(), address(USER_RANGE.start)..address(USER_RANGE.end))
    }

    /// A pager whose page n is full of the 64-bit word n + 1000.
    pub fn pager(&self) -> Arc<TestPager> {
        TestPager::new(
            self.memory,
            Box::new(|index, bytes| {
                for word in bytes.chunks_exact_mut(8) {
                    word.copy_from_slice(&content(index.as_u64()).to_le_bytes());
                }
            }),
        )
    }

    pub fn free(&self) -> usize {
        self.memory.frames().stats().free
    }

    fn word(&self, physical: u64) -> &AtomicU64 {
        // SAFETY: within the arena, aligned, and only used as atomics here.
        unsafe { &*self.base.add(physical as usize).cast::<AtomicU64>() }
    }

    /// Goes through the tables as a processor does, setting accessed and dirty bits, and uses the word there.
    /// An invalidation waits until that is done, as it does for a real processor.
    fn translate<T>(&self, root: PhysAddr, fault: Fault, used: impl FnOnce(&AtomicU64) -> T) -> Option<T> {
        let mut tlbs = self.processor.tlbs.lock().unwrap();
        let tlb = tlbs.entry(self.processor.cpu()).or_default();
        let frame = self.find(tlb, root, fault);
        if frame.is_none() {
            // A fault makes it forget what led there.
            tlb.pages.remove(&(root, fault.address & !(PAGE - 1)));
            tlb.tables.remove(&(root, fault.address & !(LARGE_PAGE - 1)));
        }
        Some(used(self.word(frame? + (fault.address & (PAGE - 1)))))
    }

    /// The frame that an address leads to, by what the CPU remembers of pages and tables, and by the tables.
    fn find(&self, tlb: &mut Tlb, root: PhysAddr, fault: Fault) -> Option<u64> {
        let (page, large) = (fault.address & !(PAGE - 1), fault.address & !(LARGE_PAGE - 1));
        if let Some(&known) = tlb.pages.get(&(root, page))
            && allowed(known.rights, fault)
        {
            return Some(known.frame);
        }
        let start = Remembered { frame: root.as_u64(), rights: WRITABLE | USER };
        let known = tlb.tables.get(&(root, large));
        let levels = if known.is_some() { 1 } else { 4 };
        let Remembered { frame: mut table, mut rights } = known.copied().unwrap_or(start);
        for level in (0..levels).rev() {
            let entry = self.word(table + ((fault.address >> (12 + 9 * level)) & 511) * 8);
            let value = entry.load(Ordering::SeqCst);
            if value & 1 == 0 {
                return None;
            }
            rights = (rights & value & (WRITABLE | USER)) | ((rights | value) & NO_EXECUTE);
            table = value & ADDRESS;
            let is_page = level == 0 || value & LARGE != 0;
            if !is_page {
                let accessed = value | ACCESSED;
                entry.compare_exchange(value, accessed, Ordering::SeqCst, Ordering::SeqCst).ok()?;
                if level == 1 {
                    tlb.tables.insert((root, large), Remembered { frame: table, rights });
                }
                continue;
            }
            if !allowed(rights, fault) {
                return None;
            }
            let dirty = if fault.access == Access::Write { DIRTY } else { 0 };
            // A processor sets the bits only in the entry that it has seen.
            entry
                .compare_exchange(value, value | ACCESSED | dirty, Ordering::SeqCst, Ordering::SeqCst)
                .ok()?;
            let span = PAGE << (9 * level);
            let frame = (table & !(span - 1)) + (page & (span - 1));
            // Without the dirty bit, the next write has to walk again.
            let rights = if dirty == 0 { rights & !WRITABLE } else { rights };
            tlb.pages.insert((root, page), Remembered { frame, rights });
            return Some(frame);
        }
        None
    }

    /// The processor forgets everything, as it may at any time.
    pub fn forget_translations(&self) {
        self.processor.with_tlb(Tlb::forget);
    }

    /// What a CPU does between two polls: if it is waited for, it forgets.
    pub fn begin_poll(&self) {
        let shootdowns = self.memory.stats().shootdowns;
        self.processor.with_tlb(|tlb| {
            if std::mem::replace(&mut tlb.shootdowns, shootdowns) != shootdowns {
                tlb.forget();
            }
        });
    }

    /// One access by a program, or `None` where it faults.
    pub fn try_read(&self, root: PhysAddr, at: u64) -> Option<u64> {
        self.translate(root, self.fault(at, Access::Read), |word| word.load(Ordering::SeqCst))
    }

    /// The same for writing.
    pub fn try_write(&self, root: PhysAddr, at: u64, value: u64) -> Option<()> {
        self.translate(root, self.fault(at, Access::Write), |word| word.store(value, Ordering::SeqCst))
    }

    /// Sets the dirty bit of a page, as if it had been shown writable.
    pub fn set_dirty_bit(&self, space: &AddressSpace, address: u64) {
        let mut table = space.root().as_u64();
        for level in (0..4).rev() {
            let entry = self.word(table + ((address >> (12 + 9 * level)) & 511) * 8);
            if level == 0 {
                entry.fetch_or(DIRTY, Ordering::SeqCst);
            }
            table = entry.load(Ordering::SeqCst) & ADDRESS;
        }
    }

    /// An entry of a level-4 table, but for what the processor notes in it.
    pub fn root_entry(&self, root: PhysAddr, index: u64) -> u64 {
        self.word(root.as_u64() + index * 8).load(Ordering::SeqCst) & !ACCESSED
    }

    /// Changes the level-4 entry that an address goes through.
    pub fn change_root_entry(&self, root: PhysAddr, at: VirtAddr, change: impl Fn(u64) -> u64) {
        let entry = self.word(root.as_u64() + ((at.as_u64() >> 39) & 511) * 8);
        entry.store(change(entry.load(Ordering::SeqCst)), Ordering::SeqCst);
    }

    /// Enters what a boot loader may have entered: a page of 1 GiB at `base`, and one of 2 MiB after it.
    pub fn enter_large_pages(&self, root: PhysAddr, base: u64, gibibyte: u64, two_mebibytes: u64) {
        const PRESENT_WRITABLE: u64 = 3;
        let level_3 = self.root_entry(root, (base >> 39) & 511) & ADDRESS;
        let mut frame = self.memory.frames().try_alloc_zeroed().expect("room for a table");
        let (first, rest) = frame.as_bytes_mut().split_at_mut(8);
        first.copy_from_slice(&(two_mebibytes | PRESENT_WRITABLE | LARGE).to_le_bytes());
        assert!(rest.iter().all(|&byte| byte == 0));
        let index = (base >> 30) & 511;
        self.word(level_3 + index * 8).store(gibibyte | PRESENT_WRITABLE | LARGE, Ordering::SeqCst);
        let below = frame.address().as_u64() | PRESENT_WRITABLE;
        self.word(level_3 + (index + 1) * 8).store(below, Ordering::SeqCst);
        std::mem::forget(frame);
    }

    /// An access by a thread: tried, resolved, tried again.
    async fn access<T>(
        &self,
        space: &AddressSpace,
        fault: Fault,
        used: impl Fn(&AtomicU64) -> T,
    ) -> Result<T, Denial> {
        loop {
            if let Some(result) = self.translate(space.root(), fault, &used) {
                return Ok(result);
            }
            if let FaultOutcome::Denied(why) = space.resolve(fault).await {
                return Err(why);
            }
        }
    }

    pub async fn read(&self, space: &AddressSpace, at: u64) -> Result<u64, Denial> {
        self.access(space, self.fault(at, Access::Read), |word| word.load(Ordering::SeqCst)).await
    }

    pub async fn write(&self, space: &AddressSpace, at: u64, value: u64) -> Result<(), Denial> {
        self.access(space, self.fault(at, Access::Write), |word| word.store(value, Ordering::SeqCst)).await
    }

    pub async fn execute(&self, space: &AddressSpace, at: u64) -> Result<(), Denial> {
        self.access(space, self.fault(at, Access::Execute), |_| ()).await
    }

    /// A fault by whoever owns the half that the address is in.
    pub fn fault(&self, address: u64, access: Access) -> Fault {
        Fault { address, access, user: address >> 63 == 0 }
    }
}

fn allowed(rights: u64, fault: Fault) -> bool {
    (!fault.user || rights & USER != 0)
        && match fault.access {
            Access::Read => true,
            Access::Write => rights & WRITABLE != 0,
            Access::Execute => rights & NO_EXECUTE == 0,
        }
}

/// What `Machine::pager` has in each word of a page.
pub fn content(page: u64) -> u64 {
    page + 1000
}

pub fn page(index: u64) -> PageIndex {
    PageIndex::new(index)
}
