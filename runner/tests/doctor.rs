//! `doctor` on machines that are made up: a folder as PATH with small scripts for programs, and a folder as the
//! compiler's own files. One that has everything, and then each thing missing.
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A machine that lacks nothing that can be made up.
struct Fake(TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "sysroot/lib/rustlib/x86_64-unknown-none/lib"] {
            fs::create_dir_all(fake.at(folder)).unwrap();
        }
        for tool in [
            "rustlib/x86_64-unknown-linux-gnu/bin/llvm-objcopy",
            "rustlib/x86_64-unknown-linux-gnu/bin/llvm-objdump",
        ] {
            fake.program(&format!("sysroot/lib/{tool}"), "exit 0");
        }
        fake.file("sysroot/lib/rustlib/src/rust/library/core/Cargo.toml", "");
        fake.file("OVMF.fd", "");
        fake.rustc("1.96.0");
        fake.qemu("7.2.0", "gtk");
        for name in ["cc", "rust-lld", "apt-get", "gdb"] {
            fake.program(&format!("bin/{name}"), "exit 0");
        }
        fake.free_space(2048);
        fake
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let file = self.at(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        self.file(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn rustc(&self, version: &str) {
        let about = format!("echo release: {version}; echo host: x86_64-unknown-linux-gnu");
        let sysroot = self.at("sysroot");
        self.program(
            "bin/rustc",
            &format!("[ \"$1\" = -vV ] && {{ {about}; exit; }}\necho {}", sysroot.display()),
        );
    }

    fn qemu(&self, version: &str, window: &str) {
        let help = format!("echo none; echo {window}");
        self.program(
            "bin/qemu-system-x86_64",
            &format!("[ $1 = --version ] && {{ echo QEMU emulator version {version}; exit; }}\n{help}"),
        );
    }

    fn free_space(&self, mib: u64) {
        let line = format!("/dev/one of two 9000000 1 {} 7% /the checkout", mib * 1024);
        self.program("bin/df", &format!("[ \"$1\" = -Pk ] && echo headings && echo '{line}'"));
    }

    fn remove(&self, name: &str) {
        let path = self.at(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    /// What doctor prints, and its status.
    fn examined(&self) -> (String, Option<i32>) {
        self.examined_with(&[])
    }

    /// The same with these variables.
    fn examined_with(&self, variables: &[(&str, &str)]) -> (String, Option<i32>) {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_faultline"));
        doctor.arg("doctor").stdin(Stdio::null()).env("PATH", self.at("bin")).env("DISPLAY", ":0");
        doctor.env("FAULTLINE_OVMF", self.at("OVMF.fd")).env_remove("FAULTLINE_QEMU");
        doctor.envs(variables.iter().copied());
        let output = doctor.output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }
}

/// The one thing that is missing, and what follows about it.
#[track_caller]
fn lacks(fake: &Fake, what: &str, fix: &str) {
    lacks_in(fake.examined(), what, fix);
}

#[track_caller]
fn lacks_in((report, status): (String, Option<i32>), what: &str, fix: &str) {
    let missing: Vec<&str> = report.lines().filter(|line| line.starts_with("MISSING")).collect();
    assert_eq!(missing.len(), 1, "{report}");
    assert!(missing[0].contains(what), "{what} in {report}");
    let after = report.lines().skip_while(|line| *line != missing[0]).nth(1).unwrap_or("");
    assert_eq!(after, format!("         fix: {fix}"), "{report}");
    assert_eq!(status, Some(104));
}

#[track_caller]
fn notes(fake: &Fake, what: &str) {
    let (report, status) = fake.examined();
    assert!(report.lines().any(|line| line.starts_with("note") && line.contains(what)), "{what} in {report}");
    assert_eq!(status, Some(0), "{report}");
}

#[test]
fn a_machine_with_everything_lacks_nothing() {
    let (report, status) = Fake::new().examined();
    assert_eq!(status, Some(0), "{report}");
    for name in [
        "compiler",
        "C linker",
        "rust-src",
        "rust-lld",
        "llvm-tools",
        "QEMU",
        "UEFI firmware",
        "window",
        "space",
        "gdb",
    ] {
        assert!(report.contains(&format!("ok       {name}: ")), "{name} in {report}");
    }
}

#[test]
fn no_qemu() {
    let fake = Fake::new();
    fake.remove("bin/qemu-system-x86_64");
    lacks(&fake, "QEMU: QEMU is not installed", "sudo apt-get install qemu-system-x86");
    fake.remove("bin/apt-get");
    lacks(&fake, "QEMU: QEMU is not installed", "install qemu-system-x86_64 with your system's packages");
}

#[test]
fn an_old_qemu() {
    let fake = Fake::new();
    fake.qemu("5.2.0", "gtk");
    lacks(
        &fake,
        "it is QEMU 5.2.0, and 6.2 is the oldest that will do",
        "sudo apt-get install qemu-system-x86; if the system has no newer one, build QEMU (qemu.org/download) and let \
         FAULTLINE_QEMU name its qemu-system-x86_64",
    );
}

#[test]
fn a_qemu_that_is_named_wrongly() {
    let fake = Fake::new();
    let named = fake.examined_with(&[("FAULTLINE_QEMU", "/nowhere/qemu")]);
    lacks_in(
        named,
        "QEMU: FAULTLINE_QEMU names /nowhere/qemu, which is not there",
        "let FAULTLINE_QEMU name a QEMU of 6.2 or newer, or `unset FAULTLINE_QEMU`",
    );
}

#[test]
fn no_compiler() {
    let fake = Fake::new();
    fake.remove("bin/rustc");
    lacks(&fake, "compiler: rustc does not start", "./setup.sh");
}

#[test]
fn an_old_compiler() {
    let fake = Fake::new();
    fake.rustc("1.95.0");
    lacks(&fake, "rustc 1.95.0 in", "./setup.sh, or `rustup toolchain install 1.96.0` in this folder");
}

#[test]
fn too_little_space() {
    let fake = Fake::new();
    fake.free_space(2047);
    lacks(
        &fake,
        "space: 2047 MiB are free in ",
        "free 1 MiB there; `rm -r target` gives back what older builds took",
    );
}

#[test]
fn a_space_that_nobody_tells_is_a_note() {
    let fake = Fake::new();
    fake.program("bin/df", "echo headings; echo nonsense");
    notes(&fake, "space: unknown");
    fake.remove("bin/df");
    notes(&fake, "space: unknown");
}

#[test]
fn no_c_linker_or_one_that_does_not_run() {
    let fake = Fake::new();
    fake.remove("bin/cc");
    lacks(&fake, "C linker: there is no cc in PATH", "sudo apt-get install gcc libc6-dev");
    fake.program("bin/cc", "exit 1");
    lacks(&fake, "cc fails: exit status: 1", "sudo apt-get install gcc libc6-dev");
}

#[test]
fn no_linker_for_the_kernel_or_one_whose_package_is_gone() {
    let fake = Fake::new();
    fake.remove("bin/rust-lld");
    lacks(&fake, "there is no rust-lld", "./setup.sh, or install LLVM's lld and link it as rust-lld in PATH");
    fake.program("bin/rust-lld", "exit 127");
    lacks(&fake, "rust-lld fails: exit status: 127", "./setup.sh");
}

#[test]
fn no_rust_src() {
    let fake = Fake::new();
    fake.remove("sysroot/lib/rustlib/src");
    lacks(
        &fake,
        "rust-src: the compiler's own library is not there",
        "./setup.sh, or `rustup component add rust-src`",
    );
}

#[test]
fn no_llvm_tools_or_links_to_nothing() {
    let fake = Fake::new();
    let tool = "sysroot/lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-objcopy";
    fake.remove(tool);
    lacks(&fake, "there is no llvm-objcopy in", "./setup.sh, or `rustup component add llvm-tools`");
    symlink(Path::new("/nowhere/llvm-objcopy"), fake.at(tool)).unwrap();
    lacks(&fake, "there is no llvm-objcopy in", "./setup.sh, or `rustup component add llvm-tools`");
}

#[test]
fn no_firmware_for_uefi_is_a_note_with_its_cure() {
    let fake = Fake::new();
    fake.remove("OVMF.fd");
    notes(&fake, "which is no file (fix: let FAULTLINE_OVMF name OVMF's file, or `unset FAULTLINE_OVMF`)");
}

#[test]
fn no_gdb_is_a_note_with_its_cure() {
    let fake = Fake::new();
    fake.remove("bin/gdb");
    notes(&fake, "there is no gdb (fix: sudo apt-get install gdb)");
}

#[test]
fn no_window_is_a_note_with_its_cure() {
    let fake = Fake::new();
    fake.qemu("7.2.0", "curses");
    notes(&fake, "install its windows (on Debian the package qemu-system-gui)");
}

#[test]
fn no_core_for_the_bare_target_is_a_note() {
    let fake = Fake::new();
    fake.remove("sysroot/lib/rustlib/x86_64-unknown-none");
    notes(&fake, "the kernel builds its own `core`");
}
