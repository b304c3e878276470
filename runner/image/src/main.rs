//! Packs a kernel into a bootable disk image.
//!
//! A program of its own, because `bootloader` builds its boot stages with unstable compiler options, which
//! takes minutes: the runner builds this one once, apart from everything else, and calls it afterwards.
use std::path::PathBuf;
use std::process::ExitCode;

use bootloader::{BootConfig, DiskImageBuilder};

const USAGE: &str = "usage: faultline-image --kernel ELF --out FILE --firmware bios|uefi";

enum Firmware {
    Bios,
    Uefi,
}

struct Job {
    kernel: PathBuf,
    out: PathBuf,
    firmware: Firmware,
}

fn main() -> ExitCode {
    let done = parse(std::env::args().skip(1)).and_then(pack);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("faultline-image: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Job, String> {
    let (mut kernel, mut out, mut firmware) = (None, None, None);
    while let Some(option) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match (option.as_str(), value.as_str()) {
            ("--kernel", _) => kernel = Some(PathBuf::from(value)),
            ("--out", _) => out = Some(PathBuf::from(value)),
            ("--firmware", "bios") => firmware = Some(Firmware::Bios),
            ("--firmware", "uefi") => firmware = Some(Firmware::Uefi),
            _ => return Err(USAGE.into()),
        }
    }
    match (kernel, out, firmware) {
        (Some(kernel), Some(out), Some(firmware)) => Ok(Job { kernel, out, firmware }),
        _ => Err(USAGE.into()),
    }
}

fn pack(job: Job) -> Result<(), String> {
    // The serial line belongs to the kernel: with `--exec` a program may read it. Error messages of the boot
    // stages still come, on the screen.
    let mut config = BootConfig::default();
    config.serial_logging = false;
    let mut image = DiskImageBuilder::new(job.kernel);
    image.set_boot_config(&config);
    let made = match job.firmware {
        Firmware::Bios => image.create_bios_image(&job.out),
        Firmware::Uefi => image.create_uefi_image(&job.out),
    };
    made.map_err(|why| format!("{why:#}"))
}
