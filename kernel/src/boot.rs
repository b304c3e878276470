//! From the boot loader to the first task.

use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use executor::Builder;

use bootloader_api::{BootInfo, BootloaderConfig, config::Mapping, info::MemoryRegionKind};

/// Where physical address 0 is mapped; all physical memory follows.
pub const PHYSICAL_MEMORY: u64 = 0xffff_8000_0000_0000;
/// Where the kernel itself is linked to run.
pub(crate) const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// What the boot loader may place as it likes: boot information, framebuffer, stack.
const DYNAMIC: core::ops::Range<u64> = 0xffff_f000_0000_0000..0xffff_f800_0000_0000;
/// The executor's stack on each CPU. An unoptimised kernel moves large futures through it.
pub(crate) const STACK_SIZE: u64 = 1024 * 1024;

/// What is asked of the boot loader: everything in the upper half.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = STACK_SIZE;
    config.mappings.kernel_base = Mapping::FixedAddress(KERNEL_BASE);
    config.mappings.physical_memory = Some(Mapping::FixedAddress(PHYSICAL_MEMORY));
    config.mappings.dynamic_range_start = Some(DYNAMIC.start);
    config.mappings.dynamic_range_end = Some(DYNAMIC.end - 1);
    config
};

/// Makes `$main`, an `async fn()`, the first task of a kernel of its own.
///
/// ```ignore
/// #![no_std]
/// #![no_main]
/// kernel::entry!(main);
/// // All CPUs are up by now.
/// async fn main() {
///     kernel::println!("hello");
///     kernel::exit(0)
/// }
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        fn kernel_main(info: &'static mut $crate::boot::Info) -> ! {
            $crate::boot::start(info, $main)
        }
        const CONFIG: $crate::boot::Config = $crate::boot::CONFIG;
        bootloader_api::entry_point!(kernel_main, config = &CONFIG);
    };
}

pub use bootloader_api::{BootInfo as Info, BootloaderConfig as Config};

/// What the boot loader was started by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// A BIOS, as PCs once had.
    Bios,
    /// UEFI, as they have today.
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        })
    }
}

static IS_UEFI: AtomicBool = AtomicBool::new(false);

/// What the boot loader was started by. [`Firmware::Bios`] before [`start`].
pub fn firmware() -> Firmware {
    if IS_UEFI.load(Relaxed) { Firmware::Uefi } else { Firmware::Bios }
}

/// The boot loader does not say which firmware it ran on, but its memory map has kinds of their own for each.
fn note_firmware(info: &BootInfo) {
    let is_uefi = |kind| matches!(kind, MemoryRegionKind::UnknownUefi(_));
    IS_UEFI.store(info.memory_regions.iter().any(|region| is_uefi(region.kind)), Relaxed);
}

/// Brings the machine up, runs the executor on this CPU, starts the others, and then makes `main` the first task of
/// what this kernel is for.
pub fn start<F>(info: &'static mut BootInfo, main: impl FnOnce() -> F + Send + 'static) -> !
where
    F: Future<Output: Send> + Send + 'static,
{
    crate::arch::init();
    crate::serial::init();
    crate::memory::init(info);
    crate::heap::init();
    note_firmware(info);
    crate::arch::apic::init(info.rsdp_addr.into_option().expect("the boot loader found no ACPI tables"));
    crate::clock::init();
    crate::platform::init();
    crate::serial::enable_interrupts();
    crate::thread::init();
    crate::logging::read_options();
    crate::machine::init();
    crate::screen::init(info);
    x86_64::instructions::interrupts::enable();
    let first = async move {
        crate::cpus::start_all().await;
        drop(Builder::new().name("main").spawn(main()));
    };
    drop(Builder::new().name("start").cpu(0).spawn(first));
    executor::run()
}
