//! `cargo run -- doctor`: what a run needs, what is missing, and how to get it.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::host::{self, Kvm, OLDEST_QEMU, QemuCure, Window};
use crate::outcome::Outcome;
use crate::toolchain::Toolchain;
use crate::workspace::Workspace;

/// The boot stages and three target folders take about this much.
const SPACE_NEEDED_MIB: u64 = 2048;
/// The oldest compiler, as in the workspace's manifest.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What was found about one need.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It is there.
    Fine(String),
    /// It is not, and all but something optional works without.
    Note(String),
    /// It is not, and this is the cure.
    Missing { why: String, fix: String },
}

/// Looks at everything that a run needs, and prints a line about each.
///
/// # Errors
/// When something is missing.
pub fn examine(out: &mut dyn Write) -> Result<Outcome> {
    let mut missing = 0;
    for (name, finding) in findings() {
        match finding {
            Finding::Fine(about) => writeln!(out, "ok       {name}: {about}")?,
            Finding::Note(about) => writeln!(out, "note     {name}: {about}")?,
            Finding::Missing { why, fix } => {
                missing += 1;
                writeln!(out, "MISSING  {name}: {why}\n         fix: {fix}")?;
            }
        }
    }
    match missing {
        0 => Ok(Outcome::Status(0)),
        1 => bail!("1 thing is missing (its fix is above)"),
        count => bail!("{count} things are missing (their fixes are above)"),
    }
}

fn findings() -> Vec<(&'static str, Finding)> {
    let workspace = Workspace::find();
    let mut all = match &workspace {
        Ok(workspace) => compiler(workspace.toolchain()),
        Err(why) => vec![("compiler", missing(format!("{why:#}"), "./setup.sh"))],
    };
    all.push(("QEMU", qemu()));
    all.push(("UEFI firmware", firmware(host::ovmf(), host::named_ovmf().is_some())));
    all.push(("window", window()));
    all.push(("gdb", gdb()));
    all.push(("KVM", kvm(&Kvm::probe())));
    if let Ok(workspace) = &workspace {
        all.push(("space", space(workspace.root())));
        all.push(("boot stages", boot_stages(workspace)));
    }
    all
}

fn compiler(toolchain: &Toolchain) -> Vec<(&'static str, Finding)> {
    let here = toolchain.sysroot.display();
    let version =
        match toolchain.release.split('-').next().is_some_and(|release| at_least(release, OLDEST_RUST)) {
            true => Finding::Fine(format!("rustc {} in {here}", toolchain.release)),
            false => missing(
                format!("rustc {} in {here} is too old: {OLDEST_RUST} is needed", toolchain.release),
                "./setup.sh, or `rustup toolchain install 1.96.0` in this folder",
            ),
        };
    let source = match toolchain.has_source() {
        true => Finding::Fine("installed".into()),
        false => missing(
            "the compiler's own library is not there as source (the boot stages build it)",
            "./setup.sh, or `rustup component add rust-src`",
        ),
    };
    let target = match toolchain.has_bare_core() {
        true => Finding::Fine("installed".into()),
        false => Finding::Note(
            "not installed; the kernel builds its own `core`, half a minute longer at first".into(),
        ),
    };
    let linker = match host::in_path("rust-lld")
        .or_else(|| Some(toolchain.tools().join("rust-lld")).filter(|file| file.is_file()))
    {
        Some(linker) => runs(&linker, &["-flavor", "gnu", "--version"]),
        None => missing(
            "there is no rust-lld",
            "./setup.sh, or install LLVM's lld and link it as rust-lld in PATH",
        ),
    };
    let tools = match (toolchain.objcopy(), toolchain.tools().join("llvm-objdump").exists()) {
        (Ok(objcopy), true) => runs(&objcopy, &["--version"]),
        (objcopy, _) => missing(
            objcopy.err().map_or_else(|| "there is no llvm-objdump".into(), |why| format!("{why:#}")),
            "./setup.sh, or `rustup component add llvm-tools`",
        ),
    };
    vec![
        ("compiler", version),
        ("C linker", c_linker()),
        ("rust-src", source),
        ("target x86_64-unknown-none", target),
        ("rust-lld", linker),
        ("llvm-tools", tools),
    ]
}

/// Programs of the host, the runner first, are linked by it.
fn c_linker() -> Finding {
    match host::in_path("cc") {
        Some(cc) => match runs(&cc, &["--version"]) {
            Finding::Missing { why, .. } => missing(why, package("gcc libc6-dev", "a C compiler")),
            fine => fine,
        },
        None => missing("there is no cc in PATH", package("gcc libc6-dev", "a C compiler")),
    }
}

/// A link can point to a package that is gone, so being there is not enough.
fn runs(program: &Path, args: &[&str]) -> Finding {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => Finding::Fine(program.display().to_string()),
        Ok(output) => missing(format!("{} fails: {}", program.display(), output.status), "./setup.sh"),
        Err(why) => missing(format!("{} does not start: {why}", program.display()), "./setup.sh"),
    }
}

fn qemu() -> Finding {
    match host::qemu_version() {
        Ok(version) => Finding::Fine(format!("{} {version}", host::qemu_program().display())),
        Err(why) => missing(format!("{why:#}"), qemu_fix(QemuCure::find())),
    }
}

fn qemu_fix(cure: QemuCure) -> String {
    let (major, minor) = OLDEST_QEMU;
    match cure {
        QemuCure::Install => package("qemu-system-x86", "qemu-system-x86_64"),
        QemuCure::Name => {
            format!("let FAULTLINE_QEMU name a QEMU of {major}.{minor} or newer, or `unset FAULTLINE_QEMU`")
        }
        QemuCure::Replace => format!(
            "{}; if the system has no newer one, build QEMU (qemu.org/download) and let FAULTLINE_QEMU name its \
             qemu-system-x86_64",
            package("qemu-system-x86", "a newer qemu-system-x86_64")
        ),
    }
}

fn firmware(found: Result<PathBuf>, is_named: bool) -> Finding {
    match found {
        Ok(file) => Finding::Fine(file.display().to_string()),
        Err(why) => {
            let fix = match is_named {
                true => "let FAULTLINE_OVMF name OVMF's file, or `unset FAULTLINE_OVMF`".into(),
                false => package("ovmf", "OVMF"),
            };
            Finding::Note(format!("--uefi does not work: {why:#} (fix: {fix})"))
        }
    }
}

fn kvm(kvm: &Kvm) -> Finding {
    match kvm {
        Kvm::Works => Finding::Fine("works".into()),
        Kvm::Absent => Finding::Note("not on this machine; QEMU translates instead, which is slower".into()),
        Kvm::Unusable(why) => Finding::Note(format!(
            "not used: {why}; QEMU translates instead, which is slower (fix: {})",
            kvm_fix(why)
        )),
    }
}

/// Who may not open the device can be let; what a processor does not show, this machine cannot mend.
fn kvm_fix(why: &str) -> &'static str {
    if why.contains("group `kvm`") {
        return "sudo usermod -aG kvm $USER, and log in again";
    }
    "switch virtualisation on in the firmware, or in the virtual machine that this is"
}

fn window() -> Finding {
    match Window::find() {
        Ok(window) => Finding::Fine(window.name().into()),
        Err(why) => Finding::Note(format!("{why:#}")),
    }
}

fn gdb() -> Finding {
    match host::in_path("gdb") {
        Some(gdb) => Finding::Fine(gdb.display().to_string()),
        None => Finding::Note(format!(
            "--gdb only tells what to type: there is no gdb (fix: {})",
            package("gdb", "gdb")
        )),
    }
}

fn space(root: &Path) -> Finding {
    let about = Command::new("df").arg("-Pk").arg(root).output();
    let free = about.ok().and_then(|output| free_mib(&String::from_utf8_lossy(&output.stdout)));
    free.map_or_else(
        || Finding::Note("unknown: `df -Pk` does not tell".into()),
        |free| enough_space(free, root),
    )
}

/// What `df -Pk` says of one file system: below the headings its device, all KiB, those in use, and those that are free.
fn free_mib(table: &str) -> Option<u64> {
    let line = table.lines().nth(1)?;
    // The device's name may have spaces; the use in percent stands behind the free KiB.
    let words: Vec<&str> = line.split_whitespace().collect();
    let percent = words
        .iter()
        .position(|word| word.strip_suffix('%').is_some_and(|number| number.parse::<u32>().is_ok()))?;
    Some(words.get(percent.checked_sub(1)?)?.parse::<u64>().ok()? >> 10)
}

fn enough_space(free_mib: u64, root: &Path) -> Finding {
    if free_mib >= SPACE_NEEDED_MIB {
        return Finding::Fine(format!("{free_mib} MiB free"));
    }
    missing(
        format!("{free_mib} MiB are free in {}, and a build takes up to {SPACE_NEEDED_MIB}", root.display()),
        format!(
            "free {} MiB there; `rm -r target` gives back what older builds took",
            SPACE_NEEDED_MIB - free_mib
        ),
    )
}

fn boot_stages(workspace: &Workspace) -> Finding {
    match workspace.root().join("target/image/debug/faultline-image").is_file() {
        true => Finding::Fine("built".into()),
        false => Finding::Note("not built yet: the first run takes some minutes longer".into()),
    }
}

fn missing(why: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::Missing { why: why.into(), fix: fix.into() }
}

/// How to install a package whose name is known on Debian.
fn package(debian: &str, elsewhere: &str) -> String {
    if host::in_path("apt-get").is_some() {
        return format!("sudo apt-get install {debian}");
    }
    format!("install {elsewhere} with your system's packages")
}

/// Compares versions of numbers and dots.
fn at_least(version: &str, oldest: &str) -> bool {
    let numbers =
        |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(version) >= numbers(oldest)
}

#[cfg(test)]
mod tests;
