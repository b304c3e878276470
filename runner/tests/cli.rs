//! The runner's program, used wrongly: one sentence and status 104, or clap's usage error, before anything is
//! built or booted.
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn faultline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&dyn AsRef<OsStr>]) -> Output {
    faultline().args(args.iter().map(|arg| arg.as_ref())).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exactly one line, from the runner, with these words; and nothing on standard output.
#[track_caller]
fn refused(output: &Output, words: &str) {
    let text = errors(output);
    assert_eq!(output.status.code(), Some(104), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("faultline: ") && text.contains(words), "{text}");
    assert!(output.stdout.is_empty());
}

#[track_caller]
fn misused(output: &Output, words: &str) {
    let text = errors(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: ") && text.contains(words), "{text}");
}

/// A program that prints `text`.
fn fake(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[test]
fn a_disk_that_is_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    refused(&run(&[&"--disk", &folder.path().join("none")]), "there is no disk file");
    refused(&run(&[&"--disk-ro", &folder.path()]), "is a folder");
    refused(&run(&[&"--disk", &"/dev/zero"]), "is not a regular file");
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    refused(&run(&[&"--disk", &empty]), "is empty");
}

#[test]
fn the_status_is_the_same_where_nobody_reads_what_is_told() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let status = faultline().args(["--disk", "/there/is/none"]).stderr(closed).status().unwrap();
    assert_eq!(status.code(), Some(104), "101 would be a panic of the kernel");
}

#[test]
fn a_screenshot_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(&run(&[&"--screenshot", &folder.path()]), "is a folder");
    refused(&run(&[&"--screenshot", &folder.path().join("none/a.png")]), "cannot write");
    let disk = folder.path().join("disk");
    fs::write(&disk, [7; 512]).unwrap();
    refused(&run(&[&"--disk", &disk, &"--screenshot", &disk]), "the screenshot would overwrite it");
    assert_eq!(fs::read(&disk).unwrap(), [7; 512]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_record_of_what_cannot_be_recorded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run");
    refused(&run(&[&"--record", &log, &"--smp", &"2"]), "a machine of 2 processors cannot be recorded");
    refused(&run(&[&"--record", &log, &"--accel", &"kvm"]), "it needs --accel tcg");
    refused(&run(&[&"--record", &folder.path().join("none/run")]), "cannot write");
    let disk = folder.path().join("disk");
    fs::write(&disk, [7; 512]).unwrap();
    refused(&run(&[&"--disk", &disk, &"--record", &disk]), "the record would overwrite it");
    assert_eq!(fs::read(&disk).unwrap(), [7; 512]);
    assert!(!log.exists());
}

#[test]
fn a_run_whose_outputs_are_one_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("both");
    let words = "cannot be both the screenshot and the record";
    refused(&run(&[&"--record", &file, &"--screenshot", &file]), words);
    refused(
        &run(&[&"--trace", &file, &"--screenshot", &file]),
        "cannot be both the trace and the screenshot",
    );
    assert!(!file.exists());
}

#[test]
fn nothing_is_put_beside_the_users_files_before_the_kernel_is_built() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seen = tools.path().join("seen");
    // What is there while the kernel is built, which then fails.
    let look = format!("ls -A {} > {}", folder.path().display(), seen.display());
    let cargo = tools.path().join("cargo");
    let script = format!("#!/bin/sh\ncase \"$*\" in *faultline-kernel*) {look};; esac\nexit 1\n");
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = faultline();
    command.env("CARGO", &cargo).arg("--record").arg(folder.path().join("run"));
    let output = command.arg("--screenshot").arg(folder.path().join("a.png")).output().unwrap();
    // In a fresh clone a line before it says that the boot stages are built.
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(104), "{text}");
    assert_eq!(text.lines().last(), Some("faultline: `cargo build -p kernel` failed"), "{text}");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_replay_of_what_is_no_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(&run(&[&"--replay", &folder.path().join("none")]), "there is no record");
    let other = folder.path().join("other");
    fs::write(&other, "something else").unwrap();
    refused(&run(&[&"--replay", &other]), "is no record of a run that has ended");
    misused(&run(&[&"--replay", &other, &"--exec", &"help"]), "cannot be used with");
    misused(&run(&[&"--record", &other, &"--icount"]), "cannot be used with");
}

#[test]
fn a_window_where_none_can_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let help = |kinds: &str| format!("QEMU emulator version 7.2.0\nnone\n{kinds}");
    let without = fake(folder.path(), "without", &help("curses"));
    let mut display = faultline();
    display.arg("--display").env("DISPLAY", ":0");
    refused(&display.env("FAULTLINE_QEMU", &without).output().unwrap(), "qemu-system-gui");
    let with = fake(folder.path(), "with", &help("gtk"));
    display.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    refused(&display.env("FAULTLINE_QEMU", &with).output().unwrap(), "no screen to open a window on");
}

#[test]
fn options_for_no_disk_are_refused() {
    refused(
        &run(&[&"--disk-iops", &"10", &"--disk-iops", &"20"]),
        "--disk-iops needs a --disk in front of it",
    );
    refused(&run(&[&"--disk-fail", &"3"]), "--disk-fail needs a --disk in front of it");
}

#[test]
fn a_disk_named_twice_or_failing_beyond_its_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::write(&disk, [0; 1024]).unwrap();
    refused(&run(&[&"--disk", &disk, &"--disk-ro", &disk]), "named twice");
    refused(&run(&[&"--disk", &disk, &"--disk-fail", &"1,2"]), "has sectors 0 to 1 only");
}

#[test]
fn more_disks_than_the_machine_has_room_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = faultline();
    for index in 0..16 {
        let disk = folder.path().join(index.to_string());
        fs::write(&disk, "x").unwrap();
        command.arg("--disk-ro").arg(disk);
    }
    refused(&command.output().unwrap(), "16 disks are too many");
}

#[test]
fn nonsense_is_a_usage_error() {
    misused(&run(&[&"--memory", &"lots"]), "64M or 2G");
    misused(&run(&[&"--smp", &"0"]), "--smp");
    misused(&run(&[&"--bios", &"--uefi"]), "cannot be used with");
    misused(&run(&[&"--bogus"]), "--bogus");
    misused(&run(&[&"--log", &"info mm=trace"]), "it is one word");
    misused(&run(&[&"--log", &"mm=loud"]), "off, error, warn, info, debug or trace");
    misused(&run(&[&"doctor", &"--bogus"]), "--bogus");
}

#[test]
fn counting_instructions_under_kvm_is_refused() {
    refused(&run(&[&"--icount", &"--accel", &"kvm"]), "--icount");
}

#[test]
fn a_missing_or_old_qemu_is_named_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let mut none = faultline();
    let words = "FAULTLINE_QEMU names /nowhere/qemu, which is not there";
    refused(&none.env("FAULTLINE_QEMU", "/nowhere/qemu").output().unwrap(), words);
    let old = fake(folder.path(), "qemu", "QEMU emulator version 4.2.1 (Debian)");
    refused(&faultline().env("FAULTLINE_QEMU", &old).output().unwrap(), "4.2.1");
    let not_qemu = fake(folder.path(), "other", "hello");
    refused(&faultline().env("FAULTLINE_QEMU", &not_qemu).output().unwrap(), "version");
}

#[test]
fn a_missing_firmware_is_named() {
    let output = faultline().env("FAULTLINE_OVMF", "/nowhere/OVMF.fd").arg("--uefi").output().unwrap();
    refused(&output, "/nowhere/OVMF.fd");
}

#[test]
fn a_missing_compiler_is_named_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = fake(folder.path(), "qemu", "QEMU emulator version 7.2.0");
    let cat = folder.path().join("cat");
    std::os::unix::fs::symlink("/bin/cat", cat).unwrap();
    let mut command = faultline();
    command.env("PATH", folder.path()).env("FAULTLINE_QEMU", &qemu);
    refused(&command.output().unwrap(), "rustc does not start (./setup.sh installs it)");
    let doctor = command.arg("doctor").output().unwrap();
    let report = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(report.contains("MISSING  compiler: rustc does not start"), "{report}");
    assert_eq!(doctor.status.code(), Some(104));
}

#[test]
fn doctor_names_each_missing_thing_with_its_fix() {
    let mut command = faultline();
    let output = command.arg("doctor").env("FAULTLINE_QEMU", "/nowhere/qemu").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        report.contains("MISSING  QEMU: FAULTLINE_QEMU names /nowhere/qemu, which is not there"),
        "{report}"
    );
    assert!(report.lines().any(|line| line.trim_start().starts_with("fix: ")), "{report}");
    assert!(report.contains("ok       compiler: rustc"), "{report}");
    assert_eq!(output.status.code(), Some(104));
    assert_eq!(errors(&output), "faultline: 1 thing is missing (its fix is above)\n");
}

#[test]
fn doctor_is_content_with_a_machine_that_runs_the_tests() {
    let output = run(&[&"doctor"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}");
    for name in ["compiler", "rust-src", "rust-lld", "llvm-tools", "QEMU", "UEFI firmware", "KVM", "space"] {
        assert!(report.contains(&format!(" {name}: ")), "{name} in {report}");
    }
}

#[test]
fn help_tells_the_options_and_the_statuses() {
    let output = run(&[&"--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for word in ["--disk-fail", "--exec", "--screenshot", "--uefi", "doctor", "101", "104"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}
