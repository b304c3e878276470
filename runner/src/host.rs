//! What this machine offers to run another one: QEMU, KVM, firmware.
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::qemu::Accelerator;

/// Older ones lack options that the runner uses.
pub const OLDEST_QEMU: (u32, u32) = (6, 2);

/// QEMU's program where nobody names another one.
const QEMU: &str = "qemu-system-x86_64";

/// QEMU's program: `FAULTLINE_QEMU`, or what is in PATH.
pub fn qemu_program() -> OsString {
    named_qemu().unwrap_or_else(|| QEMU.into())
}

/// The program that the user names.
fn named_qemu() -> Option<OsString> {
    env::var_os("FAULTLINE_QEMU")
}

/// Where QEMU is to come from when there is none that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuCure {
    /// The user names one, which is wrong.
    Name,
    /// There is none.
    Install,
    /// There is one, so the system's packages have nothing else.
    Replace,
}

impl QemuCure {
    /// Looks what there is.
    pub fn find() -> Self {
        match (named_qemu(), in_path(QEMU)) {
            (Some(_), _) => Self::Name,
            (None, None) => Self::Install,
            (None, Some(_)) => Self::Replace,
        }
    }
}

/// Asks QEMU for its version.
///
/// # Errors
/// When there is no QEMU, or it is too old or cannot say.
pub fn qemu_version() -> Result<String> {
    let program = qemu_program();
    let run = Command::new(&program).arg("--version").output();
    let output = match run {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => match named_qemu() {
            Some(_) => bail!("FAULTLINE_QEMU names {}, which is not there", program.display()),
            None => {
                bail!("QEMU is not installed: there is no {} (./setup.sh installs it)", program.display())
            }
        },
        other => other.with_context(|| format!("{} does not start", program.display()))?,
    };
    checked_version(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} cannot be used", program.display()))
}

/// The version in what `qemu --version` prints.
fn checked_version(text: &str) -> Result<String> {
    let version =
        text.lines().next().and_then(|line| line.split_once("version ")?.1.split_whitespace().next());
    let version = version.context("it does not tell its version")?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        bail!("it tells a version that makes no sense: {version}");
    };
    let (oldest_major, oldest_minor) = OLDEST_QEMU;
    if (major, minor) < OLDEST_QEMU {
        bail!("it is QEMU {version}, and {oldest_major}.{oldest_minor} is the oldest that will do");
    }
    Ok(version.to_owned())
}

/// Whether guests can run on this machine's processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// They can.
    Works,
    /// There is no such thing here.
    Absent,
    /// It is there, and this is why it is of no use.
    Unusable(String),
}

impl Kvm {
    /// Looks at this machine.
    pub fn probe() -> Self {
        Self::probe_files(Path::new("/dev/kvm"), Path::new("/proc/cpuinfo"))
    }

    /// Inside another virtual machine the device can exist and open, and still hang every guest: the
    /// processor must have the feature, too.
    pub(crate) fn probe_files(device: &Path, cpuinfo: &Path) -> Self {
        if !device.exists() {
            return Self::Absent;
        }
        if let Err(why) = File::options().read(true).write(true).open(device) {
            let hint = match why.kind() {
                std::io::ErrorKind::PermissionDenied => " (is your user in the group `kvm`?)",
                _ => "",
            };
            return Self::Unusable(format!("{} cannot be opened: {why}{hint}", device.display()));
        }
        let features = fs::read_to_string(cpuinfo).unwrap_or_default();
        if features.split_whitespace().any(|word| word == "vmx" || word == "svm") {
            return Self::Works;
        }
        Self::Unusable(format!(
            "{} opens, but this processor shows no virtualisation (vmx, svm)",
            device.display()
        ))
    }
}

/// What the user said about the accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AcceleratorChoice {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// The processor of this machine.
    Kvm,
    /// QEMU's translator: slower, the same everywhere.
    Tcg,
}

impl AcceleratorChoice {
    /// Decides. `icount` can be had from the translator only.
    ///
    /// # Errors
    /// When KVM is demanded and cannot be opened, or together with `icount`.
    pub fn decide(self, icount: bool, kvm: &Kvm) -> Result<Accelerator> {
        match (self, kvm) {
            (Self::Kvm, _) if icount => {
                bail!("--icount counts the translator's instructions: it needs --accel tcg")
            }
            (Self::Kvm, Kvm::Absent) => bail!("--accel kvm: there is no /dev/kvm on this machine"),
            (Self::Kvm, Kvm::Unusable(why)) if why.contains("cannot be opened") => {
                bail!("--accel kvm: {why}")
            }
            (Self::Kvm, _) => Ok(Accelerator::Kvm),
            (Self::Auto, Kvm::Works) if !icount => Ok(Accelerator::Kvm),
            _ => Ok(Accelerator::Tcg),
        }
    }
}

/// Looks for OVMF where distributions put it; `FAULTLINE_OVMF` names another place.
///
/// # Errors
/// When there is none.
pub fn ovmf() -> Result<PathBuf> {
    const PLACES: &[&str] = &[
        "/usr/share/ovmf/OVMF.fd",
        "/usr/share/OVMF/OVMF.fd",
        "/usr/share/edk2/x64/OVMF.4m.fd",
        "/usr/share/edk2-ovmf/x64/OVMF.fd",
        "/usr/share/edk2/ovmf/OVMF.fd",
        "/usr/share/qemu/ovmf-x86_64.bin",
    ];
    find_ovmf(named_ovmf(), PLACES)
}

/// The firmware that the user names.
pub(crate) fn named_ovmf() -> Option<PathBuf> {
    env::var_os("FAULTLINE_OVMF").map(PathBuf::from)
}

fn find_ovmf(named: Option<PathBuf>, places: &[&str]) -> Result<PathBuf> {
    if let Some(place) = named {
        if !place.is_file() {
            bail!("FAULTLINE_OVMF names {}, which is no file", place.display());
        }
        return Ok(place);
    }
    let found = places.iter().map(PathBuf::from).find(|place| place.is_file());
    found.context("UEFI needs the firmware OVMF, which is not installed (./setup.sh installs it)")
}

/// A kind of window that QEMU can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// By GTK.
    Gtk,
    /// By SDL.
    Sdl,
    /// By macOS.
    Cocoa,
}

impl Window {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gtk => "gtk",
            Self::Sdl => "sdl",
            Self::Cocoa => "cocoa",
        }
    }

    /// Asks QEMU which windows it can open, and looks whether there is a screen to open them on.
    ///
    /// # Errors
    /// When there is no window or no screen.
    pub fn find() -> Result<Self> {
        let program = qemu_program();
        let output = Command::new(&program).args(["-display", "help"]).output();
        let output = output.with_context(|| format!("{} does not start", program.display()))?;
        let has_screen = cfg!(target_os = "macos")
            || ["DISPLAY", "WAYLAND_DISPLAY"]
                .iter()
                .any(|name| env::var_os(name).is_some_and(|it| !it.is_empty()));
        Self::choose(&String::from_utf8_lossy(&output.stdout), has_screen)
    }

    fn choose(offered: &str, has_screen: bool) -> Result<Self> {
        let words: Vec<&str> = offered.lines().map(str::trim).collect();
        let found = [Self::Gtk, Self::Sdl, Self::Cocoa].into_iter().find(|kind| words.contains(&kind.name()));
        let Some(window) = found else {
            bail!(
                "--display: this QEMU can open no window; install its windows (on Debian the package \
                 qemu-system-gui), or see the screen by --screenshot"
            );
        };
        if !has_screen {
            bail!(
                "--display: there is no screen to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); \
                 --screenshot needs none"
            );
        }
        Ok(window)
    }
}

/// The full path of a program that PATH leads to.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)";
        assert_eq!(checked_version(debian).unwrap(), "7.2.22");
        assert_eq!(checked_version("QEMU emulator version 10.0.2\n").unwrap(), "10.0.2");
        assert!(checked_version("QEMU emulator version 6.2.0").is_ok());
        let old = checked_version("QEMU emulator version 5.2.0 (Debian 1:5.2)").unwrap_err().to_string();
        assert!(old.contains("5.2.0") && old.contains("6.2"), "{old}");
        assert!(checked_version("").is_err());
        assert!(checked_version("QEMU emulator version next").is_err());
    }

    #[test]
    fn a_window_needs_a_qemu_that_can_and_a_screen() {
        let help = |kinds: &str| format!("Available display backend types:\nnone\n{kinds}\ncurses\n");
        assert_eq!(Window::choose(&help("sdl\ngtk"), true).unwrap(), Window::Gtk);
        assert_eq!(Window::choose(&help("sdl"), true).unwrap(), Window::Sdl);
        let none = Window::choose(&help("egl-headless"), true).unwrap_err().to_string();
        assert!(none.contains("qemu-system-gui"), "{none}");
        let blind = Window::choose(&help("gtk"), false).unwrap_err().to_string();
        assert!(blind.contains("DISPLAY"), "{blind}");
    }

    #[test]
    fn kvm_needs_the_device_and_the_feature() {
        let folder = tempfile::tempdir().unwrap();
        let (device, cpuinfo) = (folder.path().join("kvm"), folder.path().join("cpuinfo"));
        assert_eq!(Kvm::probe_files(&device, &cpuinfo), Kvm::Absent);
        fs::write(&device, "").unwrap();
        fs::write(&cpuinfo, "flags : fpu sse2 nx").unwrap();
        assert!(matches!(Kvm::probe_files(&device, &cpuinfo), Kvm::Unusable(why) if why.contains("vmx")));
        fs::write(&cpuinfo, "flags : fpu svm nx").unwrap();
        assert_eq!(Kvm::probe_files(&device, &cpuinfo), Kvm::Works);
        let folder_as_device = Kvm::probe_files(folder.path(), &cpuinfo);
        assert!(matches!(folder_as_device, Kvm::Unusable(why) if why.contains("cannot be opened")));
    }

    #[test]
    fn firmware_is_where_it_is_named_or_where_distributions_put_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, none) = (folder.path().join("OVMF.fd"), folder.path().join("none"));
        fs::write(&file, "").unwrap();
        let places = [none.to_str().unwrap(), file.to_str().unwrap()];
        assert_eq!(find_ovmf(None, &places).unwrap(), file);
        assert_eq!(find_ovmf(Some(file.clone()), &[]).unwrap(), file);
        let named = find_ovmf(Some(none.clone()), &places).unwrap_err().to_string();
        assert!(
            named.starts_with("FAULTLINE_OVMF names ") && named.ends_with(", which is no file"),
            "{named}"
        );
        let missing = find_ovmf(None, &places[..1]).unwrap_err().to_string();
        assert!(missing.contains("OVMF, which is not installed"), "{missing}");
    }

    #[test]
    fn the_accelerator_is_chosen_or_obeyed() {
        let dead = Kvm::Unusable("opens, but".into());
        let decide = |choice: AcceleratorChoice, icount, kvm: &Kvm| choice.decide(icount, kvm).ok();
        assert_eq!(decide(AcceleratorChoice::Auto, false, &Kvm::Works), Some(Accelerator::Kvm));
        assert_eq!(decide(AcceleratorChoice::Auto, true, &Kvm::Works), Some(Accelerator::Tcg));
        assert_eq!(decide(AcceleratorChoice::Auto, false, &dead), Some(Accelerator::Tcg));
        assert_eq!(decide(AcceleratorChoice::Tcg, false, &Kvm::Works), Some(Accelerator::Tcg));
        assert_eq!(decide(AcceleratorChoice::Kvm, false, &dead), Some(Accelerator::Kvm));
        assert_eq!(decide(AcceleratorChoice::Kvm, false, &Kvm::Absent), None);
        assert_eq!(decide(AcceleratorChoice::Kvm, true, &Kvm::Works), None);
    }
}
