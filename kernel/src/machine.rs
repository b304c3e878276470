//! The devices of this machine, and what the runner said of them.
#![allow(unsafe_code, reason = "gives back the memory of devices")]

use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use conquer_once::spin::OnceCell;
use drivers::{
    block::SECTOR_BYTES,
    dma::DmaMemory,
    fw_cfg::FwCfg,
    keyboard::{self, Keyboard},
    pci, shared_memory,
    virtio::ProbeError,
    virtio_blk::VirtioBlk,
};
use executor::Builder;
use mm::{PAGE_SIZE, PhysAddr, VmObject};

use crate::{
    arch, block_pager::BlockPager, boot::PHYSICAL_MEMORY, interrupt, memory, swap,
    thread::victims::AllThreads, trace,
};

/// The PS/2 keyboard.
pub static KEYBOARD: Keyboard = Keyboard::new();

/// The name of the disk with the programs of ring 3, which the runner adds.
pub const PROGRAMS: &str = "programs";

static OPTIONS: OnceCell<Options> = OnceCell::uninit();
static DISKS: OnceCell<Vec<Disk>> = OnceCell::uninit();

/// What the runner hands over by fw_cfg.
#[derive(Debug, Default)]
pub struct Options {
    /// The kernel's command line.
    pub cmdline: String,
    /// The one command to execute.
    pub exec: Option<String>,
    /// The scenario to play; see [`crate::vmscript`].
    pub vmscript: Option<Vec<u8>>,
    /// Whether to give the tour.
    pub tour: bool,
    /// Whether the console follows.
    pub console: bool,
    /// Whether the runner reads what is recorded; see [`crate::trace`].
    pub trace: bool,
    /// Names and lengths of the disks, in PCI order.
    disks: Vec<(String, u64)>,
}

impl Options {
    fn read() -> Self {
        let Some(mut device) = FwCfg::detect() else {
            // Not started by the runner: what is left is the console.
            return Self { console: true, ..Self::default() };
        };
        let mut text = |name: &str| {
            let file = device.read_file(&alloc::format!("opt/faultline/{name}"))?;
            String::from_utf8(file).ok()
        };
        let disks = text("disks").unwrap_or_default();
        let cmdline = text("cmdline").unwrap_or_default();
        let (exec, tour, console) = (text("exec"), text("tour").is_some(), text("console").is_some());
        let trace = text("trace").is_some();
        Self {
            vmscript: device.read_file("opt/faultline/vmscript"),
            cmdline,
            exec,
            tour,
            console,
            trace,
            disks: disks.lines().filter_map(parse_disk).collect(),
        }
    }

    /// Whether the run is for one thing, whose output the runner gives on as its own.
    pub fn has_one_task(&self) -> bool {
        self.exec.is_some() || self.vmscript.is_some()
    }

    /// The value of `name=value` on the command line.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut words = self.cmdline.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

fn parse_disk(line: &str) -> Option<(String, u64)> {
    let (name, bytes) = line.split_once(' ')?;
    Some((name.to_string(), bytes.trim().parse().ok()?))
}

/// A disk, and the object that shows its content.
pub struct Disk {
    /// `disk0`, `disk1`, ... for those that the user named; `programs` for the programs of ring 3, `swap` for swap.
    pub name: String,
    /// The device.
    pub device: Arc<VirtioBlk>,
    /// The exact length of what is on it; the device rounds it up to sectors.
    pub bytes: u64,
    /// Its content. All who map the disk map this, so a page is loaded once, and its `flush` is that of the disk.
    pub object: Arc<VmObject>,
}

/// What the runner said.
pub fn options() -> &'static Options {
    OPTIONS.get_or_init(Options::read)
}

/// The disks, in PCI order. Empty before [`init`].
pub fn disks() -> &'static [Disk] {
    DISKS.get().map_or(&[], Vec::as_slice)
}

/// The disk with this name.
pub fn disk(name: &str) -> Option<&'static Disk> {
    disks().iter().find(|disk| disk.name == name)
}

/// Finds and starts the devices. Once at boot, interrupts off; the tasks that it spawns run later.
pub(crate) fn init() {
    arch::dma::init(DmaMemory {
        phys_offset: PHYSICAL_MEMORY,
        alloc: dma_alloc,
        free: dma_free,
        map_device: arch::device_memory::map_registers,
        map_memory: arch::device_memory::map_memory,
    });
    if options().trace {
        share_trace();
    }
    if KEYBOARD.init() {
        interrupt::on_isa(keyboard::IRQ, &|| KEYBOARD.interrupt());
        KEYBOARD.start();
    } else {
        log::warn!("no PS/2 keyboard");
    }
    memory::memory().set_victims(&AllThreads);
    drop(Builder::new().name("reclaim").spawn(mm::reclaimer(memory::memory())));
    drop(Builder::new().name("write-back").spawn(mm::write_back::writer(memory::memory())));
    DISKS.init_once(find_disks);
    if let Some(disk) = disk(swap::NAME) {
        swap::start(disk.device.clone());
    }
}

/// Records from now on in memory that is shared with the runner.
fn share_trace() {
    for function in pci::enumerate() {
        match shared_memory::probe(&function) {
            Ok(Some(words)) if trace::share(words) => return trace::watch(memory::memory()),
            Ok(_) => {}
            Err(error) => log::warn!("the memory {function} cannot be used: {error}"),
        }
    }
    log::warn!("nothing is traced: there is no memory shared with the runner");
}

fn find_disks() -> Vec<Disk> {
    let mut names = options().disks.iter();
    let mut disks = Vec::new();
    // A vector that was not used for one function is there for the next.
    let mut spare = None;
    for function in pci::enumerate() {
        let Some(target) = spare.take().or_else(interrupt::allocate) else {
            log::warn!("there is no interrupt vector for {function}, and none for those after it");
            break;
        };
        match VirtioBlk::probe(&function, target) {
            Ok(device) => disks.push(start_disk(device, target.vector, names.next())),
            Err(ProbeError::OtherType) => spare = Some(target),
            Err(error) => log::warn!("the disk {function} cannot be used: {error}"),
        }
    }
    disks
}

fn start_disk(device: Arc<VirtioBlk>, vector: u8, named: Option<&(String, u64)>) -> Disk {
    let handler = device.clone();
    // Devices stay for ever, and so do their handlers.
    interrupt::register(vector, Box::leak(Box::new(move || handler.interrupt())));
    drop(Builder::new().name("virtio-blk").spawn(device.clone().serve()));
    let sectors = device.capacity_sectors();
    let capacity = sectors * SECTOR_BYTES;
    let (name, bytes) =
        named.cloned().unwrap_or_else(|| (alloc::format!("pci{}", device.address()), capacity));
    // The device knows no more than sectors; the runner knows the file's length.
    let bytes = bytes.min(capacity);
    let pager = BlockPager::start(name.clone(), device.clone(), 0, sectors);
    let object = VmObject::new(memory::memory(), pager, bytes.div_ceil(PAGE_SIZE as u64));
    log::debug!("disk {name}: {bytes} bytes at PCI {}", device.address());
    Disk { name, device, bytes, object }
}

fn dma_alloc(pages: usize) -> Option<u64> {
    let mut run = memory::memory().frames().try_alloc_contiguous(pages, 1)?;
    run.as_bytes_mut().fill(0);
    Some(run.into_address().as_u64())
}

fn dma_free(address: u64, pages: usize) {
    // SAFETY: drivers free what `dma_alloc` gave them, once, when the device does not use it any more.
    drop(unsafe { memory::memory().frames().take_back(PhysAddr::new(address), pages) });
}
