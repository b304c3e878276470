//! From a kernel's ELF file to a disk image that the firmware starts; made again only when the ELF changed.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::build_aside::BuildAside;
use crate::tell;
use crate::toolchain::Toolchain;
use crate::workspace::{Profile, Program, Workspace};

/// What starts the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, which comes with QEMU.
    #[default]
    Bios,
    /// OVMF.
    Uefi,
}

impl Firmware {
    fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub struct BootImage {
    /// The disk image.
    pub image: PathBuf,
    /// The ELF file with symbols that the image was made from.
    pub symbols: PathBuf,
}

/// Packs `kernel` for `firmware` with the tool of [`ToolBuild`]. Waits for another runner that is packing the same kernel.
///
/// # Errors
/// When a tool or the disk fails.
pub fn pack(
    workspace: &Workspace,
    tool: &Path,
    kernel: &Program,
    profile: Profile,
    firmware: Firmware,
) -> Result<BootImage> {
    let folder = workspace.target_folder("image/boot")?.join(format!("{}-{}", kernel.name, profile.name()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the folder of boot images")?;

    let image = folder.join(format!("{}.img", firmware.name()));
    let symbols = folder.join("kernel.elf");
    let stamp_file = folder.join(format!("{}.stamp", firmware.name()));
    let stamp = format!("{}\n{}\n", stamp_of(&kernel.elf)?, stamp_of(tool)?);
    if image.is_file() && symbols.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(BootImage { image, symbols });
    }
    // Each file appears whole, by renaming: a machine that runs from the old one keeps it.
    let new_symbols = folder.join("kernel.elf.new");
    fs::copy(&kernel.elf, &new_symbols).with_context(|| format!("cannot copy {}", kernel.elf.display()))?;
    let stripped = folder.join("kernel.stripped");
    strip(workspace.toolchain(), &new_symbols, &stripped)?;
    let new_image = folder.join("image.new");
    let mut make = Command::new(tool);
    make.arg("--kernel").arg(&stripped).arg("--out").arg(&new_image).args(["--firmware", firmware.name()]);
    run(make, "making the boot image")?;
    fs::rename(&new_symbols, &symbols)?;
    fs::rename(&new_image, &image)?;
    fs::write(&stamp_file, stamp)?;
    Ok(BootImage { image, symbols })
}

/// Copies an ELF file without what only people need.
///
/// # Errors
/// When the toolchain's tool is missing or fails.
pub fn strip(toolchain: &Toolchain, elf: &Path, stripped: &Path) -> Result<()> {
    let mut strip = Command::new(toolchain.objcopy()?);
    strip.arg("--strip-all").arg(elf).arg(stripped);
    run(strip, &format!("stripping {}", elf.display()))
}

/// The image tool while it is being looked after. It has a target folder of its own, so it is built beside other things;
/// dropping this ends the build.
pub struct ToolBuild {
    tool: PathBuf,
    build: BuildAside,
}

impl ToolBuild {
    /// Begins to build the tool, which is quick when it is there already.
    ///
    /// # Errors
    /// When cargo does not start.
    pub fn begin(workspace: &Workspace) -> Result<Self> {
        let tool = workspace.target_folder("image")?.join("debug/faultline-image");
        let first = !tool.is_file();
        if first {
            tell(
                "building the boot stages with their own `core` for 16-bit, 32-bit and UEFI code; this takes some \
                 minutes and happens once",
            );
        }
        let mut cargo = workspace.cargo("build", "image")?;
        cargo.args(["-p", "faultline-image"]).env("RUSTC_BOOTSTRAP", "1").stdin(Stdio::null());
        if !first {
            cargo.arg("--quiet");
        }
        let build = BuildAside::start(cargo, "building the boot stages").context("cargo does not start")?;
        Ok(Self { tool, build })
    }

    /// Waits for the tool, and says where it is.
    ///
    /// # Errors
    /// When cargo fails; it has told why by then.
    pub fn finish(self) -> Result<PathBuf> {
        if !self.build.wait().context("cargo cannot be waited for")?.success() {
            bail!("the boot stages could not be built (`cargo run -- doctor` checks what they need)");
        }
        Ok(self.tool)
    }
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{what} does not start"))?;
    if !output.status.success() {
        bail!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Changes whenever the file is made anew.
pub(crate) fn stamp_of(file: &Path) -> Result<String> {
    let about = fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?;
    let age = about.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {} {}", file.display(), about.len(), age.as_nanos()))
}
